"""Arrays that grow by blocks of rows while a dataset is read: in memory, or on disk if they are to be larger than that."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any, Protocol, Self

import numpy as np

Arrays = dict[str, np.ndarray]
_ONE_HEADER = Lock()
"""numpy parses headers with ``ast``, which in CPython 3.11 may fail with a SystemError where several threads do so at once."""


class Columns(Protocol):
    """Where rows are put while they are read."""

    def add(self, name: str, rows: np.ndarray) -> None:
        """
        :param name: of the array
        :param rows: (n, …), which follow those added before; dtype and further dimensions are the first ones'
        """

    def finish(self) -> Arrays:
        """All arrays, read-only. Nothing is added afterwards."""


def add_all(columns: Columns, arrays: Mapping[str, np.ndarray]) -> None:
    """
    :param columns: put there
    :param arrays: whole ones, by name
    """
    for name, array in arrays.items():
        columns.add(name, array)


class MemoryColumns:
    """:class:`Columns` in memory."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[np.ndarray]] = {}

    def add(self, name: str, rows: np.ndarray) -> None:
        """See :meth:`Columns.add`."""
        blocks = self._blocks.setdefault(name, [])
        blocks.append(rows.astype(blocks[0].dtype if blocks else rows.dtype, copy=False))

    def finish(self) -> Arrays:
        """See :meth:`Columns.finish`."""
        arrays = {}
        for name in list(self._blocks):
            array = np.concatenate(self._blocks.pop(name))
            array.flags.writeable = False
            arrays[name] = array
        return arrays


class FileColumns:
    """
    :class:`Columns` as ``.npy`` files, which are mapped in the end; a block is in memory only while it is added. A context
    manager that closes the files.

    :param folder: holds ``<name>.npy``
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            with suppress(OSError):  # of what did not fit already
                file.close()

    def add(self, name: str, rows: np.ndarray) -> None:
        """See :meth:`Columns.add`."""
        with disk_errors():
            if name not in self._files:
                self._files[name] = open(self.folder / f"{name}.npy", "wb")  # noqa: SIM115 (closed by __exit__)
                self._dtypes[name], self._shapes[name] = rows.dtype, (0, *rows.shape[1:])
                self._write_header(name)
            assert rows.shape[1:] == self._shapes[name][1:]
            self._files[name].write(np.ascontiguousarray(rows, dtype=self._dtypes[name]).data)
        self._shapes[name] = (self._shapes[name][0] + len(rows), *rows.shape[1:])

    def finish(self) -> Arrays:
        """See :meth:`Columns.finish`; memory-mapped."""
        with disk_errors():
            for name, file in self._files.items():
                file.seek(0)
                self._write_header(name)
                file.close()
            return {name: mapped(self.folder / f"{name}.npy") for name in self._files}

    def _write_header(self, name: str) -> None:
        """numpy leaves room in the header for any number of rows, so the last one is as long as the first."""
        header = {"descr": np.lib.format.dtype_to_descr(self._dtypes[name]), "fortran_order": False}
        np.lib.format.write_array_header_1_0(self._files[name], header | {"shape": self._shapes[name]})


class DiskError(Exception):
    """The disk refuses what is written to it; the cause is an ``OSError``."""


@contextmanager
def disk_errors() -> Iterator[None]:
    """An ``OSError`` inside is one of what is written: it becomes a :class:`DiskError`, so that none of what is read is."""
    try:
        yield
    except OSError as error:
        raise DiskError(error) from error


def mapped(path: Path) -> np.ndarray:
    """
    :param path: of a ``.npy`` file
    :return: its array, memory-mapped and read-only
    """
    with _ONE_HEADER:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array.view(np.ndarray)
