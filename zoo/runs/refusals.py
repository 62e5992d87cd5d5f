"""What the machine refuses, in words: disk, permission, memory."""

import errno
import os

import torch as th

from sb3_genoffline.errors import NotWrittenError, printable
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.files.writing import REFUSALS

_WRITING_FAILED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc")


def refusal_of(error: Exception) -> str | None:
    """
    :param error: that ended some work
    :return: a sentence; None if it is something else
    """
    if isinstance(error, NotWrittenError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None and error.errno in REFUSALS:
        return f"{short(os.fspath(error.filename))} can't be used: {REFUSALS[error.errno]}."
    if isinstance(error, OSError) and error.errno in _WRITING_FAILED:  # which of the open files it was is not known
        return f"A file could not be written: {REFUSALS[error.errno]}."
    if _is_out_of_memory(error):
        return f"This needs more memory than there is: use smaller numbers ({printable(error) or 'out of memory'})."
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """Whoever says so: Python, numpy, torch on a CPU or a GPU, the system."""
    if isinstance(error, MemoryError | th.OutOfMemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _OUT_OF_MEMORY)
