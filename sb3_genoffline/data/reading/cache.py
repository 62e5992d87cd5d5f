"""
A flat, memory-mapped cache of loaded datasets.

Reading a dataset of many episodes takes seconds to minutes, its flat arrays a fraction of a second. An entry is a folder of
``.npy`` files, named by the id of the dataset and the SHA-256 of its files' contents, so an entry cannot be stale: other
contents have another name. Hashing is skipped for files whose size, times and inode are those seen when they were hashed last.

Entries are written to a temporary folder and renamed, so a reader never sees half of one; every array's checksum is verified
when it is read, and a damaged entry is built again. What a killed process left is removed when the next entry is written.
"""

import contextlib
import hashlib
import json
import os
import re
import time
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from sb3_genoffline.data.blocks import row_blocks
from sb3_genoffline.data.reading.columns import Arrays, Columns, DiskError, FileColumns, MemoryColumns, disk_errors, mapped
from sb3_genoffline.data.reading.paths import expanded
from sb3_genoffline.errors import UserError, printable
from sb3_genoffline.files.writing import remove_folder, replace_file, temporary_folder

FORMAT = 1
# A file changed less than this many seconds before it was hashed may change again without its time stamps showing it.
_RACY_SECONDS = 2.0

Build = Callable[[Columns], None]
Check = Callable[[Arrays], object]


def cache_folder() -> Path:
    """``$SB3_GENOFFLINE_CACHE``, or ``~/.cache/sb3_genoffline``. An ``OSError`` where this user has no home folder."""
    try:
        return expanded(os.environ.get("SB3_GENOFFLINE_CACHE") or "~/.cache/sb3_genoffline")
    except UserError as error:
        raise OSError(str(error)) from error


def cached_arrays(name: str, files: Iterable[Path], build: Build, variant: str = "", check: Check | None = None) -> Arrays:
    """
    The arrays of a dataset, from the cache if its files have not changed, else built and cached.

    :param name: Id of the dataset; names the entry.
    :param files: The files the arrays are made from.
    :param build: Reads the arrays, block by block. It is called again where the cache turns out to have no room.
    :param variant: What else the arrays depend on (a subset of the episodes, say).
    :param check: Raises what is wrong with the arrays, which then are not cached.
    :return: Read-only arrays, memory-mapped where they come from the cache. A cache that cannot be written is a warning.
    """
    try:
        folder = cache_folder() / f"v{FORMAT}"
    except OSError as error:
        _warn_unwritable(name, error, 3)
        return built_in_memory(build)
    files = sorted(files)
    stamp = _stamp(files)
    contents = _content_key(folder, files, stamp)
    key = hashlib.sha256(f"{contents} {variant}".encode()).hexdigest()[:32]
    slug = re.sub(r"[^\w-]+", "-", name).strip("-")[:80]
    entry = folder / f"{slug}-{key}"
    arrays = _read(entry)
    if arrays is not None:
        return arrays
    source = f"{files[0].parent if files else ''} {variant}"
    try:
        made = _make(folder, entry, build, check, source, lambda: _stamp(files) == stamp)
    except DiskError as error:
        _warn_unwritable(name, error, 3)
        return built_in_memory(build)
    return made or built_in_memory(build)


def built_in_memory(build: Build) -> Arrays:
    """
    :param build: as :func:`cached_arrays` takes it
    :return: what it reads, read-only
    """
    columns = MemoryColumns()
    build(columns)
    return columns.finish()


def _warn_unwritable(name: str, error: Exception, stacklevel: int) -> None:
    warnings.warn(
        f"The dataset cache cannot be written ({error}), so {printable(name)} will be read again each time. "
        "Set SB3_GENOFFLINE_CACHE to a folder with space that can be written.",
        stacklevel=stacklevel,
    )


def _stamp(files: list[Path]) -> str:
    """Paths, sizes, times and inodes of the files."""
    stats = [(path, path.stat()) for path in files]
    return json.dumps([[str(p.resolve()), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for p, s in stats])


def _content_key(folder: Path, files: list[Path], stamp: str) -> str:
    """SHA-256 over the files' names and contents; remembered under their stamp."""
    record = folder / "hashes" / hashlib.sha256(stamp.encode()).hexdigest()[:32]
    try:
        remembered = record.read_text()
        if re.fullmatch(r"[0-9a-f]{64}", remembered):
            return remembered
    except (OSError, UnicodeDecodeError):
        pass
    started = time.time()
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()};".encode())
    newest = max((max(path.stat().st_mtime, path.stat().st_ctime) for path in files), default=0.0)
    if newest < started - _RACY_SECONDS:
        with contextlib.suppress(OSError):  # hashing again next time is all that is lost
            replace_file(record, digest.hexdigest().encode())
    return digest.hexdigest()


def _read(entry: Path) -> Arrays | None:
    """The arrays of an entry, or None if it is absent or damaged."""
    try:
        meta = json.loads((entry / "meta.json").read_text())
        arrays = {}
        for name, checksum in meta["checksums"].items():
            arrays[name] = mapped(entry / f"{name}.npy")
            if _checksum(arrays[name]) != checksum:
                return None
        return arrays or None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _make(
    folder: Path, entry: Path, build: Build, check: Check | None, source: str, unchanged: Callable[[], bool]
) -> Arrays | None:
    """Build an entry and read it; None where the files changed meanwhile, so that it is not known whose contents it has."""
    with contextlib.ExitStack() as stack:
        with disk_errors():
            folder.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(temporary_folder(folder, entry.name))
        with FileColumns(temporary) as columns:
            build(columns)
            arrays = columns.finish()
        if check is not None:
            check(arrays)
        if not unchanged():
            return None
        meta = {"source": source, "checksums": {name: _checksum(array) for name, array in arrays.items()}}
        with disk_errors():
            (temporary / "meta.json").write_text(json.dumps(meta))
            try:
                os.replace(temporary, entry)
            except OSError:  # another process was faster, or its entry is damaged
                if _read(entry) is None:
                    remove_folder(entry)
                    os.replace(temporary, entry)
    _remove_superseded(folder, entry, source)
    return _read(entry)


def _checksum(array: np.ndarray) -> int:
    checksum = zlib.crc32(f"{array.shape}{array.dtype}".encode())
    for block in row_blocks(len(array)):
        checksum = zlib.crc32(np.ascontiguousarray(array[block]).data, checksum)
    return checksum


def _remove_superseded(folder: Path, entry: Path, source: str) -> None:
    """Remove entries made from the same files when these had other contents."""
    slug = entry.name.rsplit("-", 1)[0]
    for other in folder.glob(f"{slug}-*"):
        if other == entry:
            continue
        try:
            if json.loads((other / "meta.json").read_text())["source"] == source:
                remove_folder(other)
        except (OSError, ValueError, KeyError, TypeError):
            continue
