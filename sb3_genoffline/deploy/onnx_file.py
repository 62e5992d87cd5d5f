"""Writing a policy as an ONNX file, and comparing what the file does with what the policy does."""

import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch as th
from gymnasium import spaces
from torch import nn

from sb3_genoffline.data.flattening import box_leaves
from sb3_genoffline.deploy.acting import EPISODE_START, NEXT_STATE, REWARD, Acting
from sb3_genoffline.deploy.draws import BATCH, KINDS, DrawnInput, drawn_inputs
from sb3_genoffline.deploy.loops import RecordedLoops
from sb3_genoffline.deploy.rehearsal import rehearse, some_observations, untouched_stream
from sb3_genoffline.errors import MissingPackageError, UserError
from sb3_genoffline.files.writing import replace_file
from sb3_genoffline.nets.blocks import undivided
from sb3_genoffline.nets.loops import loops_made_by
from sb3_genoffline.version import __version__

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_MEMORY_NOTES = {EPISODE_START: "1 where an episode begins, otherwise 0", REWARD: "what the last action was rewarded with"}
_STATE_NOTE = f"the last call's output {NEXT_STATE}...; before the first, 0"
_SEED_NOTE = "nothing is drawn inside: seed the generator that you draw the inputs of random numbers from"


def observation_inputs(source: spaces.Space[Any]) -> dict[str, tuple[int, ...]]:
    """
    :param source: of the environment's observations
    :return: inputs and the shape of one observation in each, in the order in which they are joined
    """
    return {".".join(["observation", *map(str, path)]): box.shape for path, box in box_leaves(source)}


def draws_of(agent: Any, deterministic: bool = True) -> list[DrawnInput]:
    """
    :param agent: of this library
    :param deterministic: as in ``predict``
    :return: the random numbers that its policy draws to act
    """
    with undivided(), untouched_stream(agent.policy):
        return drawn_inputs(lambda batch: agent.predict(some_observations(agent.policy, batch), deterministic=deterministic))


def write_onnx(
    agent: Any, path: Path, source: spaces.Space[Any], deterministic: bool, facts: Mapping[str, str | None]
) -> Path:
    """
    See :meth:`~sb3_genoffline.common.stored_learner.StoredLearner.export_onnx`.

    :param agent: of this library
    :param path: ``.onnx`` is added
    :param source: of the environment's observations
    :param deterministic: as in ``predict``
    :param facts: for the file's metadata; None is left out
    """
    for package in _PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingPackageError(f'Exporting needs {package} ({error}): pip install "sb3-genoffline[onnx]"') from error
    import onnx_ir

    if not path.name:
        raise UserError(f"{str(path)!r} is no name of a file: give one, as 'agent.onnx'.")
    acting = agent.policy.acting_module(deterministic).eval()
    if agent.policy.has_memory and type(acting) is Acting:
        raise UserError(
            f"{type(agent.policy).__name__} acts by what came before, and does not say how a file should: "
            "give it an acting_module, as DecisionTransformerPolicy has."
        )
    draws, observations = draws_of(agent, deterministic), observation_inputs(source)
    model = _translated(acting, observations, draws)
    notes = dict.fromkeys(observations, "raw observation") | {
        name: _MEMORY_NOTES.get(name, _STATE_NOTE) for name in acting.memory
    }
    notes |= {draw.name: KINDS[draw.kind] for draw in draws}
    metadata = {
        **facts,
        **acting.facts,
        "library": f"sb3-genoffline {__version__}",
        "deterministic": json.dumps(deterministic),
    }
    metadata |= {"inputs": json.dumps(notes), "seed": _SEED_NOTE}
    model.metadata_props.update({key: value for key, value in metadata.items() if value is not None})
    content = onnx_ir.to_proto(model).SerializeToString()
    rehearse(agent, acting, content, observations, draws)
    path = path if path.suffix == ".onnx" else path.with_name(f"{path.name}.onnx")
    replace_file(path, content)
    return path


def _translated(acting: Acting, observations: Mapping[str, tuple[int, ...]], draws: Sequence[DrawnInput]) -> Any:
    """The function as an ``onnx_ir.Model``."""
    shapes: list[dict[str, tuple[int | str, ...]]] = [
        {name: (BATCH, *shape) for name, shape in observations.items()},
        {name: (BATCH, *shape) for name, shape in acting.memory.items()},
        {draw.name: draw.shape for draw in draws},
    ]
    like, batch = acting.policy.obs_mean, th.export.Dim(BATCH, min=1)
    examples = tuple(
        [like.new_zeros([3 if size == BATCH else size for size in shape]) for shape in part.values()] for part in shapes
    )
    dynamic = tuple([{shape.index(BATCH): batch} for shape in part.values()] for part in shapes)
    names = [name for part in shapes for name in part]
    loops = RecordedLoops()
    with undivided(), loops_made_by(loops):
        model = _exported(acting, examples, dynamic, names, acting.results)
    loops.put_into(model, _exported)
    return _tidied(model, [shape for part in shapes for shape in part.values()])


def _exported(
    function: nn.Module,
    examples: tuple[Any, ...],
    dynamic: tuple[Any, ...],
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
) -> Any:
    """PyTorch's exporter, without its words and without gradients."""
    with th.no_grad(), _quiet():
        program = th.export.export(function, examples, dynamic_shapes=dynamic, strict=False)
        return th.onnx.export(program, (), input_names=inputs, output_names=outputs, dynamo=True, verbose=False).model  # type: ignore[union-attr]


def _tidied(model: Any, shapes: Sequence[tuple[int | str, ...]]) -> Any:
    """
    The model without what the exporter has noted of it, such as lines of code and where they lie on this machine.

    :param model: an ``onnx_ir.Model``
    :param shapes: of its inputs
    """
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)
    axes = {value: value.shape for value in model.graph.outputs}
    for graph in model.graphs():
        made = [output for node in graph for output in node.outputs]
        for value in (*graph.inputs, *graph.initializers.values(), *made):
            value.metadata_props.clear()
        for value in made:
            value.shape = None  # with names of its own for the number of observations
    for value, shape in zip(model.graph.inputs, shapes, strict=True):
        value.shape = onnx_ir.Shape(shape)
    for value, shape in axes.items():
        value.shape = onnx_ir.Shape([BATCH, *shape[1:]])
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
