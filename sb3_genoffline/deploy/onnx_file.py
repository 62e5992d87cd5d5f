"""Writing a policy as an ONNX file, and comparing what the file does with what the policy does."""

import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch import Tensor, nn

from sb3_genoffline.data.flattening import box_leaves
from sb3_genoffline.deploy.draws import BATCH, KINDS, DrawnInput, GivenDraws, RecordedDraws, drawn_inputs
from sb3_genoffline.errors import MissingPackageError, UserError
from sb3_genoffline.files.writing import replace_file
from sb3_genoffline.nets.blocks import undivided
from sb3_genoffline.version import __version__

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_CHECKED_BATCHES = (1, 5)
_TOLERANCE = 1e-3  # of an action's range; candidates pass through many layers before one is chosen
_Shapes = list[tuple[int | str, ...]]
_SEED_NOTE = "nothing is drawn inside: seed the generator that you draw the inputs of random numbers from"


class Acting(nn.Module):
    """
    All of ``predict`` as one function of tensors.

    :param policy: the agent's
    :param deterministic: as in ``predict``
    """

    def __init__(self, policy: Any, deterministic: bool) -> None:
        super().__init__()
        self.policy, self.deterministic = policy, deterministic
        space = policy.action_space
        for name in ("low", "high"):
            self.register_buffer(name, th.as_tensor(getattr(space, name), device=policy.device), persistent=False)

    low: Tensor
    high: Tensor

    def forward(self, observations: list[Tensor], numbers: list[Tensor]) -> Tensor:
        """
        :param observations: (B, ...) each, raw
        :param numbers: of each draw
        :return: (B, A) in the environment's units
        """
        with GivenDraws(numbers):
            flat = [observation.flatten(1) for observation in observations]
            scaled = self.policy._predict(flat[0] if len(flat) == 1 else th.cat(flat, dim=1), self.deterministic)
        unscaled = self.low + 0.5 * (scaled + 1.0) * (self.high - self.low)
        return th.minimum(th.maximum(unscaled, self.low), self.high)


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
    with undivided(), _untouched_stream(agent.policy):
        return drawn_inputs(lambda batch: agent.predict(_some_observations(agent.policy, batch), deterministic=deterministic))


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

    draws, observations = draws_of(agent, deterministic), observation_inputs(source)
    model = _translated(Acting(agent.policy, deterministic).eval(), observations, draws)
    note = dict.fromkeys(observations, "raw observation") | {draw.name: KINDS[draw.kind] for draw in draws}
    metadata = {**facts, "library": f"sb3-genoffline {__version__}", "deterministic": json.dumps(deterministic)}
    metadata |= {"inputs": json.dumps(note), "seed": _SEED_NOTE}
    model.metadata_props.update({key: value for key, value in metadata.items() if value is not None})
    content = onnx_ir.to_proto(model).SerializeToString()
    _compare(agent, content, observations, draws, deterministic)
    path = path if path.suffix == ".onnx" else path.with_name(f"{path.name}.onnx")
    replace_file(path, content)
    return path


def _translated(acting: Acting, observations: Mapping[str, tuple[int, ...]], draws: Sequence[DrawnInput]) -> Any:
    """The function as an ``onnx_ir.Model``."""
    shapes: tuple[_Shapes, _Shapes] = [(BATCH, *shape) for shape in observations.values()], [draw.shape for draw in draws]
    like, batch = acting.policy.obs_mean, th.export.Dim(BATCH, min=1)
    examples = tuple([like.new_zeros([3 if size == BATCH else size for size in shape]) for shape in part] for part in shapes)
    dynamic = tuple([{shape.index(BATCH): batch} for shape in part] for part in shapes)
    names = [*observations, *(draw.name for draw in draws)]
    with th.no_grad(), undivided(), _quiet():
        program = th.export.export(acting, examples, dynamic_shapes=dynamic, strict=False)
        translated: Any = th.onnx.export(program, (), input_names=names, output_names=["action"], dynamo=True, verbose=False)
    return _tidied(translated.model, [*shapes[0], *shapes[1], (BATCH, acting.policy.action_dim)])


def _tidied(model: Any, shapes: _Shapes) -> Any:
    """
    The model without what the exporter has noted of each operation, such as lines of code and where they lie on this machine.

    :param model: an ``onnx_ir.Model``
    :param shapes: of its inputs and its output
    """
    import onnx_ir

    for node in model.graph.all_nodes():
        for part in (node, *node.outputs):
            part.metadata_props.clear()
        for output in node.outputs:
            output.shape = None  # with names of its own for the number of observations
    for value, shape in zip([*model.graph.inputs, *model.graph.outputs], shapes, strict=True):
        value.shape = onnx_ir.Shape(shape)
    return model


def _compare(
    agent: Any, content: bytes, observations: Mapping[str, tuple[int, ...]], draws: Sequence[DrawnInput], deterministic: bool
) -> None:
    """:raises UserError: if the file does not act as the agent's ``predict``"""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: that it can't fold a Mish of constants is none
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    space = agent.policy.action_space
    for batch in _CHECKED_BATCHES:
        flat = _some_observations(agent.policy, batch)
        with undivided(), _untouched_stream(agent.policy), RecordedDraws() as recorded:
            expected = agent.predict(flat, deterministic=deterministic)[0]
        widths = np.cumsum([int(np.prod(shape)) for shape in observations.values()])[:-1]
        parts = np.split(flat, widths, axis=1)
        given = {name: part.reshape(batch, *shape) for (name, shape), part in zip(observations.items(), parts, strict=True)}
        for draw, (_, numbers) in zip(draws, recorded.numbers, strict=True):
            given[draw.name] = numbers.cpu().numpy().reshape(draw.sized(batch))
        actions = session.run(["action"], given)[0]
        apart = (np.abs(actions - expected) / (space.high - space.low)).max(axis=1)
        wrong = ~(apart <= _TOLERANCE) & ~np.broadcast_to(np.asarray(recorded.ties), batch)
        if wrong.any():
            raise UserError(
                f"The file would not act as {type(agent).__name__}: for {batch} observation(s) its actions are up to "
                f"{apart[wrong].max():.2g} of their range from predict's. Nothing was written."
            )


def _some_observations(policy: Any, batch: int) -> np.ndarray:
    """(B, S) that are distributed as the data's where their statistics are known; always the same."""
    mean, std = policy.obs_mean.cpu().numpy(), policy.obs_std.cpu().numpy()
    numbers: np.ndarray = (mean + std * np.random.default_rng(batch).normal(size=(batch, len(mean)))).astype(mean.dtype)
    return numbers


@contextmanager
def _untouched_stream(policy: Any) -> Iterator[None]:
    """The stream of acting's random numbers stands afterwards where it stood."""
    generator = policy.acting_generator
    state = generator.get_state()
    try:
        yield
    finally:
        generator.set_state(state)


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
