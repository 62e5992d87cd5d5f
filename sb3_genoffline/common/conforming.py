"""Values and type annotations: whether a value is what an annotation says, in plain types."""

import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_genoffline.files.untrusted import short
from sb3_genoffline.nets.activations import Mish

ACTIVATIONS: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        *(Mish, nn.ReLU, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.Softplus, nn.SELU, nn.CELU, nn.ReLU6),
        *(nn.Hardtanh, nn.Hardswish, nn.Sigmoid, nn.LogSigmoid, nn.Softsign, nn.Tanhshrink, nn.Identity),
    )
}
OPTIMIZERS: dict[str, type[th.optim.Optimizer]] = {
    cls.__name__: cls
    for cls in (
        *(th.optim.Adam, th.optim.AdamW, th.optim.NAdam, th.optim.RAdam, th.optim.Adamax),
        *(th.optim.SGD, th.optim.RMSprop, th.optim.Adagrad),
    )
}


class Misfit(Exception):
    """The end of a sentence that starts with the argument."""


def rules_of(hint: Any) -> Iterable[Any]:
    """What stands in an ``Annotated`` beside the type."""
    if get_origin(hint) is Annotated:
        yield from hint.__metadata__
        yield from rules_of(hint.__origin__)


def mentions(hint: Any, cls: type) -> bool:
    """Whether a class stands in a hint."""
    return hint is cls or any(mentions(part, cls) for part in get_args(hint))


def is_choice(hint: Any) -> bool:
    """Whether a literal stands in a hint."""
    if get_origin(hint) in (tuple, list, Sequence):
        return False  # of parts, which may be words
    return get_origin(hint) is Literal or any(is_choice(part) for part in get_args(hint))


def class_wanted(hint: Any) -> Any:
    """C of ``type[C]``, wherever it stands in a hint; None if it does not."""
    if get_origin(hint) is type:
        return get_args(hint)[0]
    return next((wanted for part in get_args(hint) if (wanted := class_wanted(part)) is not None), None)


