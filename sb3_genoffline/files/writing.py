"""
Writing files and folders so that there is the old one or the new one, whatever happens in between.

What is not whole yet lies beside its place under a name that starts with a dot and ends in ``.genoffline-tmp``, locked by the
process that writes it. What a killed process left has no lock any more: the next writer in the same folder removes it.
"""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from sb3_genoffline.errors import NotWrittenError, UserError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

TEMPORARY, PENDING, _OLD = ".genoffline-tmp", ".genoffline-next", ".genoffline-old"
_LONGEST_NAME = 100
# Where there are no locks, what is older than this is nobody's any more
_STALE_SECONDS = 24 * 3600.0
REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota of the disk is used up",
    errno.EACCES: "you have no permission for it",
    errno.EPERM: "you have no permission for it",
    errno.EROFS: "the disk is read-only",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EISDIR: "there is a folder of this name",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "something of this name is in the way",
    errno.ENOTEMPTY: "a folder of this name is in the way",
    errno.EFBIG: "it is larger than the disk's files may be",
    errno.EMFILE: "too many files are open",
    errno.ELOOP: "it is a link to itself",
}
"""What the system says, in words."""


@contextmanager
def write_errors(path: str | Path) -> Iterator[None]:
    """Whatever the system refuses inside becomes a :class:`NotWrittenError` that names the path and the cause."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        cause = REFUSALS.get(error.errno or 0, "the system refuses it")
        known = error.strerror or str(error)
        refused = NotWrittenError(f"{path} could not be written: {cause} ({known}). What was there before is still whole.")
        refused.errno = error.errno
        raise refused from error


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """
    A file to write to, which takes the place of ``path`` at the end of the block; after an error there is the old one. Folders
    are made.

    :raises NotWrittenError: if the system refuses it
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not (path.is_file() or path.is_dir()):
            with path.open("wb") as device:  # /dev/null, a pipe: nothing may take its place
                yield device
            return
        remove_leftovers(path.parent)
        file, temporary = _open_temporary(path)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner reads
                if fcntl is None:
                    file.close()  # Windows renames no open file
                os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def replace_file(path: Path, content: bytes) -> None:
    """
    Write a file, atomically: a killed process leaves the old file or the new one; folders are made.

    :raises NotWrittenError: if the system refuses it
    """
    with replaced(path) as file:
        file.write(content)


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """
    An empty folder of this process, removed at the end. What killed processes left beside it is removed now.

    :param parent: where it is made
    :param name: of what it is for
    """
    remove_leftovers(parent)
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=f".{name[:_LONGEST_NAME]}.", suffix=TEMPORARY))
        lock = _lock(folder)
        if lock is not False:
            break
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:  # interrupted again, it is left to the next writer, for whom it must not be locked
            if lock is not None:
                os.close(lock)


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """
    An empty folder of this process among the system's temporary files, removed at the end. What killed processes left there is
    removed now.

    :param name: of what it is for
    """
    with temporary_folder(Path(tempfile.gettempdir()), name) as folder:
        yield folder


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """
    An empty folder to fill, which takes the place of ``folder`` at the end of the block; after an error there is the old one.
    A process that is killed between the two renames of this leaves the old one under a hidden name: :func:`standing` finds
    it, and the next writer puts it back.

    :raises NotWrittenError: if the system refuses it
    """
    with write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        put_back(folder)
        _check_no_file(folder)
        with temporary_folder(folder.parent, folder.name) as scratch:
            new = scratch / folder.name
            new.mkdir()
            yield new
            _check_no_file(folder)
            try:
                if folder.exists():
                    os.rename(folder, _old(folder))
                os.rename(new, folder)
            finally:
                put_back(folder)


def _check_no_file(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def remove_folder(folder: Path) -> None:
    """Remove a folder, at once for whoever looks for its name; what a killed process leaves of it the next writer removes."""
    with temporary_folder(folder.parent, folder.name) as hidden:
        os.rename(folder, hidden / "removed")


def standing(folder: Path) -> Path:
    """The folder, or where a process that was killed while it replaced it has left it."""
    return _old(folder) if not folder.exists() and _old(folder).is_dir() else folder


def put_back(folder: Path) -> None:
    """Undo or end what a killed process had begun: of the old folder and the new one, the newest whole one is kept."""
    old = _old(folder)
    if not old.is_dir():
        return
    if folder.exists():
        with suppress(OSError):
            remove_folder(old)
    else:
        os.rename(old, folder)


def _old(folder: Path) -> Path:
    folder = Path(os.path.abspath(folder))  # "." has no name
    return folder.parent / f".{folder.name}{_OLD}"


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for this folder (where the system has locks)."""
    lock = None
    if fcntl is not None:
        lock = os.open(folder, os.O_RDONLY)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is one that is being written, or that a killed process left."""
    return name.startswith(".") and name.endswith((TEMPORARY, PENDING, _OLD))


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in a folder."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith(".") and name.endswith(TEMPORARY)]
    except OSError:
        return
    for name in names:
        with suppress(OSError):
            _remove_if_left(folder / name)


def _remove_if_left(path: Path) -> None:
    is_folder = path.is_dir()
    lock = _lock(path)
    if lock is False:
        return  # somebody writes it
    try:
        if lock is None and path.lstat().st_mtime > time.time() - _STALE_SECONDS:
            return
        if is_folder:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        if lock is not None:
            os.close(lock)


def _open_temporary(path: Path) -> tuple[IO[bytes], str]:
    """A new file beside a path, locked."""
    while True:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_LONGEST_NAME]}.", suffix=TEMPORARY)
        if _hold(handle, temporary) is not False:
            return os.fdopen(handle, "wb"), temporary
        os.close(handle)


def _lock(path: Path) -> Any:
    """The open lock of a file or folder; None where there are no locks; False if another one holds it or it has gone."""
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    held = _hold(handle, path)
    if held is True:
        return handle
    os.close(handle)
    return held


def _hold(handle: int, path: str | Path) -> bool | None:
    """Lock an open file: True if it is ours now, False if another one holds it or it has gone, None without locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:
        return None  # a file system without locks
