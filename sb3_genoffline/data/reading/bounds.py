"""
What a data file may make this machine read: its own arrays, and no more of them than a file of its size can hold.

HDF5 arrays can lie in other files (external storage, external links, virtual datasets), and both HDF5 and zip can declare
gigabytes that are nowhere written. All of it is refused before anything is allocated.
"""

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from sb3_genoffline.errors import UserError

# Zeros and flags are packed to a hundredth of their size, and a short file is small whatever it unpacks to.
_LARGEST_RATIO, _FREE_BYTES = 100, 64 * 2**20
_LARGEST_TEXT = 2**20


def check_declared(path: Path, declared: int) -> None:
    """
    :param path: of the file
    :param declared: bytes that its arrays say they have
    :raises UserError: if no file of its size holds so many
    """
    size = path.stat().st_size
    if declared > max(_LARGEST_RATIO * size, _FREE_BYTES):
        raise UserError(
            f"{path} has {size:,} bytes, and its arrays would take {declared:,}: more than {_LARGEST_RATIO} times as many, "
            "which only an array that was never written, or is packed to fill the memory, does. Refused; write the data again "
            "without compression if they are really so."
        )


def check_links(path: Path, file: Any) -> None:
    """
    :param path: of the file
    :param file: ``h5py.File``
    :raises UserError: if anything in it is a link to another file, which is not followed
    """
    import h5py

    inside = (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT)

    def outside(name: bytes, info: Any) -> str | None:
        return None if info.type in inside else name.decode(errors="replace")

    found = file.id.links.visit(outside, info=True)
    if found is not None:
        raise UserError(
            f"{path}: {found!r} is a link to another file, which is not followed: files of others must not choose what is "
            "read on this machine. Copy the array into the file."
        )


def check_stored_here(path: Path, name: str, item: Any) -> int:
    """
    :param path: of the file
    :param name: of the array
    :param item: ``h5py.h5d.DatasetID``
    :return: bytes that it declares
    :raises UserError: if its numbers lie elsewhere
    """
    import h5py

    layout = item.get_create_plist()
    where = "external storage" if layout.get_external_count() else None
    if layout.get_layout() == h5py.h5d.VIRTUAL:
        where = "a virtual dataset"
    if where is not None:
        raise UserError(
            f"{path}: {name!r} is {where}, whose numbers lie in other files, which are not read: files of others must not "
            "choose what is read on this machine. Write them into the file."
        )
    shape, width = item.shape or (), max(1, item.get_type().get_size())
    return int(width) * math.prod(int(n) for n in shape)


def check_arrays(path: Path, items: dict[str, Any]) -> None:
    """
    :param path: of an HDF5 file
    :param items: each ``h5py.Dataset`` that will be read, by name
    :raises UserError: if they lie elsewhere, hold no numbers, or declare too much
    """
    declared = 0
    for name, item in items.items():
        declared += check_stored_here(path, name, item.id)
        if item.shape is None or item.dtype.kind not in "biuf":
            raise UserError(f"{path}: {name!r} has dtype {item.dtype}; numbers are needed. Write it as an array of numbers.")
    check_declared(path, declared)


def check_described(path: Path, items: dict[str, Any]) -> None:
    """
    :param path: of an HDF5 file
    :param items: each ``h5py.Dataset`` of its description, by name: single values and the bounds of spaces
    :raises UserError: if they lie elsewhere or are larger than a description
    """
    for name, item in items.items():
        declared = check_stored_here(path, f"metadata/{name}", item.id)
        if declared > _LARGEST_TEXT or item.shape is None or (item.dtype.kind not in "biuf" and item.shape != ()):
            raise UserError(
                f"{path}: 'metadata/{name}' has the shape {item.shape}, which is not a description. Write it again."
            )


def check_tree(path: Path) -> None:
    """
    Check all of an HDF5 file whose every array will be read, as Minari's storage is.

    :param path: of the file
    :raises UserError: if an array lies elsewhere, is there under two names, or all together declare too much
    """
    import h5py

    declared = 0
    links: list[tuple[bytes, int]] = []
    with h5py.File(path, "r") as file:
        check_links(path, file)
        file.id.links.visit(lambda name, info: links.append((name, info.type)), info=True)
        for name, kind in links:
            label = name.decode(errors="replace")
            if kind != h5py.h5l.TYPE_HARD:
                raise UserError(f"{path}: {label!r} is a link to another name, which Minari does not write. Refused.")
            item = h5py.h5o.open(file.id, name)
            if h5py.h5o.get_info(item).rc > 1:
                raise UserError(f"{path}: {label!r} is there under several names, which Minari does not write. Refused.")
            if isinstance(item, h5py.h5d.DatasetID):
                declared += check_stored_here(path, label, item)
    check_declared(path, declared)


def npz_shapes(path: Path, archive: zipfile.ZipFile) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """
    :param path: of a ``.npz`` file
    :param archive: the same, open
    :return: shape and dtype of each array, by name
    :raises UserError: if a member is no array, holds objects, or says to be larger than it is, or all together are too large
        for the file
    """
    check_declared(path, sum(member.file_size for member in archive.infolist()))
    shapes = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        with archive.open(member) as file:
            try:
                version = np.lib.format.read_magic(file)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
                shape, _, dtype = read(file)
            except (ValueError, KeyError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
                raise UserError(f"{path}: the member {member.filename!r} is not an array of numbers ({error}).") from error
        if dtype.hasobject:
            raise UserError(f"{path} cannot be read as .npz: {name!r} holds Python objects; save plain arrays.")
        declared = dtype.itemsize * math.prod(int(n) for n in shape)
        if declared > member.file_size:
            raise UserError(
                f"{path}: {name!r} claims the shape {shape}, which is {declared:,} bytes, and holds "
                f"{member.file_size:,}: damaged, write it again."
            )
        shapes[name] = (shape, dtype)
    return shapes


def check_storage(files: Iterable[Path]) -> None:
    """
    :param files: of a Minari dataset
    :raises UserError: if reading them would read other files, or more than files of their size hold
    """
    for path in files:
        if path.suffix == ".hdf5":
            check_tree(path)
        elif path.suffix == ".parquet":
            import pyarrow.parquet

            with pyarrow.parquet.ParquetFile(path) as file:
                groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
                check_declared(path, sum(group.total_byte_size for group in groups))
