"""
The arguments of algorithms and policies: one table, read from the constructors' annotations, checks every value once.

``Annotated[int, Bounds(1)]`` in a signature is all that an argument needs: the constructor, a later ``agent.name = value``,
``load(path, name=value)``, ``config.json``, the zoo's YAML files and its ``-params`` go through the same :class:`Argument`.
"""

import difflib
import functools
import inspect
import math
import pathlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import get_device
from torch import nn

from sb3_genoffline.common.schedules import is_storable_schedule, numbers_of
from sb3_genoffline.errors import UnknownArgumentError, UserError
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.nets.activations import Mish


class Rule(Protocol):
    """What an annotation says beside the type."""

    def check(self, value: Any) -> str | None:
        """:return: what is wrong with the value, as the end of a sentence that starts with the argument; None if nothing is"""


@dataclass(frozen=True)
class Bounds:
    """
    The range of a number, its ends included unless they are open.

    :param low: smallest value
    :param high: largest value
    :param open_low: the smallest value itself is not allowed
    :param open_high: the largest value itself is not allowed
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def check(self, value: Any) -> str | None:
        """See :class:`Rule`."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return None if above and below else str(self)

    def __str__(self) -> str:
        if math.isinf(self.high):
            if self.low == 0:
                return "must be positive" if self.open_low else "must not be negative"
            return f"must be {'above' if self.open_low else 'at least'} {self.low:g}"
        if math.isinf(self.low):
            return f"must be {'below' if self.open_high else 'at most'} {self.high:g}"
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"must lie in {left}{self.low:.10g}, {self.high:.10g}{right}"


@dataclass(frozen=True)
class Fixed:
    """
    Marks an argument that a live agent can't change.

    :param reason: what it decides, as the end of a sentence that starts with the argument: "sizes the buffer"
    """

    reason: str


@dataclass(frozen=True)
class Storable:
    """Marks a learning rate: a number ≥ 0, or a schedule that can be saved without a pickle."""

    def check(self, value: Any) -> str | None:
        """See :class:`Rule`."""
        if not callable(value):
            return Bounds(0.0).check(value)
        if is_storable_schedule(value):
            numbers = numbers_of(value)
            good = all(isinstance(n, int | float | np.number) and math.isfinite(n) and n >= 0 for n in numbers)
            return (
                None
                if good and (len(numbers) < 3 or 0 < numbers[2] <= 1)
                else (f"has the numbers {short(numbers)}: rates must be finite and not negative, the run's share above 0")
            )
        return (
            "is a function, which can't be saved without a pickle: use a number, "
            "stable_baselines3.common.utils.LinearSchedule, or `lr_decay_steps` for a cosine"
        )


@dataclass(frozen=True)
class AtLeastOneLayer:
    """Marks hidden widths: positive whole numbers."""

    def check(self, value: Any) -> str | None:
        """See :class:`Rule`."""
        if isinstance(value, Mapping) and not value.keys() <= {"pi", "qf"}:
            return "has keys other than 'pi' (actor) and 'qf' (critics); on-policy networks ('vf') have no place here"
        parts = list(value.values() if isinstance(value, Mapping) else [value])
        if not all(parts):
            return "must have at least one hidden layer"
        return None if all(width >= 1 for part in parts for width in part) else "must have widths of at least 1"


