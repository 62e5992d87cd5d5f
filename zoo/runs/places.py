"""Where a command writes, or looks: asked before its work, which a wrong word shall not cost."""

import os
import tempfile
from pathlib import Path

from sb3_genoffline.data.reading.paths import expanded
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short


def output_file(word: str, suffix: str = "") -> str:
    """
    :param word: the file to write; ``~`` is the home folder
    :param suffix: that it should have; a file that is there and has another one is of another kind, and is not replaced
    :return: the path
    :raises UserError: if it can't be written
    """
    path = expanded(word)
    if path.is_dir() or not path.name:
        raise UserError(f"{short(word)} is not a file's name: name the file to write.")
    if path.exists() and not path.is_file():
        return str(path)  # /dev/null, a pipe
    if suffix and path.suffix not in ("", suffix) and path.exists():
        raise UserError(f"{short(word)} already exists and is not a {suffix} file, so it is not replaced: name another.")
    _check_place(path.parent, word)
    return str(path)


def output_folder(word: str) -> str:
    """
    :param word: the folder to write to, which need not exist; ``~`` is the home folder
    :return: the path
    :raises UserError: if it can't be made, or not be written to
    """
    path = folder(word)
    _check_place(Path(path), word)
    return path


def folder(word: str) -> str:
    """
    :param word: a folder to look in, which need not exist; ``~`` is the home folder
    :return: the path
    :raises UserError: if it is something else
    """
    path = expanded(word)
    if not word or (os.path.lexists(path) and not path.is_dir()):
        raise UserError(f"{short(word)} is not a folder: name one, '.' for this one.")
    return str(path)


def _check_place(wanted: Path, word: str) -> None:
    place = next((place for place in (wanted, *wanted.parents) if os.path.lexists(place)), Path())
    if not place.is_dir():
        raise UserError(f"{short(word)} can't be written: {short(str(place))} is not a folder.")
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise UserError(f"{short(word)} can't be written: nothing can be in {short(str(place))} ({error.strerror}).") from None
