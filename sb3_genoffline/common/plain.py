"""Arguments as plain data, for files: JSON for numbers, words and lists, names for the few classes that may be stored."""

import math
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.type_aliases import TrainFreq

from sb3_genoffline.common.conforming import ACTIVATIONS, OPTIMIZERS
from sb3_genoffline.common.schedules import is_storable_schedule, schedule_from_json, schedule_to_json
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short

_CLASSES: dict[str, Mapping[str, type]] = {"activation": ACTIVATIONS, "optimizer": OPTIMIZERS}
_SPECIAL = {*_CLASSES, "linear", "pairs"}


def to_json(name: str, value: Any) -> Any:
    """
    :param name: of the argument, for the error
    :param value: as :meth:`~sb3_genoffline.common.arguments.Argument.check` returns it, or a ``TrainFreq``
    :return: plain data for :func:`from_json`
    :raises UserError: naming an argument that can't be stored without a pickle
    """
    if isinstance(value, TrainFreq):
        return [value.frequency, value.unit.value]
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"The argument {name}={value} is not a finite number, which files do not have.")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [to_json(name, item) for item in value]
    if isinstance(value, Mapping) and _needs_pairs(value):
        return {"pairs": [[to_json(name, key), to_json(f"{name}[{key!r}]", item)] for key, item in value.items()]}
    if isinstance(value, Mapping):
        return {key: to_json(f"{name}[{key!r}]", item) for key, item in value.items()}
    for kind, known in _CLASSES.items():
        if isinstance(value, type) and known.get(value.__name__) is value:
            return {kind: value.__name__}
    if callable(value) and is_storable_schedule(value):
        return schedule_to_json(value)
    raise UserError(f"The argument {name}={short(value)} can't be stored without a pickle: use plain data.")


def _needs_pairs(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping has keys that JSON has not, or would be taken for a class or a schedule."""
    return not all(type(key) is str for key in value) or (len(value) == 1 and value.keys() <= _SPECIAL)


def from_json(name: str, data: Any) -> Any:
    """
    Inverse of :func:`to_json` (tuples come back as lists).

    :raises UserError: for an unknown activation or optimizer
    """
    if isinstance(data, dict) and len(data) == 1:
        (kind, value), *_ = data.items()
        known = _CLASSES.get(kind)
        if known is not None:
            if str(value) not in known:
                raise UserError(f"{name} is the {kind} {short(value)}; known are {', '.join(known)}.")
            return known[str(value)]
        if kind == "linear":
            return schedule_from_json(data)
        if kind == "pairs":
            return _from_pairs(name, value)
    if isinstance(data, dict):
        return {key: from_json(key, item) for key, item in data.items()}
    if isinstance(data, list):
        items = [from_json(name, item) for item in data]
        return tuple(items) if name == "train_freq" else items
    return data


def _from_pairs(name: str, pairs: Any) -> dict[Any, Any]:
    if not (isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)):
        raise UserError(f"{name} has the pairs {short(pairs)}, which are not of a key and a value.")
    keys = [from_json(name, key) for key, _ in pairs]
    if any(isinstance(key, list | dict) for key in keys):
        raise UserError(f"{name} has the keys {short(keys)}: a key is a number or a word.")
    return {key: from_json(f"{name}[{key!r}]", item) for key, (_, item) in zip(keys, pairs, strict=True)}
