"""A step that is made several times: a loop of Python, or one operation of a graph that is being recorded."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

Step = Callable[..., Tensor]
"""Of a state, the constants, and what belongs to one step: the next state, of the same shape."""
Loop = Callable[[Step, Tensor, Sequence[Tensor], Sequence[Tensor]], Tensor]
"""Of a step, the first state, the constants, and what belongs to the steps: the last state."""


def _in_python(step: Step, state: Tensor, constants: Sequence[Tensor], of_steps: Sequence[Tensor]) -> Tensor:
    for each in zip(*of_steps, strict=True):
        state = step(state, *constants, *each)
    return state


_loop: ContextVar[Loop] = ContextVar("loop", default=_in_python)


def repeated(step: Step, state: Tensor, constants: Sequence[Tensor], of_steps: Sequence[Tensor]) -> Tensor:
    """
    :param step: called as ``step(state, *constants, *of_step)``; uses no other tensors than parameters and buffers
    :param state: (B, ...), the first
    :param constants: (B, ...) each, the same in all steps
    :param of_steps: their first axis is that of the steps, of which there is one at least
    :return: the state after the last step
    """
    return _loop.get()(step, state, constants, of_steps)


@contextmanager
def loops_made_by(loop: Loop) -> Iterator[None]:
    """:param loop: makes :func:`repeated`'s loops inside"""
    before = _loop.set(loop)
    try:
        yield
    finally:
        _loop.reset(before)
