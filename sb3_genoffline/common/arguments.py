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
import typing
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import get_device
from torch import nn

from sb3_genoffline.common.conforming import (
    ACTIVATIONS,
    OPTIMIZERS,
    Misfit,
    class_wanted,
    conform,
    is_choice,
    mentions,
    rules_of,
)
from sb3_genoffline.common.schedules import is_storable_schedule, numbers_of
from sb3_genoffline.errors import UnknownArgumentError, UserError
from sb3_genoffline.files.untrusted import short


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
class NoSize:
    """Marks a policy's whole number that sizes nothing: else files may not make it larger than a network's width may be."""


@dataclass(frozen=True)
class ZeroOrAtLeast:
    """
    The range of a number that is divided by, or 0, which means something of its own.

    :param low: smallest value above 0
    """

    low: float

    def check(self, value: Any) -> str | None:
        """See :class:`Rule`."""
        return None if value == 0 or value >= self.low else f"must be 0, or at least {self.low:g}"


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
SampleCount = Annotated[int, Bounds(1, 10_000)]
"""Draws per row of a batch."""
NoiseScale = Annotated[float, Bounds(0.0, 1e6)]
Sharpness = Annotated[float, Bounds(0.0, 1e6)]
"""Of a softmax: multiplied onto what it chooses by."""
HalfWidth = Annotated[float, Bounds(0.0, 1e6)]
"""Of the uniform distribution that weights start from."""
Temperature = Annotated[float, ZeroOrAtLeast(1e-6)]
"""Of a softmax; 0 takes the best."""
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
            checked = conform(value, self.hint)
        except Misfit as misfit:
            raise UserError(f"{self.name}={short(value)} {misfit}.") from None
        return checked if self.inherited is None else self.inherited.check(checked)

    @property
    def fixed(self) -> str | None:
        """Why a live agent can't change it; None if it can."""
        own = next((rule.reason for rule in rules_of(self.hint) if isinstance(rule, Fixed)), None)
        return self.inherited.fixed if own is None and self.inherited is not None else own

    @property
    def is_size(self) -> bool:
        """Whether whole numbers in its value may size a network."""
        return not any(isinstance(rule, NoSize) for rule in rules_of(self.hint))

    @property
    def names_file(self) -> bool:
        """Whether its value may be the path of a file to read."""
        return mentions(self.hint, pathlib.Path)

    @property
    def is_choice(self) -> bool:
        """Whether it is one of a few words."""
        return is_choice(self.hint)

    @property
    def classes(self) -> Mapping[str, type]:
        """The classes that its value may be, by name; none where it is not a class, or may be any."""
        wanted = class_wanted(self.hint)
        return ACTIVATIONS if wanted is nn.Module else OPTIMIZERS if wanted is th.optim.Optimizer else {}


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
    :raises UserError: for one that does not exist
    """
    try:
        found = get_device(device)
        if th.device("cpu" if device == "auto" else device).type != found.type:
            warnings.warn(f"device={short(str(device))} is not there, so it is the {found.type}.", stacklevel=4)
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
