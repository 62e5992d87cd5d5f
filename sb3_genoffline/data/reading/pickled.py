"""
Replay buffers that stable-baselines3 saved. Its files are pickles; here their arrays, spaces and counters are read as data.

Nothing that a pickle names is imported or called: each name stands for a :class:`_Named` that keeps what it is given, and only
arrays of plain numbers, boxes and dicts of boxes are made of those.
"""

import io
import math
import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from sb3_genoffline.errors import UserError

_COUNTERS = ("buffer_size", "n_envs", "pos", "full", "optimize_memory_usage")
_DEEPEST = 8


class _Named:
    """Something that a pickle makes by calling a name: what it gave to the call, and what it set afterwards."""

    name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Named":
        made = super().__new__(cls)
        made.args, made.state, made.entries = args, None, {}
        return made

    args: tuple[Any, ...]
    state: Any
    entries: dict[Any, Any]

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value


def _load_bytes(reader: Any) -> None:
    """Python's own makes room for as many as the pickle says before it looks whether they are there."""
    reader.append(bytearray(reader.read(int.from_bytes(reader.read(8), "little"))))


class _Reader(pickle._Unpickler):  # the one in Python, whose memory a file can't make larger than itself
    def find_class(self, module: str, name: str) -> Any:
        return type("_Named", (_Named,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside the file")

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("it uses a registry of extensions")

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _load_bytes}


def read_replay_buffer(path: Path) -> Any:
    """
    :param path: What ``model.save_replay_buffer(path)`` of stable-baselines3 wrote.
    :return: Something with the attributes of a ``ReplayBuffer`` that
        :func:`~sb3_genoffline.data.reading.replay.from_replay_buffer` needs.
    :raises UserError: If it is another pickle, a damaged one, or holds something else than numbers.
    """
    try:
        return _buffer(_Reader(io.BytesIO(path.read_bytes())).load())
    except Exception as error:  # whatever a pickle of something else, or a hostile one, makes of it
        raise UserError(
            f"{path} is a pickle, of which only replay buffers of stable-baselines3 are read, as data, without running what "
            f"they name; this is not one ({type(error).__name__}: {str(error)[:200]}). If you trust it, load it with its "
            "agent and pass the buffer: model.load_replay_buffer(path), then load_dataset(model.replay_buffer)."
        ) from error


def _buffer(stored: Any) -> Any:
    state = _state(stored)
    found: dict[str, Any] = {name: state[name] for name in _COUNTERS}
    size, n_envs = found["buffer_size"], found["n_envs"]
    if not all(isinstance(value, int) for value in found.values()) or not 0 <= found["pos"] <= size or n_envs < 1:
        raise ValueError("its counters are not numbers")
    found |= {name: _space(state[name]) for name in ("observation_space", "action_space")}
    shapes = dict.fromkeys(("rewards", "dones", "timeouts")) | {"actions": found["action_space"]}
    shapes["observations"] = found["observation_space"]
    if not found["optimize_memory_usage"]:
        shapes["next_observations"] = found["observation_space"]
    found |= {name: _rows(state[name], space, (size, n_envs)) for name, space in shapes.items()}
    return SimpleNamespace(**found, size=lambda: size if found["full"] else found["pos"])


def _rows(value: Any, space: Any, rows: tuple[int, int]) -> Any:
    """Arrays of (rows, environments, ...); a number in each where there is no space."""
    if isinstance(space, spaces.Dict):
        return {key: _rows(value[key], box, rows) for key, box in space.items()}
    array, expected = _array(value), rows if space is None else (*rows, *space.shape)
    if array.shape != expected:
        raise ValueError(f"an array has the shape {array.shape}, not {expected}")
    return array


def _state(value: Any) -> dict[str, Any]:
    if not isinstance(value, _Named) or not isinstance(value.state, dict):
        raise ValueError(f"a {type(value).__name__} is where an object should be")
    return value.state


def _array(value: Any) -> np.ndarray:
    """An array of plain numbers, in either form in which numpy pickles one."""
    if not isinstance(value, _Named):
        raise ValueError(f"a {type(value).__name__} is where an array should be")
    if value.name.endswith("._frombuffer"):
        raw, dtype, shape, order = value.args
    elif value.name.endswith("._reconstruct"):
        _, shape, dtype, by_columns, raw = value.state
        order = "F" if by_columns else "C"
    else:
        raise ValueError(f"{value.name} is where an array should be")
    if not isinstance(raw, bytes | bytearray) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("an array is damaged")
    numbers: np.ndarray = np.frombuffer(raw, _dtype(dtype))
    numbers = numbers.view(np.uint8) != 0 if numbers.dtype == np.bool_ else numbers
    if numbers.size != math.prod(shape):
        raise ValueError(f"an array has {numbers.size} numbers and the shape {shape}")
    return numbers.reshape(shape, order="F" if order == "F" else "C")


def _dtype(value: Any) -> np.dtype[Any]:
    if not isinstance(value, _Named) or value.name != "numpy.dtype" or not isinstance(value.state, tuple):
        raise ValueError("an array has no dtype")
    kind, order = value.args[0], value.state[1]
    if not isinstance(kind, str) or not re.fullmatch(r"[biuf][1248]", kind) or order not in ("<", ">", "=", "|"):
        raise ValueError(f"an array has the dtype {kind!r}")
    return np.dtype(kind).newbyteorder(order)


def _space(value: Any, depth: int = 0) -> spaces.Space[Any]:
    state = _state(value)
    if isinstance(value, _Named) and value.name.endswith(".Box"):
        low, high = _array(state["low"]), _array(state["high"])
        return spaces.Box(low, high, dtype=low.dtype.type)
    if isinstance(value, _Named) and value.name.endswith(".Dict") and depth < _DEEPEST:
        inner = state["spaces"].entries if isinstance(state["spaces"], _Named) else state["spaces"]
        return spaces.Dict({key: _space(item, depth + 1) for key, item in inner.items()})
    raise ValueError(f"the space {value.name} is not read")
