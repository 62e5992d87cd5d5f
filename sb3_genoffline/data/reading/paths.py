"""Paths as users write them."""

import os
from pathlib import Path

from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short


def expanded(path: str | os.PathLike[str]) -> Path:
    """
    :param path: ``~`` is the home folder
    :raises UserError: if this user has none, or the system does not let us look there
    """
    found = os.path.expanduser(path)
    if found.startswith("~" + os.sep) or found == "~":
        raise UserError(f"{path} is in the home folder, and this user has none: set HOME, or give the whole path.")
    try:
        os.stat(found)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise UserError(f"{short(os.fspath(path))} can't be read: {error.strerror}.") from error
    return Path(found)
