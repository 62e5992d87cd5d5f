"""Errors that the caller can fix. The command line prints their message alone; every other exception keeps its traceback."""


def printable(text: object) -> str:
    """What somebody else wrote, for a terminal: what is no letter, digit or sign is shown as Python's escape of it."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def printable_lines(text: object) -> str:
    """:func:`printable`, line by line."""
    return "\n".join(map(printable, str(text).split("\n")))


class UserError(ValueError):
    """
    Wrong input. The message names the thing, the value and the fix.

    :param message: may cite what others wrote: it is made safe to print, line by line
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable_lines(message))


class NotFoundError(UserError, FileNotFoundError):
    """A file, folder, run or dataset that is not there."""


class DivergedError(UserError, FloatingPointError):
    """Training or fitting that produced numbers which are not finite. The message names them and what helps."""


class NotMadeError(UserError, AttributeError):
    """A part of an agent that is not there yet. The message says what makes it."""


class UnknownArgumentError(UserError, TypeError):
    """An argument that does not exist, or that this library does not take. The message says which are near, or why."""


class ExistsError(UserError, FileExistsError):
    """Something that already exists, or is being made by another process, and is only replaced on request."""


class NotWrittenError(UserError, OSError):
    """A file or folder that the system does not let us write. The message names it and the cause; the old one is whole."""


class DownloadError(UserError, ConnectionError):
    """Something that could not be fetched, or arrived damaged."""


class MissingPackageError(UserError, ImportError):
    """An optional package that is not installed. The message says how to install it."""
