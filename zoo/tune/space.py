"""What is searched: the ``search:`` block of a file of hyper-parameters, as plain values that the algorithm takes."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sb3_genoffline.common.arguments import Count, nearest
from sb3_genoffline.common.conforming import misfit
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short

from ..runs.hyperparameters import deep_merge, make_hyperparameters, parse_value
from ..runs.reading import named_values

if TYPE_CHECKING:
    import optuna

_NOT_SEARCHED = {
    "n_timesteps": "give -n, the same for all trials",
    "policy": "give -params policy:NAME",
    "env_kwargs": "give -params env_kwargs:...",
}
_NESTED = "policy_kwargs"
_RANGE = ("low", "high", "log")
_DIGITS = 4
SMALL_GRID = 100
"""So many settings are tried one by one in a random order, each once; of more Optuna proposes some."""


@dataclass(frozen=True)
class Choice:
    """
    Some values, in no order.

    :param values: plain ones; Optuna knows them by their JSON
    """

    values: list[Any]

    def suggest(self, name: str, trial: optuna.Trial) -> Any:
        """Optuna's parameter of a trial."""
        return trial.suggest_categorical(name, [json.dumps(value) for value in self.values])

    def value(self, parameter: Any) -> Any:
        """The value that a parameter stands for."""
        return json.loads(parameter)

    def parameter(self, value: Any) -> Any:
        """What Optuna knows a value by; None if it is none of these."""
        return next((json.dumps(known) for known in self.values if known == value), None)

    @property
    def plain(self) -> Any:
        """As in the file."""
        return self.values

    @property
    def extremes(self) -> list[Any]:
        """All of them."""
        return self.values


@dataclass(frozen=True)
class Range:
    """
    Numbers between two others.

    :param low: smallest
    :param high: largest
    :param log: drawn evenly in their logarithm
    :param whole: whole numbers only
    """

    low: float
    high: float
    log: bool
    whole: bool

    def suggest(self, name: str, trial: optuna.Trial) -> Any:
        """Optuna's parameter of a trial."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def value(self, parameter: Any) -> Any:
        """The value that a parameter stands for: of a fraction four digits count."""
        if self.whole:
            return parameter
        return min(max(float(f"{parameter:.{_DIGITS}g}"), float(self.low)), float(self.high))

    def parameter(self, value: Any) -> Any:
        """What Optuna knows a value by; None if it lies outside."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if is_number and self.low <= value <= self.high else None

    @property
    def plain(self) -> Any:
        """As in the file."""
        return {"low": self.low, "high": self.high, "log": self.log}

    @property
    def extremes(self) -> list[Any]:
        """Both ends."""
        return [self.low, self.high]


