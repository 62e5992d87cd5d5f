"""Arrays that may be larger than the memory, block by block."""

from collections.abc import Iterator
from typing import Any

import numpy as np

ROWS = 2**13


def row_blocks(n_rows: int, size: int = ROWS) -> Iterator[slice]:
    """
    :param n_rows: of an array
    :param size: rows of a block; the last one may be shorter
    :return: slices that together are all rows, in order
    """
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def is_mapped(array: Any) -> bool:
    """
    :param array: a numpy array
    :return: whether its rows are a file's, mapped into memory, whatever views lie between
    """
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)
