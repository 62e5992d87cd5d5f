"""Functions that check their arguments by their annotations, as algorithms do by their tables."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from sb3_genoffline.common.arguments import Argument, nearest
from sb3_genoffline.errors import UnknownArgumentError

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")
_SCALARS = (bool, int, float, str, type(None))


def checked(call: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """
    Let a function or a constructor check what it is given before it runs, as the table of an algorithm does.

    :param call: parameters whose annotations are made of numbers, words and truth values are checked
    :return: it
    :raises UserError: for a wrong value; :class:`~sb3_genoffline.errors.UnknownArgumentError` for a name that it does not have
    """
    signature = inspect.signature(call)
    takes_any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())

    @functools.cache
    def arguments() -> dict[str, Argument]:  # when first called: the modules that annotations name are imported by then
        hints = typing.get_type_hints(call, include_extras=True)
        return {name: Argument(name, hint, None) for name, hint in hints.items() if _is_plain(hint)}

    @functools.wraps(call)
    def checking(*args: _Given.args, **kwargs: _Given.kwargs) -> _Made:
        unknown = [] if takes_any_name else [name for name in kwargs if name not in signature.parameters]
        if unknown:
            known = [name for name in signature.parameters if name != "self"]
            raise UnknownArgumentError(
                f"{unknown[0]!r} is not an argument{nearest(unknown[0], known)} There are: {', '.join(known)}."
            )
        bound = signature.bind(*args, **kwargs)
        for name in bound.arguments.keys() & arguments().keys():
            bound.arguments[name] = arguments()[name].check(bound.arguments[name])
        return call(*bound.args, **bound.kwargs)

    return checking


def _is_plain(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _is_plain(get_args(hint)[0])
    parts = [part for part in get_args(hint) if part is not Ellipsis]
    if get_origin(hint) is Literal or hint in _SCALARS:
        return True
    return get_origin(hint) in (Union, types.UnionType, tuple, Sequence) and all(map(_is_plain, parts))