@dataclass(frozen=True)
class Space:
    """
    :param parameters: by name; those of the networks as ``policy_kwargs.name``
    """

    parameters: dict[str, Choice | Range]

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """
        :param trial: of Optuna
        :return: its parameters, the same ones whenever it is asked
        """
        return {name: parameter.suggest(name, trial) for name, parameter in self.parameters.items()}

    def values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """
        :param parameters: Optuna's
        :return: values by their names
        """
        return {name: parameter.value(parameters[name]) for name, parameter in self.parameters.items()}

    def settings(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """
        :param parameters: Optuna's
        :return: hyper-parameters by name, those of the networks below ``policy_kwargs``
        """
        return self.nested(self.values(parameters))

    @staticmethod
    def nested(values: Mapping[str, Any]) -> dict[str, Any]:
        """
        :param values: by their names
        :return: hyper-parameters by name, those of the networks below ``policy_kwargs``
        """
        return _nested(values)

    def point(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """
        :param settings: hyper-parameters, defaults among them
        :return: Optuna's parameters for just these; None if one of them is not searched
        """
        flat = {**settings, **{f"{_NESTED}.{name}": value for name, value in (settings.get(_NESTED) or {}).items()}}
        found = {name: parameter.parameter(flat.get(name)) for name, parameter in self.parameters.items()}
        return None if None in found.values() else found

    def grid(self) -> list[dict[str, Any]] | None:
        """Optuna's parameters of all settings, if they are few: at most :data:`SMALL_GRID`; else None."""
        choices = {name: found for name, found in self.parameters.items() if isinstance(found, Choice)}
        if len(choices) < len(self.parameters) or math.prod(len(found.values) for found in choices.values()) > SMALL_GRID:
            return None
        texts = [[json.dumps(value) for value in found.values] for found in choices.values()]
        return [dict(zip(choices, point, strict=True)) for point in itertools.product(*texts)]

    @property
    def plain(self) -> dict[str, Any]:
        """By name, as in the file."""
        return {name: parameter.plain for name, parameter in self.parameters.items()}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        outer, dot, inner = name.partition(".")
        if dot:
            nested.setdefault(outer, {})[inner] = value
        else:
            nested[name] = value
    return nested


def read_space(block: Mapping[str, Any], cls: type[AnyAlgorithm], base: Mapping[str, Any], where: str) -> Space:
    """
    :param block: lists of values, or mappings with ``low``, ``high`` and perhaps ``log``, by name of the hyper-parameter;
        those of the networks in a mapping of their own, ``policy_kwargs``
    :param cls: the algorithm, whose tables of arguments have to take every value
    :param base: all hyper-parameters that are not searched, and those that are as they are without a search
    :param where: the block stands, for errors
    :raises UserError: naming the word that is not understood, or the value that the algorithm does not take
    """
    table = cls.argument_table().arguments
    parameters: dict[str, Choice | Range] = {}
    for name, raw in block.items():
        if name in _NOT_SEARCHED:
            raise UserError(f"{where}: {name} can't be searched: {_NOT_SEARCHED[name]}.")
        if name in table and table[name].names_file:
            raise UserError(f"{where}: {name} names a file, which is not a value to search over: give it with -params.")
        inner = named_values(raw, f"{where}, {name}") if name == _NESTED else {"": raw}
        for key, spec in inner.items():
            full = f"{name}.{key}" if key else name
            parameters[full] = _parameter(full, parse_value(full, spec), _Checker(full, cls, base, where))
    if not parameters:
        raise UserError(f"{where} names no hyper-parameter: there is nothing to search over.")
    return Space(parameters)


@dataclass(frozen=True)
class _Checker:
    """Lets the tables of arguments see one value."""

    name: str
    cls: type[AnyAlgorithm]
    base: Mapping[str, Any]
    where: str

    def check(self, value: Any) -> None:
        try:
            make_hyperparameters(self.cls, deep_merge(self.base, _nested({self.name: value})))
        except UserError as error:
            raise UserError(f"{self.where}: {error}") from None

    def takes(self, value: Any) -> bool:
        try:
            self.check(value)
        except UserError:
            return False
        return True


def _parameter(name: str, spec: Any, checker: _Checker) -> Choice | Range:
    where = f"{checker.where}: {name}"
    if isinstance(spec, list):
        return _choice(where, spec, checker.check)
    if isinstance(spec, Mapping) and spec.keys() & {"low", "high"}:
        return _range(where, spec, checker)
    checker.check(next(iter(spec.values()), None) if isinstance(spec, Mapping) else spec)  # an unknown name is told first
    raise UserError(
        f"{where} is {short(spec)}, neither a list of values nor a range: write [{short(spec)}] or "
        "{low: 0.1, high: 10, log: true}."
    )


def _choice(where: str, values: list[Any], check: Callable[[Any], None]) -> Choice:
    if not values:
        raise UserError(f"{where} is an empty list: name at least one value.")
    for value in values:
        check(value)
    for number, value in enumerate(values):
        for earlier in values[:number]:
            if _same(value, earlier):
                first, second = json.dumps(earlier), json.dumps(value)
                twice = f"{first} twice" if first == second else f"{first} and {second}, which are the same"
                raise UserError(f"{where} has {twice}: leave one out.")
    return Choice(values)


def _same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal; True is not 1."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _range(where: str, spec: Mapping[str, Any], checker: _Checker) -> Range:
    for key in spec:
        if key not in _RANGE:
            raise UserError(f"{where} has {short(key)}{nearest(key, _RANGE)} A range has {', '.join(_RANGE)}.")
    for key in ("low", "high"):
        wrong = misfit(spec.get(key), float)
        if wrong is not None:
            raise UserError(f"{where}, {key}: {short(spec.get(key))} {wrong}.")
        checker.check(spec[key])
    low, high, log = spec["low"], spec["high"], spec.get("log", False)
    wrong = misfit(log, bool)
    if wrong is not None:
        raise UserError(f"{where}, log: {short(log)} {wrong}.")
    if low >= high:
        raise UserError(f"{where}: low={low} must lie below high={high}.")
    if log and low <= 0:
        raise UserError(f"{where}: low={low} must be positive where log is true.")
    whole = misfit(low, Count) is None and misfit(high, Count) is None and not checker.takes(low + 0.5)
    return Range(low, high, log, whole)
