"""Passes of a network over many rows, in blocks whose activations stay in a CPU's cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch as th
from torch import Tensor

# 640 rows of 256 floats are 0.66 MB, about a core's second-level cache.
CPU_BLOCK_ROWS = 640
_undivided = ContextVar("undivided", default=False)


@contextmanager
def undivided() -> Iterator[None]:
    """No pass is divided inside, so that the same operations run for any number of rows: those of an exported graph."""
    before = _undivided.set(True)
    try:
        yield
    finally:
        _undivided.reset(before)


def is_undivided() -> bool:
    """Whether no pass may be divided, as inside :func:`undivided`."""
    return _undivided.get()


def in_one_pass() -> bool:
    """Whether all rows go through a network together, however many they are: for gradients, or :func:`undivided`."""
    return th.is_grad_enabled() or is_undivided()


def fits_cache(states: Tensor, n_samples: int) -> bool:
    """
    :param states: (B, …)
    :param n_samples: n, rows per state
    :return: whether one pass over B·n rows is as good as several: it has few rows, runs on a GPU, or must be one
    """
    return states.is_cuda or in_one_pass() or len(states) * n_samples <= CPU_BLOCK_ROWS


def state_blocks(n_states: int, n_samples: int, n_rows: int = CPU_BLOCK_ROWS) -> Iterator[slice]:
    """
    :param n_states: B
    :param n_samples: n, rows per state
    :param n_rows: of a block, at most, unless a single state has more
    :return: slices of the states, in order
    """
    block = max(n_rows // n_samples, 1)
    for start in range(0, n_states, block):
        yield slice(start, start + block)