PositiveInt = Annotated[int, Bounds(1)]
Count = Annotated[int, Bounds(0)]
NCandidates = Annotated[int, Bounds(1, 100_000)]
"""Actions to choose among: no file may ask for more."""
DiffusionSteps = Annotated[int, Bounds(1, 10_000)]
"""Steps of a diffusion: no file may ask for more."""
Positive = Annotated[float, Bounds(0.0, open_low=True)]
NonNegative = Annotated[float, Bounds(0.0)]
Share = Annotated[float, Bounds(0.0, 1.0)]
PositiveShare = Annotated[float, Bounds(0.0, 1.0, open_low=True)]
Rate = Annotated[float | Schedule, Storable()]
Widths = Annotated[Sequence[int], AtLeastOneLayer()]
_Beta = Annotated[float, Bounds(0.0, 1.0, open_high=True)]
Betas = tuple[_Beta, _Beta]  # Adam's β1 and β2
NetArch = Annotated[Sequence[int] | dict[str, Sequence[int]], AtLeastOneLayer()]
RewardTransform = Annotated[str | None, Fixed("decides which rewards the buffer holds")]
Normalized = Annotated[bool, Fixed("decides what the networks were trained on")]
TakenOver = Fixed("is taken over when the agent is made: use set_fitted_model()")

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


@dataclass(frozen=True)
class Argument:
    """
    One argument of a constructor.

    :param name: of it
    :param hint: type annotation, rules included
    :param default: ``inspect.Parameter.empty`` if there is none
    :param inherited: the argument of this name that a base class has, whose rules hold too
    """

    name: str
    hint: Any
    default: Any
    inherited: "Argument | None" = None

    def check(self, value: Any) -> Any:
        """
        :param value: as given
        :return: the same in plain types: numpy numbers become Python's
        :raises UserError: naming the argument, the value and what is allowed
        """
        try:
            checked = _conform(value, self.hint)
        except _Misfit as misfit:
            raise UserError(f"{self.name}={short(value)} {misfit}.") from None
        return checked if self.inherited is None else self.inherited.check(checked)

    @property
    def fixed(self) -> str | None:
        """Why a live agent can't change it; None if it can."""
        own = next((rule.reason for rule in _rules(self.hint) if isinstance(rule, Fixed)), None)
        return self.inherited.fixed if own is None and self.inherited is not None else own

    @property
    def names_file(self) -> bool:
        """Whether its value may be the path of a file to read."""
        return _mentions(self.hint, pathlib.Path)

    @property
    def is_choice(self) -> bool:
        """Whether it is one of a few words."""
        return _is_choice(self.hint)

    @property
    def classes(self) -> Mapping[str, type]:
        """The classes that its value may be, by name; none where it is not a class, or may be any."""
        wanted = _class_wanted(self.hint)
        return ACTIVATIONS if wanted is nn.Module else OPTIMIZERS if wanted is th.optim.Optimizer else {}


class _Misfit(Exception):
    """The end of a sentence that starts with the argument."""


def _rules(hint: Any) -> Iterable[Any]:
    if get_origin(hint) is Annotated:
        yield from hint.__metadata__
        yield from _rules(hint.__origin__)


def _mentions(hint: Any, cls: type) -> bool:
    return hint is cls or any(_mentions(part, cls) for part in get_args(hint))


def _is_choice(hint: Any) -> bool:
    """Whether a literal stands in a hint."""
    if get_origin(hint) in (tuple, list, Sequence):
        return False  # of parts, which may be words
    return get_origin(hint) is Literal or any(_is_choice(part) for part in get_args(hint))


def _class_wanted(hint: Any) -> Any:
    """C of ``type[C]``, wherever it stands in a hint; None if it does not."""
    if get_origin(hint) is type:
        return get_args(hint)[0]
    return next((wanted for part in get_args(hint) if (wanted := _class_wanted(part)) is not None), None)