def conform(value: Any, hint: Any) -> Any:
    """
    :param value: as given
    :param hint: type annotation, rules included
    :return: the value in plain types: numpy numbers become Python's
    :raises Misfit: saying what is wrong with it
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = conform(value, hint.__origin__)
        for rule in hint.__metadata__:
            wrong = rule.check(value) if hasattr(rule, "check") else None
            if wrong is not None:
                raise Misfit(wrong)
        return value
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _conform_to_one(value, parts)
    if origin is Literal:
        if any(type(value) is type(option) and value == option for option in parts):
            return value
        raise Misfit(f"is not known; use one of {', '.join(map(repr, parts))}")
    if hint in _SCALARS:
        return _SCALARS[hint](value)
    if origin is Callable or hint is Callable or origin is typing.get_origin(Schedule):
        if callable(value) and not isinstance(value, type):
            return value
    elif origin is type:
        return _conform_class(value, parts[0])
    elif origin in (list, tuple, Sequence):
        return _conform_items(value, origin, parts)
    elif origin in (dict, Mapping):
        if isinstance(value, Mapping):
            return {conform(key, parts[0]): _conform_item(item, parts[1]) for key, item in value.items()}
    elif hint is tuple and isinstance(value, list):
        return tuple(value)  # as files have it
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    raise Misfit(f"must be {_readable(hint)}")


def _conform_to_one(value: Any, options: tuple[Any, ...]) -> Any:
    if value is None and type(None) in options:
        return None
    misfits = []
    # an exact fit before a converted one: 1.0 is a float before it is the integer 1
    for option in sorted(options, key=lambda option: _bare(option) is not type(value)):
        if option is type(None):
            continue
        try:
            return conform(value, option)
        except Misfit as misfit:
            misfits.append((option, str(misfit)))
    if len(misfits) == 1:  # X | None
        raise Misfit(misfits[0][1] + (" (or None)" if misfits[0][1].startswith("must") else ""))
    of_its_type = [text for option, text in misfits if isinstance(value, _VALUE_TYPES.get(_family(option), ()))]
    words = [text for option, text in misfits if get_origin(_bare(option)) is Literal and isinstance(value, str)]
    if of_its_type and not isinstance(value, bool):
        raise Misfit(of_its_type[0])
    others = [_readable(option) for option, _ in misfits if get_origin(_bare(option)) is not Literal]
    if words and not isinstance(value, bool):
        raise Misfit(words[0] + (f", or {' or '.join(others)}" if others else ""))
    raise Misfit(f"must be {' or '.join(dict.fromkeys(_readable(option) for option in options))}")


def _bare(hint: Any) -> Any:
    return _bare(hint.__origin__) if get_origin(hint) is Annotated else hint


def _family(hint: Any) -> Any:
    return get_origin(_bare(hint)) or _bare(hint)


def _as_bool(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise Misfit("must be True or False")


def _as_int(value: Any) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        whole = isinstance(value, float | np.floating) and float(value).is_integer()
        raise Misfit(f"must be a whole number{f': write {value:.0f}' if whole else ''}")
    if abs(int(value)) >= 2**63:
        raise Misfit("is too large")
    return int(value)


_LARGEST_FLOAT = float(np.finfo(np.float32).max)


def _as_float(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise Misfit("must be a number")
    if not isinstance(value, int) and not math.isfinite(value):
        raise Misfit("must be finite")
    if abs(value) > _LARGEST_FLOAT:  # type: ignore[operator]
        raise Misfit(f"is too large: networks count in single precision, up to {_LARGEST_FLOAT:.3g}")
    return float(value)


def _as_str(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    raise Misfit("must be a word")


_SCALARS: dict[Any, Callable[[Any], Any]] = {bool: _as_bool, int: _as_int, float: _as_float, str: _as_str}
_VALUE_TYPES: dict[Any, Any] = {
    **{bool: bool, int: (int, float, np.number), float: (int, float, np.number), str: str},
    **{list: (list, tuple), tuple: (list, tuple), Sequence: (list, tuple), dict: Mapping, Mapping: Mapping},
}


def _conform_items(value: Any, origin: Any, parts: tuple[Any, ...]) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise Misfit(f"must be a list of {_readable(parts[0]).removeprefix('a ')}s" if parts else "must be a list")
    if origin is tuple and Ellipsis not in parts:
        if len(value) != len(parts):
            raise Misfit(f"must have {len(parts)} entries")
        return tuple(_conform_item(item, part) for item, part in zip(value, parts, strict=True))
    items = [_conform_item(item, parts[0]) for item in value]
    return tuple(items) if isinstance(value, tuple) else items


def _conform_item(item: Any, hint: Any) -> Any:
    try:
        return conform(item, hint)
    except Misfit as misfit:
        raise Misfit(f"has the entry {short(item)}, which {misfit}") from None


def _conform_class(value: Any, base: Any) -> Any:
    known: Mapping[str, Any] = ACTIVATIONS if base is nn.Module else OPTIMIZERS if base is th.optim.Optimizer else {}
    if not (isinstance(value, type) and issubclass(value, base)):
        raise Misfit(f"must be a class derived from {base.__name__}")
    found = known.get(value.__name__)
    if known and not (found is value or value is nn.Mish):
        raise Misfit(f"can't be saved without a pickle; use one of {', '.join(known)}")
    return found if known else value


_READABLE = {bool: "True or False", int: "a whole number", float: "a number", str: "a word", type(None): "None"}


def _readable(hint: Any) -> str:
    hint = _bare(hint)
    if hint in _READABLE:
        return _READABLE[hint]
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_readable, get_args(hint))))
    if get_origin(hint) in (list, tuple, Sequence):
        return "a list"
    if get_origin(hint) in (dict, Mapping):
        return "a mapping"
    if callable(hint) and not isinstance(hint, type):
        return "a schedule" if "Callable" in str(hint) else str(hint).replace("typing.", "")
    return f"a {hint.__name__}" if isinstance(hint, type) else str(hint).replace("typing.", "")


def misfit(value: Any, hint: Any) -> str | None:
    """
    :param value: as given
    :param hint: type annotation, rules included
    :return: what is wrong with it, as the end of a sentence that starts with the value; None if nothing is
    """
    try:
        conform(value, hint)
    except Misfit as wrong:
        return str(wrong)
    return None
