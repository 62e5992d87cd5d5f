"""What a CUDA graph does, on a CPU: the operators of an update are recorded once and run again without Python's decisions."""

from typing import Any

import torch as th
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from sb3_genoffline.common.stepping import StaticUpdate

READS = (th.ops.aten._local_scalar_dense.default, th.ops.aten.nonzero.default, th.ops.aten.is_nonzero.default)


def _listed(result: Any) -> Any:
    return result if isinstance(result, list | tuple) else [result]


class Tape(TorchDispatchMode):
    """Runs operators and notes them. Tensors that none of them made keep their place."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[Any, Any, Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in READS, f"{func} reads a number from the device"
        result = func(*args, **(kwargs or {}))
        if func.namespace != "profiler":
            shapes = [getattr(value, "shape", None) for value in _listed(result)]  # an operator in place may change them later
            self.operators.append((func, args, kwargs or {}, result, shapes))
        return result

    def replay(self, wanted: Any) -> Any:
        """
        Run all operators again.

        :param wanted: tensors that were made while recording
        :return: what they are now
        """
        now: dict[int, Tensor] = {}
        current = lambda value: tree_map_only(Tensor, lambda tensor: now.get(id(tensor), tensor), value)  # noqa: E731
        with th.no_grad():
            for func, args, kwargs, before, shapes in self.operators:
                after = func(*current(args), **current(kwargs))
                for old, new, shape in zip(_listed(before), _listed(after), shapes, strict=True):
                    if isinstance(old, Tensor):
                        assert shape == new.shape, f"{func} makes a shape that changes"
                        now[id(old)] = new
        return current(wanted)


class TapedUpdate:
    """Takes the place of :class:`~sb3_genoffline.common.stepping.CudaUpdate`: Python once, a recording, and then the tape."""

    def __init__(self, static: StaticUpdate) -> None:
        self.static, self.calls = static, 0
        self.tape, self.metrics = Tape(), dict[str, Tensor]()

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        self.calls += 1
        self.static.fill(batch)
        if self.calls == 1:
            return self.static.run()
        if self.calls == 2:
            with self.tape:
                self.metrics = self.static.run()
            return self.metrics
        replayed: dict[str, Tensor] = self.tape.replay(self.metrics)
        return replayed
