"""Arrays of one file: read whole, or if they are large, block by block into the cache, from where they are mapped."""

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.data.blocks import ROWS
from sb3_genoffline.data.reading.cache import cached_arrays
from sb3_genoffline.data.reading.columns import Arrays, Columns
from sb3_genoffline.data.validation import warn_of_lost_digits

# Arrays of more bytes than this are not read into memory.
LARGE = 2**30
Shape = tuple[tuple[int, ...], np.dtype[Any]]


def is_large(shapes: Mapping[str, Shape]) -> bool:
    """
    :param shapes: shape and dtype of each array
    :return: whether all together are more than :data:`LARGE`
    """
    return sum(dtype.itemsize * math.prod(shape) for shape, dtype in shapes.values()) > LARGE


def mapped_arrays(path: Path, names: list[str], blocks: Callable[[str], Iterator[np.ndarray]]) -> Arrays:
    """
    :param path: of the file
    :param names: of its arrays
    :param blocks: the rows of an array, in order
    :return: the arrays, memory-mapped from the cache; float64 becomes float32, with a warning where that loses digits
    """

    def build(columns: Columns) -> None:
        for name in names:
            for number, block in enumerate(blocks(name)):
                if block.dtype == np.float64:
                    if number == 0:
                        warn_of_lost_digits(name, block)
                    with np.errstate(over="ignore"):
                        block = block.astype(np.float32)
                columns.add(name, block)

    return cached_arrays(path.stem, [path], build, variant=f"arrays {' '.join(sorted(names))}")


def hdf5_blocks(item: Any) -> Iterator[np.ndarray]:
    """
    :param item: ``h5py.Dataset``
    :return: its rows, in blocks
    """
    for start in range(0, max(len(item), 1), ROWS):
        yield item[start : start + ROWS]


def npz_blocks(archive: zipfile.ZipFile, name: str) -> Iterator[np.ndarray]:
    """
    :param archive: ``.npz`` file whose members are checked
    :param name: of the array
    :return: its rows, in blocks; all of them at once if they are stored by columns
    """
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, by_columns, dtype = read(file)
        if by_columns:
            yield np.frombuffer(file.read(), dtype).reshape(shape, order="F")
            return
        width = dtype.itemsize * math.prod(shape[1:])
        for start in range(0, max(shape[0], 1), ROWS):
            n_rows = min(ROWS, shape[0] - start)
            yield np.frombuffer(file.read(n_rows * width), dtype).reshape(n_rows, *shape[1:])
