"""Errors that the caller can mend. The command line prints their message alone; every other exception keeps its traceback."""


class UserError(ValueError):
    """Wrong input. The message names the thing, the value and the fix."""


class NotFoundError(UserError, FileNotFoundError):
    """A file, folder, run or dataset that is not there."""


class DivergedError(UserError, FloatingPointError):
    """Training or fitting that produced numbers which are not finite. The message says which, and what helps."""


class UnknownArgumentError(UserError, TypeError):
    """An argument that does not exist, or that this library does not take. The message says which are near, or why."""


class ExistsError(UserError, FileExistsError):
    """Something that is there already, or is being made by another process, and is not replaced without being told to."""


class DownloadError(UserError, ConnectionError):
    """Something that could not be fetched, or arrived damaged."""


class MissingPackageError(UserError, ImportError):
    """An optional package that is not installed. The message says how to install it."""
