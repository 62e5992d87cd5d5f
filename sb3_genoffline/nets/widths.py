"""Hidden widths as callers give them."""

import numbers
from collections.abc import Sequence
from typing import Any

from sb3_genoffline.errors import UserError


def checked_widths(widths: Any, name: str = "net_arch") -> list[int]:
    """
    :param widths: positive whole numbers; none at all makes a linear network
    :param name: of the argument, for the error
    :return: the same as a list
    :raises UserError: naming the argument, for anything else
    """
    if not isinstance(widths, Sequence) or isinstance(widths, str):
        raise UserError(f"{name}={widths!r} must be a list of hidden widths, such as [256, 256].")
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, numbers.Integral) or width < 1:
            raise UserError(f"{name}={list(widths)} must hold whole numbers of at least 1, and {width!r} is not one.")
    return [int(width) for width in widths]
