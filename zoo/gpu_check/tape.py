"""What CUDA's graphs do, on a CPU: operators are recorded on a tape and run again without Python's decisions."""

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch as th
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_genoffline.common import stepping

READS = (th.ops.aten._local_scalar_dense.default, th.ops.aten.nonzero.default, th.ops.aten.is_nonzero.default)
"""Operators that read a number from the device."""
SENDS = (th.ops.aten.lift_fresh.default,)
"""Operators that make a tensor of Python's numbers, which on CUDA copies them there: a recording refuses that too."""


def waits(func: Any, args: Any) -> bool:
    """Whether the host needs a number of the device before it can go on."""
    masked = func.overloadpacket in (th.ops.aten.index, th.ops.aten.index_put, th.ops.aten.index_put_) and any(
        index is not None and index.dtype in (th.bool, th.uint8) for index in args[1]
    )
    return func in READS or masked


def _listed(result: Any) -> Any:
    return result if isinstance(result, list | tuple) else [result]


class Reads(TorchDispatchMode):
    """Counts ``.item()``, ``bool(tensor)``, an index by a scalar tensor, and shapes that depend on data."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += waits(func, args)
        return func(*args, **(kwargs or {}))


class Tape(TorchDispatchMode):
    """Runs operators and notes them. Tensors that none of them made keep their place."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[Any, Any, Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if waits(func, args):
            raise RuntimeError(f"{func} reads a number from the device")
        if func in SENDS:
            raise RuntimeError(f"{func} sends numbers to the device")
        result = func(*args, **(kwargs or {}))
        if func.namespace != "profiler":
            shapes = [getattr(value, "shape", None) for value in _listed(result)]  # an operator in place may change them later
            self.operators.append((func, args, kwargs or {}, result, shapes))
        return result

    def replay(self) -> None:
        """Run all operators again, and put the scalars that they make where they were while recording."""
        now: dict[int, tuple[Tensor, Tensor]] = {}

        def current(value: Any) -> Any:
            if isinstance(value, Tensor):
                return now[id(value)][1] if id(value) in now else value
            return type(value)(map(current, value)) if isinstance(value, list | tuple) else value

        with th.no_grad():
            for func, args, kwargs, before, shapes in self.operators:
                after = func(*current(args), **{name: current(value) for name, value in kwargs.items()})
                for old, new, shape in zip(_listed(before), _listed(after), shapes, strict=True):
                    if isinstance(old, Tensor):
                        if shape != new.shape:
                            raise RuntimeError(f"{func} makes a shape that changes")
                        now[id(old)] = old, new
            for old, new in now.values():
                if old.dim() == 0 and old.data_ptr() != new.data_ptr():  # what an update returns are scalars
                    old.data.copy_(new)


class TapedGraph:
    """Takes the place of :class:`torch.cuda.CUDAGraph`. Recording runs the update, which the first launch then leaves out."""

    def __init__(self) -> None:
        self.tape = Tape()
        self._has_just_run = False

    def register_generator_state(self, generator: th.Generator) -> None:
        """On a CPU a generator is where it is."""

    def capture_begin(self, **_: Any) -> None:
        """See torch."""
        self.tape.__enter__()

    def capture_end(self) -> None:
        """See torch."""
        self.tape.__exit__(None, None, None)
        self._has_just_run = True

    def replay(self) -> None:
        """See torch."""
        if not self._has_just_run:
            self.tape.replay()
        self._has_just_run = False


class _Stream:
    def __init__(self, device: Any = None) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        pass


class TapedCuda:
    """What :mod:`~sb3_genoffline.common.stepping` uses of :mod:`torch.cuda`."""

    Stream = _Stream
    CUDAGraph = TapedGraph

    @staticmethod
    def current_stream(device: Any) -> _Stream:
        """See torch."""
        return _Stream()

    @staticmethod
    def device(device: Any) -> AbstractContextManager[None]:
        """See torch."""
        return nullcontext()

    stream = device

    @staticmethod
    def graph_pool_handle() -> tuple[int, int]:
        """See torch."""
        return 0, 1

    @staticmethod
    def synchronize(device: Any) -> None:
        """See torch."""

    @staticmethod
    def empty_cache() -> None:
        """See torch."""


@contextmanager
def graphs_on_cpu() -> Iterator[None]:
    """Within it updates and fits on a CPU are recorded and replayed by the code that does it on CUDA."""
    devices, optimizers = ("cpu", "cuda"), ["cpu", "cuda"]
    with (
        mock.patch.object(stepping, "cuda", TapedCuda),
        mock.patch.object(stepping, "GRAPH_DEVICES", devices),
        mock.patch.object(stepping, "WARM_UP", 1),
        mock.patch.object(stepping, "gc", mock.Mock(gc, collect=lambda: 0)),  # it takes longer than the rest
        mock.patch("torch.optim.radam._get_capturable_supported_devices", lambda **_: optimizers),
    ):
        yield
