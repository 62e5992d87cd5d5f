"""Loops in an ONNX file: a step is translated once, however often it is made, its gradients as operations like others."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch as th
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from sb3_genoffline.nets.loops import Step

_DOMAIN = "sb3_genoffline"
_LARGEST = 1 << 31  # of weights that are written once, in bytes
_ROWS = 97  # of examples, or the next number that is no other size, since PyTorch takes equal sizes for one

Translate = Callable[[th.nn.Module, tuple[Any, ...], tuple[Any, ...]], Any]
"""A module, example inputs and their dynamic axes -> an ``onnx_ir.Model``."""


class RecordedLoops:
    """
    As :func:`~sb3_genoffline.nets.loops.loops_made_by`'s loop while a graph is recorded: leaves one node for each loop.
    :meth:`put_into` then makes them loops of the file.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Step, list[_Like], list[_Like]]] = []

    def __call__(self, step: Step, state: Tensor, constants: Sequence[Tensor], of_steps: Sequence[Tensor]) -> Tensor:
        likes = [_Like.of(each) for each in (state, *constants)], [_Like.of(each[0]) for each in of_steps]
        self._steps.append((step, *likes))
        inputs = (state, *constants, *of_steps)
        number: dict[str, Any] = {"number": len(self._steps) - 1}
        return th.onnx.ops.symbolic(f"{_DOMAIN}::Loop", inputs, number, dtype=state.dtype, shape=state.shape, version=1)

    def put_into(self, model: Any, translate: Translate) -> None:
        """
        :param model: an ``onnx_ir.Model`` with nodes of ours
        :param translate: makes models of steps
        """
        import onnx_ir as ir
        from onnx_ir.passes import common

        if not self._steps:
            return
        for node in [node for node in model.graph if node.domain == _DOMAIN]:
            number = node.attributes["number"].as_int()
            step, carried, of_step = self._steps[number]
            body = _translated(step, [*carried, *of_step], translate).graph
            _rename(body, f"loop_{number}.")  # onnx_ir's NameFixPass leaves names that two graphs share
            for constant in body.inputs[1 : len(carried)]:
                passed_on = ir.node("Identity", [constant])
                passed_on.outputs[0].name = f"{constant.name}.next"
                body.append(passed_on)
                body.outputs.append(passed_on.outputs[0])
            attributes = {"body": body, "num_scan_inputs": len(of_step)}
            scan = ir.node("Scan", node.inputs, attributes, num_outputs=len(carried))
            for place, output in enumerate(scan.outputs):
                output.name = f"loop_{number}.{place}"
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], [scan], node.outputs, scan.outputs[:1])
        for tidy in (common.LiftSubgraphInitializersToMainGraphPass(), common.DeduplicateInitializersPass(_LARGEST)):
            tidy(model)
        model.opset_imports.pop(_DOMAIN, None)


class _Like(NamedTuple):
    """What a tensor is like: its sizes, None where the graph that is being recorded leaves them open."""

    sizes: list[int | None]
    dtype: th.dtype
    device: th.device

    @classmethod
    def of(cls, value: Tensor) -> "_Like":
        """:param value: may be of that graph"""
        return cls([size if isinstance(size, int) else None for size in value.shape], value.dtype, value.device)

    def zeros(self, rows: int) -> Tensor:
        """:param rows: the open sizes"""
        return th.zeros([rows if size is None else size for size in self.sizes], dtype=self.dtype, device=self.device)


def _translated(step: Step, likes: list[_Like], translate: Translate) -> Any:
    """A step as a model; what computes gradients is resolved into operations before."""
    taken = {size for like in likes for size in like.sizes}
    n_rows = next(number for number in itertools.count(_ROWS) if number not in taken)
    examples = tuple(like.zeros(n_rows) for like in likes)
    resolved: Any = th.export.default_decompositions()
    resolved[th.ops.aten.convolution_backward.default] = _convolution_backward

    def function(*given: Tensor) -> Tensor:
        return step(*given)

    with th.no_grad():
        recorded = make_fx(function, resolved, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*examples)
    rows = th.export.Dim("rows", min=1)
    dynamic = tuple({axis: rows for axis, size in enumerate(like.sizes) if size is None} for like in likes)
    return translate(recorded, examples, dynamic)


def _convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    wanted: list[bool],
) -> tuple[Tensor, None, None]:
    """The gradient in the input: a transposed convolution, and of that a convolution."""
    assert not any(wanted[1:]), "no parameter gets a gradient"
    if transposed:
        backward = th.ops.aten.convolution(gradient, weight, None, stride, padding, dilation, False, [0], groups)
    else:
        reached = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(gradient.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True)
        ]
        left = [size - reach for size, reach in zip(x.shape[2:], reached, strict=True)]
        backward = th.ops.aten.convolution(gradient, weight, None, stride, padding, dilation, True, left, groups)
    return backward, None, None


def _rename(graph: Any, prefix: str) -> None:
    """Names that are not those of another graph."""
    for value in {*graph.inputs, *graph.initializers.values()} | {o for node in graph.all_nodes() for o in node.outputs}:
        value.name = prefix + value.name
