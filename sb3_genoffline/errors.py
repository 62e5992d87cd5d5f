"""Errors that the caller can mend. The command line prints their message alone; every other exception keeps its traceback."""


class UserError(ValueError):
    """Wrong input. The message names the thing, the value and the fix."""


class NotFoundError(UserError, FileNotFoundError):
    """A file, folder, run or dataset that is not there."""


class DivergedError(UserError, FloatingPointError):
    """Training or fitting that produced numbers which are not finite. The message says which, and what helps."""


class UnknownArgumentError(UserError, TypeError):
    """An argument that does not exist, or that this library does not take. The message says which are near, or why."""
