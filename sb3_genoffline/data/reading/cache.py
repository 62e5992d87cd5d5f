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
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from sb3_genoffline.data.reading.paths import expanded
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.writing import remove_leftovers, replace_file, temporary_folder

FORMAT = 1
# A file changed less than this many seconds before it was hashed may change again without its time stamps showing it.
_RACY_SECONDS = 2.0
_TEMPORARY = ".tmp-"

Arrays = dict[str, np.ndarray]


def cache_folder() -> Path:
    """``$SB3_GENOFFLINE_CACHE``, or ``~/.cache/sb3_genoffline``. An ``OSError`` where this user has no home folder."""
    try:
        return expanded(os.environ.get("SB3_GENOFFLINE_CACHE") or "~/.cache/sb3_genoffline")
    except UserError as error:
        raise OSError(str(error)) from error


def cached_arrays(name: str, files: Iterable[Path], build: Callable[[], Arrays], variant: str = "") -> Arrays:
    """
    The arrays of a dataset, from the cache if its files have not changed, else built and cached.

    :param name: Id of the dataset; names the entry.
    :param files: The files the arrays are made from.
    :param build: Makes the arrays.
    :param variant: What else the arrays depend on (a subset of the episodes, say).
    :return: Read-only arrays, memory-mapped where they come from the cache. A cache that cannot be written is a warning.
    """
    try:
        folder = cache_folder() / f"v{FORMAT}"
    except OSError as error:
        _warn_unwritable(name, error, 3)
        return build()
    files = sorted(files)
    stamp = _stamp(files)
    contents = _content_key(folder, files, stamp)
    key = hashlib.sha256(f"{contents} {variant}".encode()).hexdigest()[:32]
    slug = re.sub(r"[^\w-]+", "-", name).strip("-")[:80]
    entry = folder / f"{slug}-{key}"
    arrays = _read(entry)
    if arrays is None:
        arrays = build()
        if _stamp(files) != stamp:
            return arrays  # the files changed meanwhile: which contents these are is not known
        try:
            _write(folder, entry, arrays, source=f"{files[0].parent if files else ''} {variant}")
        except OSError as error:
            _warn_unwritable(name, error, 3)
            return arrays
        arrays = _read(entry) or arrays
    return arrays


def _warn_unwritable(name: str, error: OSError, stacklevel: int) -> None:
    warnings.warn(
        f"The dataset cache cannot be written ({error}), so {name} will be read anew each time. "
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
            array = np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            if _checksum(array) != checksum:
                return None
            arrays[name] = array.view(np.ndarray)
        return arrays or None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(folder: Path, entry: Path, arrays: Arrays, source: str) -> None:
    """Write an entry atomically; where another process was faster, its entry stays."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder, _TEMPORARY, "")
    with temporary_folder(folder, entry.name, _TEMPORARY) as temporary:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
        meta = {"source": source, "checksums": {name: _checksum(array) for name, array in arrays.items()}}
        (temporary / "meta.json").write_text(json.dumps(meta))
        try:
            os.replace(temporary, entry)
        except OSError:
            if _read(entry) is not None:
                return
            shutil.rmtree(entry, ignore_errors=True)  # damaged
            os.replace(temporary, entry)
    _remove_superseded(folder, entry, source)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data, zlib.crc32(f"{array.shape}{array.dtype}".encode()))


def _remove_superseded(folder: Path, entry: Path, source: str) -> None:
    """Remove entries made from the same files when these had other contents."""
    slug = entry.name.rsplit("-", 1)[0]
    for other in folder.glob(f"{slug}-*"):
        if other == entry:
            continue
        try:
            if json.loads((other / "meta.json").read_text())["source"] == source:
                shutil.rmtree(other, ignore_errors=True)
        except (OSError, ValueError, KeyError, TypeError):
            continue