def _conform(value: Any, hint: Any) -> Any:
    """The value as the type annotation wants it; raises :class:`_Misfit`."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = _conform(value, hint.__origin__)
        for rule in hint.__metadata__:
            wrong = rule.check(value) if hasattr(rule, "check") else None
            if wrong is not None:
                raise _Misfit(wrong)
        return value
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _conform_to_one(value, parts)
    if origin is Literal:
        if any(type(value) is type(option) and value == option for option in parts):
            return value
        raise _Misfit(f"is not known; use one of {', '.join(map(repr, parts))}")
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
            return {_conform(key, parts[0]): _conform_item(item, parts[1]) for key, item in value.items()}
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    raise _Misfit(f"must be {_readable(hint)}")


def _conform_to_one(value: Any, options: tuple[Any, ...]) -> Any:
    if value is None and type(None) in options:
        return None
    misfits = []
    # an exact fit before a converted one: 1.0 is a float before it is the integer 1
    for option in sorted(options, key=lambda option: _bare(option) is not type(value)):
        if option is type(None):
            continue
        try:
            return _conform(value, option)
        except _Misfit as misfit:
            misfits.append((option, str(misfit)))
    if len(misfits) == 1:  # X | None
        raise _Misfit(misfits[0][1] + (" (or None)" if misfits[0][1].startswith("must") else ""))
    of_its_type = [text for option, text in misfits if isinstance(value, _VALUE_TYPES.get(_family(option), ()))]
    words = [text for option, text in misfits if get_origin(_bare(option)) is Literal and isinstance(value, str)]
    if of_its_type and not isinstance(value, bool):
        raise _Misfit(of_its_type[0])
    others = [_readable(option) for option, _ in misfits if get_origin(_bare(option)) is not Literal]
    if words and not isinstance(value, bool):
        raise _Misfit(words[0] + (f", or {' or '.join(others)}" if others else ""))
    raise _Misfit(f"must be {' or '.join(dict.fromkeys(_readable(option) for option in options))}")


def _bare(hint: Any) -> Any:
    return _bare(hint.__origin__) if get_origin(hint) is Annotated else hint


def _family(hint: Any) -> Any:
    return get_origin(_bare(hint)) or _bare(hint)


def _as_bool(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise _Misfit("must be True or False")


def _as_int(value: Any) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        whole = isinstance(value, float | np.floating) and float(value).is_integer()
        raise _Misfit(f"must be a whole number{f': write {value:.0f}' if whole else ''}")
    if abs(int(value)) >= 2**63:
        raise _Misfit("is too large")
    return int(value)


_LARGEST_FLOAT = float(np.finfo(np.float32).max)


def _as_float(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise _Misfit("must be a number")
    if not isinstance(value, int) and not math.isfinite(value):
        raise _Misfit("must be finite")
    if abs(value) > _LARGEST_FLOAT:  # type: ignore[operator]
        raise _Misfit(f"is too large: networks count in single precision, up to {_LARGEST_FLOAT:.3g}")
    return float(value)


def _as_str(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    raise _Misfit("must be a word")


_SCALARS: dict[Any, Callable[[Any], Any]] = {bool: _as_bool, int: _as_int, float: _as_float, str: _as_str}
_VALUE_TYPES: dict[Any, Any] = {
    **{bool: bool, int: (int, float, np.number), float: (int, float, np.number), str: str},
    **{list: (list, tuple), tuple: (list, tuple), Sequence: (list, tuple), dict: Mapping, Mapping: Mapping},
}


def _conform_items(value: Any, origin: Any, parts: tuple[Any, ...]) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise _Misfit(f"must be a list of {_readable(parts[0]).removeprefix('a ')}s" if parts else "must be a list")
    if origin is tuple and Ellipsis not in parts:
        if len(value) != len(parts):
            raise _Misfit(f"must have {len(parts)} entries")
        return tuple(_conform_item(item, part) for item, part in zip(value, parts, strict=True))
    items = [_conform_item(item, parts[0]) for item in value]
    return tuple(items) if isinstance(value, tuple) else items


def _conform_item(item: Any, hint: Any) -> Any:
    try:
        return _conform(item, hint)
    except _Misfit as misfit:
        raise _Misfit(f"has the entry {short(item)}, which {misfit}") from None


def _conform_class(value: Any, base: Any) -> Any:
    known: Mapping[str, Any] = ACTIVATIONS if base is nn.Module else OPTIMIZERS if base is th.optim.Optimizer else {}
    if not (isinstance(value, type) and issubclass(value, base)):
        raise _Misfit(f"must be a class derived from {base.__name__}")
    found = known.get(value.__name__)
    if known and not (found is value or value is nn.Mish):
        raise _Misfit(f"can't be saved without a pickle; use one of {', '.join(known)}")
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


@functools.cache
def constructor_arguments(cls: type, base: type) -> dict[str, Argument]:
    """
    The arguments of a class by name, its own before those of its bases.

    :param cls: class derived from ``base``
    :param base: where the chain of constructors ends
    """
    found: dict[str, Argument] = {}
    for ancestor in reversed(cls.__mro__[: cls.__mro__.index(base) + 1]):
        own: dict[str, Argument] = {}
        if "__init__" not in ancestor.__dict__:
            continue
        hints = typing.get_type_hints(ancestor.__init__, include_extras=True)  # type: ignore[misc]
        for name, parameter in inspect.signature(ancestor.__init__).parameters.items():  # type: ignore[misc]
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name != "self":
                own[name] = Argument(name, hints.get(name, Any), parameter.default, found.get(name))
        found = own | {name: argument for name, argument in found.items() if name not in own}
    return found


@dataclass(frozen=True)
class ArgumentTable:
    """
    The arguments that make up an agent or a policy.

    :param owner: name of the class, for errors
    :param arguments: by name
    :param refused: names that stable-baselines3 has and this class does not take, with the reason
    """

    owner: str
    arguments: Mapping[str, Argument]
    refused: Mapping[str, str] = field(default_factory=dict)

    def check(self, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """
        :param values: by name
        :param where: put before a name in errors (``"policy_kwargs: "``)
        :return: the values in plain types
        :raises UserError: naming the first one that is unknown or wrong
        """
        checked = {}
        for name, value in values.items():
            if name in self.refused:
                raise UnknownArgumentError(f"{where}{self.owner} takes no {name}: {self.refused[name]}")
            if name not in self.arguments:
                raise UnknownArgumentError(f"{where}{self.owner} has no argument {name!r}{nearest(name, self.arguments)}")
            try:
                checked[name] = self.arguments[name].check(value)
            except UserError as error:
                raise UserError(f"{where}{error}") from None
        return checked


def misfit(value: Any, hint: Any) -> str | None:
    """
    :param value: as given
    :param hint: type annotation, rules included
    :return: what is wrong with it, as the end of a sentence that starts with the value; None if nothing is
    """
    try:
        _conform(value, hint)
    except _Misfit as wrong:
        return str(wrong)
    return None


def split_net_arch(net_arch: Sequence[int] | Mapping[str, Sequence[int]]) -> tuple[list[int], list[int]]:
    """
    :param net_arch: hidden widths of all networks, or SB3's ``dict(pi=[...], qf=[...])``
    :return: those of the actor and of the critics
    :raises UserError: if a mapping lacks one of the two
    """
    if not isinstance(net_arch, Mapping):
        return list(net_arch), list(net_arch)
    for key in ("pi", "qf"):
        if key not in net_arch:
            raise UserError(
                f"net_arch={short(dict(net_arch))} has no {key!r}: give dict(pi=[...], qf=[...]), or one list for all."
            )
    return list(net_arch["pi"]), list(net_arch["qf"])


def as_device(device: th.device | str) -> th.device:
    """
    :param device: as SB3 takes it: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``
    :raises UserError: for one that is not there
    """
    try:
        found = get_device(device)
        th.Generator(found)  # what every agent has there
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"device={short(device)} can't be used; 'auto', 'cpu' and, with a GPU, 'cuda' can: {reason}"
        ) from error
    return found


def nearest(name: str, known: Iterable[Any]) -> str:
    """The end of a sentence: ``"; did you mean 'rho'?"``, or a full stop if no known name is near."""
    close = difflib.get_close_matches(str(name), list(dict.fromkeys(map(str, known))), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
