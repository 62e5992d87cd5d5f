"""Arrays that may be larger than the memory, block by block."""

from collections.abc import Iterator

ROWS = 2**13


def row_blocks(n_rows: int, size: int = ROWS) -> Iterator[slice]:
    """
    :param n_rows: of an array
    :param size: rows of a block; the last one may be shorter
    :return: slices that together are all rows, in order
    """
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))
