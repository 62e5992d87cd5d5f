"""What a path that leads nowhere may have been meant to be."""

import difflib
import os
from pathlib import Path


def near_files(path: str | os.PathLike[str]) -> str:
    """The end of a sentence: ``"; did you mean run.yml?"``, or a full stop if nothing beside the path has a near name."""
    path = Path(path)
    try:
        names = os.listdir(path.parent)
    except OSError:
        names = []
    close = [name for name in difflib.get_close_matches(path.name, names, n=4) if name != path.name]
    return f"; did you mean {' or '.join(close[:3])}?" if close else "."
