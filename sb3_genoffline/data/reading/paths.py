"""Paths as users write them."""

import os
from pathlib import Path

from sb3_genoffline.errors import UserError


def expanded(path: str | os.PathLike[str]) -> Path:
    """
    :param path: ``~`` is the home folder
    :raises UserError: if this user has none
    """
    found = os.path.expanduser(path)
    if found.startswith("~" + os.sep) or found == "~":
        raise UserError(f"{path} is in the home folder, and this user has none: set HOME, or give the whole path.")
    return Path(found)
