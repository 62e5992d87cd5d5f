"""Arguments of algorithms as plain data."""

from typing import Any

import numpy as np
from stable_baselines3.common.type_aliases import TrainFreq
from torch import nn

from sb3_genoffline.common.schedules import schedule_from_json, schedule_to_json
from sb3_genoffline.files.archive import CheckpointError
from sb3_genoffline.nets.activations import Mish

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    cls.__name__: cls for cls in (Mish, nn.ReLU, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU, nn.LeakyReLU)
}


def hyperparameter_to_json(name: str, value: Any) -> Any:
    """
    :param name: of the hyper-parameter, for the error
    :param value: number, string, None, list, tuple, dict, schedule, ``TrainFreq`` or a known activation class
    :return: plain data for :func:`hyperparameter_from_json`
    :raises ValueError: naming the hyper-parameter that can't be stored without a pickle
    """
    if isinstance(value, TrainFreq):
        return [value.frequency, value.unit.value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.integer | np.floating):
        return value.item()
    if isinstance(value, list | tuple):
        return [hyperparameter_to_json(name, item) for item in value]
    if isinstance(value, dict):
        return {key: hyperparameter_to_json(f"{name}[{key!r}]", item) for key, item in value.items()}
    for activation_name, activation in _ACTIVATIONS.items():
        if value is activation:
            return {"activation": activation_name}
    if callable(value) and name.endswith("learning_rate"):
        return schedule_to_json(value)
    raise ValueError(f"The hyper-parameter {name}={value!r} can't be stored without a pickle: use plain data.")


def hyperparameter_from_json(name: str, data: Any) -> Any:
    """Inverse of :func:`hyperparameter_to_json` (tuples come back as lists)."""
    if name == "train_freq" and isinstance(data, list):
        return tuple(data)
    if isinstance(data, dict) and data.keys() == {"activation"}:
        activation = _ACTIVATIONS.get(str(data["activation"]))
        if activation is None:
            raise CheckpointError(f"{name} is the activation {data['activation']!r}; known are {', '.join(_ACTIVATIONS)}.")
        return activation
    if isinstance(data, dict) and data.keys() == {"linear"}:
        return schedule_from_json(data)
    if isinstance(data, dict):
        return {key: hyperparameter_from_json(key, item) for key, item in data.items()}
    if isinstance(data, list):
        return [hyperparameter_from_json(name, item) for item in data]
    return data
