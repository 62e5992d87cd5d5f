"""
The random numbers of acting as inputs. A policy draws them by PyTorch's functions, from a generator of its own: here they are
written down as it does, or taken from tensors instead.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch as th
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sb3_genoffline.deploy.quantile import normal_quantile
from sb3_genoffline.errors import UserError

NORMAL, UNIFORM = "noise", "uniform"
KINDS = {NORMAL: "standard normal", UNIFORM: "uniform in [0, 1)"}
"""What inputs of random numbers are called, and how they are distributed."""
_TIE = 1e-4  # of the largest value: what float32 may get the other way round
_BATCHES = (2, 3)

_DRAWS: Mapping[Any, str] = {th.randn: NORMAL, th.rand: UNIFORM, th.multinomial: UNIFORM, Tensor.bernoulli_: UNIFORM}


def _drawn(func: Any, args: Any, numbers: Tensor) -> Tensor:
    """What a draw makes of its numbers."""
    first: Tensor = args[0]
    if func is Tensor.bernoulli_:
        kept: Tensor = numbers < args[1]
        return kept.to(first.dtype)
    if func is th.multinomial:
        # who comes first, by exponential times at these rates, as PyTorch draws some of several without replacement
        return _leaders(first / -th.log1p(-numbers), args[1])
    return numbers


def _leaders(values: Tensor, n: int) -> Tensor:
    """(B, M) -> (B, n), the indices of the largest"""
    return values.argmax(-1, keepdim=True) if n == 1 else values.topk(n).indices


class _Watched(TorchFunctionMode):
    """Sees every call of PyTorch's, and hands draws to :meth:`draw`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS:
            return self.draw(func, args, kwargs)
        if kwargs.get("generator") is not None:
            raise UserError(f"The policy draws by {func.__name__}, whose random numbers can't be the input of a file.")
        return self.other(func, args, kwargs)

    def draw(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """What a draw returns."""
        raise NotImplementedError

    def other(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What any other call returns."""
        return func(*args, **kwargs)


class RecordedDraws(_Watched):
    """
    Inside, a policy acts as ever, and its random numbers are kept: those from which :class:`GivenDraws` makes the same draws.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[tuple[str, Tensor]] = []
        """Kind and numbers of each draw, in order."""
        self.ties: Tensor | bool = False
        """(B,) observations for which rounding could have decided between candidates."""

    def draw(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """The draw itself."""
        if func is th.multinomial:
            weights, n = args
            times = th.empty_like(weights).exponential_(generator=kwargs["generator"])
            self._note_ties(weights / times, n)
            drawn, numbers = _leaders(weights / times, n), -th.expm1(-times)
        else:
            drawn = func(*args, **kwargs)
            numbers = 1.0 - drawn if func is Tensor.bernoulli_ else drawn
        self.numbers.append((_DRAWS[func], numbers))
        return drawn

    def other(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The call itself, and whether it was a close choice."""
        if func in (th.argmax, Tensor.argmax) and args[0].ndim == 2:
            self._note_ties(args[0], 1)
        return func(*args, **kwargs)

    def _note_ties(self, values: Tensor, n: int) -> None:
        """(B, M) values of which the n largest are taken"""
        if values.shape[1] > n:
            taken, left = values.topk(n + 1).values[:, -2:].unbind(1)
            self.ties = self.ties | (taken - left <= _TIE * taken.abs())


class GivenDraws(_Watched):
    """
    Inside, a policy gets its random numbers from tensors.

    :param numbers: of each draw, in order; axes that :class:`DrawnInput` has divided are joined again
    """

    def __init__(self, numbers: Sequence[Tensor]) -> None:
        super().__init__()
        self._left: Iterator[Tensor] = iter(numbers)

    def draw(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """Made of the next tensor."""
        numbers, first = next(self._left), args[0]
        shape = first.shape if isinstance(first, Tensor) else first
        return _drawn(func, args, numbers if numbers.ndim == len(shape) else numbers.reshape(shape))

    def other(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The call itself, or the same of operations that ONNX has."""
        return normal_quantile(*args) if func is th.special.ndtri else func(*args, **kwargs)


@dataclass(frozen=True)
class DrawnInput:
    """
    An input of random numbers.

    :param name: ``noise`` or ``uniform``, and a number where there are several
    :param kind: key of :data:`KINDS`
    :param shape: sizes, and :data:`BATCH` for the number of observations
    """

    name: str
    kind: str
    shape: tuple[int | str, ...]

    @classmethod
    def of(cls, name: str, kind: str, *shapes: Sequence[int]) -> "DrawnInput":
        """
        :param name: of the input
        :param kind: of its numbers
        :param shapes: of a draw for 2 observations, and for 3
        """
        sizes: list[int | str] = []
        for two, three in zip(*shapes, strict=True):
            sizes += [two] if two == three else [BATCH] if three == _BATCHES[1] else [BATCH, three // _BATCHES[1]]
        return cls(name, kind, tuple(sizes))

    def sized(self, batch: int) -> tuple[int, ...]:
        """:param batch: number of observations"""
        return tuple(batch if isinstance(size, str) else size for size in self.shape)


BATCH = "batch"
"""Name of the axis of observations."""


def drawn_inputs(act: Callable[[int], Any]) -> list[DrawnInput]:
    """
    :param act: lets the policy act for so many observations
    :return: what it draws
    """
    records = []
    for batch in _BATCHES:
        with RecordedDraws() as draws:
            act(batch)
        records.append(draws.numbers)
    inputs: list[DrawnInput] = []
    for (kind, two), (_, three) in zip(*records, strict=True):
        earlier = sum(given.kind == kind for given in inputs)
        inputs.append(DrawnInput.of(f"{kind}_{earlier + 1}" if earlier else kind, kind, two.shape, three.shape))
    return inputs
