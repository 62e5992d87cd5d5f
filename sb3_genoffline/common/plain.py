"""Arguments as plain data, for files: JSON for numbers, words and lists, names for the few classes that may be stored."""

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.type_aliases import TrainFreq

from sb3_genoffline.common.arguments import ACTIVATIONS, OPTIMIZERS
from sb3_genoffline.common.schedules import is_storable_schedule, schedule_from_json, schedule_to_json
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short

_CLASSES: dict[str, Mapping[str, type]] = {"activation": ACTIVATIONS, "optimizer": OPTIMIZERS}


def to_json(name: str, value: Any) -> Any:
    """
    :param name: of the argument, for the error
    :param value: as :meth:`~sb3_genoffline.common.arguments.Argument.check` returns it, or a ``TrainFreq``
    :return: plain data for :func:`from_json`
    :raises UserError: naming an argument that can't be stored without a pickle
    """
    if isinstance(value, TrainFreq):
        return [value.frequency, value.unit.value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [to_json(name, item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_json(f"{name}[{key!r}]", item) for key, item in value.items()}
    for kind, known in _CLASSES.items():
        if isinstance(value, type) and known.get(value.__name__) is value:
            return {kind: value.__name__}
    if callable(value) and is_storable_schedule(value):
        return schedule_to_json(value)
    raise UserError(f"The argument {name}={short(value)} can't be stored without a pickle: use plain data.")


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
    if isinstance(data, dict):
        return {key: from_json(key, item) for key, item in data.items()}
    if isinstance(data, list):
        items = [from_json(name, item) for item in data]
        return tuple(items) if name == "train_freq" else items
    return data
