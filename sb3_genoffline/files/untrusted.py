"""Reading what somebody else wrote: JSON, spaces, hyper-parameters, sizes, tensors. Every fault is a ``CheckpointError``."""

import json
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import torch as th
from gymnasium import spaces
from torch import Tensor

from sb3_genoffline.errors import UserError
from sb3_genoffline.files.archive import CheckpointError, check_json_size

MAX_SPACE_DIM = 100_000
# An upper bound on the networks' entries may be so many times what the file of the weights holds, or _FREE_ENTRIES
_LARGEST_EXCESS, _FREE_ENTRIES = 64, 2**26
_LARGEST = {
    **{"n_diffusion_steps": 10_000, "ddim_stride": 10_000, "n_action_samples": 100_000},
    **{"n_solver_steps": 10_000, "solver_order": 3, "n_selected": 100_000},
    **{"flow_transforms": 1000, "n_lstm_layers": 16, "context_length": 1000, "max_episode_steps": 10_000},
    **{"n_critics": 1000, "n_layers": 10_000, "n_blocks": 10_000, "flow_bins": 10_000},
    **{"horizon": 512, "n_plans": 100_000, "n_guide_steps": 1000, "guide_stop": 10_000, "replan_every": 512},
}
_WIDER = {"channels": 12}
# layers of these widths have so many times the widths' square of entries, squared: two U-Nets of convolutions
_MULTIPLIERS = {"n_critics": 1, "flow_transforms": 1, "flow_bins": 1, "n_lstm_layers": 1, "n_layers": 12, "n_blocks": 8}
# how many matrices of the widest layer's size each of them has
_LARGEST_WIDTH, _MOST_LAYERS, _DEFAULT_ENTRIES = 10_000_000, 64, 750**2


def parse_json(content: bytes, name: str, strict: bool = True) -> dict[str, Any]:
    """
    :param content: of a file or member
    :param name: of it, for the error
    :param strict: refuse NaN and infinities, which are no JSON
    :return: an object with string keys
    """

    def refuse(text: str) -> float:
        raise UserError(f"{text[:20]} is not a number in JSON")

    def finite(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) or not strict else refuse(text)

    def bounded(text: str) -> int:
        value = int(text)
        if abs(value) >= 2**63:
            raise UserError(f"{text[:20]}... is too large")
        return value

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) != len(dict(pairs)):
            raise UserError("a key appears twice in an object")
        return dict(pairs)

    check_json_size(content, name)
    constant = refuse if strict else float
    try:
        data = json.loads(content, parse_float=finite, parse_int=bounded, parse_constant=constant, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not JSON ({error}); take another copy.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{name} does not hold a JSON object but a {type(data).__name__}; take another copy.")
    return data


def entry(data: Mapping[str, Any], key: str, hint: Any, name: str) -> Any:
    """
    :param data: an object that was read
    :param key: of the entry
    :param hint: type annotation that its value must conform to
    :param name: of the object, for the error
    :return: the value
    """
    if key not in data:
        raise CheckpointError(f"{name} has no {key!r}: it is incomplete, take another copy.")
    if not conforms(data[key], hint):
        raise CheckpointError(f"{name} has {key}={short(data[key])}, which is not of the type {readable(hint)}.")
    return data[key]


def short(value: Any) -> str:
    """The start of a value's ``repr``, for an error."""
    try:
        text = repr(value)
    except Exception as error:  # nested too deeply
        return f"<{type(value).__name__}: {type(error).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."


def readable(hint: Any) -> str:
    """A type annotation for an error."""
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def conforms(value: Any, hint: Any, strict: bool = False) -> bool:
    """
    :param value: plain data, an activation class or a schedule
    :param hint: type annotation
    :param strict: a whole float is no integer
    :return: whether the value is of that type; an integer is a float too, a whole float an integer, a list any sequence
    """

    if hint in (int, float):  # first: there may be millions of numbers
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return hint is float or isinstance(value, int) or (value.is_integer() and not strict)

    def fits(part: Any, part_hint: Any) -> bool:
        return conforms(part, part_hint, strict)

    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in arguments)
    if origin is Callable or hint is Callable:
        return callable(value)
    if origin is type:
        return isinstance(value, type) and issubclass(value, arguments[0])
    if origin is tuple and Ellipsis not in arguments:
        return isinstance(value, list | tuple) and len(value) == len(arguments) and all(map(fits, value, arguments))
    if origin in (list, tuple, Sequence):
        return isinstance(value, list | tuple) and all(fits(item, arguments[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(fits(k, arguments[0]) and fits(v, arguments[1]) for k, v in value.items())
    return isinstance(hint, type) and isinstance(value, hint)


def box_from_json(data: Any, name: str) -> spaces.Box:
    """
    :param data: as :func:`~sb3_genoffline.files.archive.space_to_json` makes it of a one-dimensional box; infinite
        bounds may be the strings ``"inf"`` and ``"-inf"``
    :param name: of the space, for the error
    """
    if not conforms(data, dict[str, Any]) or data.get("type") != "Box":
        raise CheckpointError(f"{name} is {short(data)}, not the Box that an agent has.")
    dtype = entry(data, "dtype", str, name)
    shape = entry(data, "shape", list[int], name)
    if not re.fullmatch(r"(float|u?int)(8|16|32|64)|bool", dtype) or dtype == "float8":
        raise CheckpointError(f"{name} has the dtype {short(dtype)}, which is not numeric.")
    if len(shape) != 1 or not 1 <= shape[0] <= MAX_SPACE_DIM:
        raise CheckpointError(f"{name} has the shape {short(shape)}; an agent's has one axis of 1 to {MAX_SPACE_DIM:,}.")
    bounds = []
    for key in ("low", "high"):
        values = entry(data, key, list[float | bool | Literal["inf", "-inf"]], name)
        if len(values) != shape[0]:
            raise CheckpointError(f"{name} has {len(values)} numbers as {key} and the shape {shape}.")
        bounds.append([float(value) for value in values])
    try:
        with np.errstate(over="raise", invalid="raise"):
            low, high = (np.array(values).astype(dtype) for values in bounds)
        if not (low <= high).all():
            raise UserError("low is above high, or not a number")
        return spaces.Box(low, high, dtype=np.dtype(dtype).type)
    except (ValueError, ArithmeticError, AssertionError) as error:
        raise CheckpointError(f"{name} has bounds that don't make a Box: {error}.") from error


def check_sizes(arguments: Mapping[str, Any], state_dim: int, action_dim: int, n_stored: int | None) -> None:
    """
    Refuse sizes that no agent has: an upper bound on a network's entries from the widths of all layers, compared with what the
    file of the weights holds. It is asked before anything is built of a file, and of what a constructor has built: what can be
    made can be loaded.

    :param arguments: of the policy
    :param state_dim: S
    :param action_dim: A
    :param n_stored: entries that the weights have, in the file or built; None before anything is built: each size alone is
        checked
    :raises CheckpointError: naming the size
    """
    total, multiplier, widest = 0, 1, ("", 0)
    for name, value in arguments.items():
        sizes = _integers(value)
        largest = _LARGEST.get(name, _LARGEST_WIDTH)
        if len(sizes) > _MOST_LAYERS or any(not 0 <= size <= largest for size in sizes):
            raise CheckpointError(
                f"The agent has {name}={short(value)}, out of bounds (0 to {largest:,}): refused, here and in files."
            )
        if name in _MULTIPLIERS:
            multiplier *= _MULTIPLIERS[name] * max(1, *sizes) if sizes else 1
        elif name not in _LARGEST:
            total += _WIDER.get(name, 1) * sum(sizes)
        widest = max(widest, (f"{name}={short(value)}", sum(sizes)), key=lambda setting: setting[1])
    if n_stored is None:
        return
    ends = state_dim + action_dim + 64  # 64: features of time
    # Whatever the order of the layers and whoever multiplies one width by another: no product is missing in a square
    bound = multiplier * (ends * (action_dim + 2 * total) + total**2 + _DEFAULT_ENTRIES)
    if bound > max(_LARGEST_EXCESS * n_stored, _FREE_ENTRIES):
        raise CheckpointError(
            f"The agent's settings ({widest[0]}, ...) ask for networks of up to {bound:,} numbers, and its weights are "
            f"{n_stored:,}: refused, as such a file could fill the memory of whoever loads it."
        )


def _integers(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [size for item in value.values() for size in _integers(item)]
    if isinstance(value, list | tuple):
        return [size for item in value for size in _integers(item)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> None:
    """
    :param found: tensors of a file
    :param expected: those of a new policy of the same settings
    :param name: of the file, for the error
    :raises CheckpointError: if names, shapes or types differ, or a number is not finite where the new policy's is
    """
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or surplus:
        parts = [f"{what} {', '.join(names[:3])}" for what, names in (("lacks", missing), ("has also", surplus)) if names]
        raise CheckpointError(f"{name}: the weights do not fit the agent's hyper-parameters: the file {', and '.join(parts)}.")
    for key, tensor in found.items():
        own = expected[key]
        for what, theirs, ours in (("shape", list(tensor.shape), list(own.shape)), ("type", tensor.dtype, own.dtype)):
            if theirs != ours:
                raise CheckpointError(
                    f"{name}: the weights do not fit the agent's hyper-parameters: {key} has the {what} {theirs}, not {ours}."
                )
        if tensor.is_floating_point() and not bool((tensor.isfinite() | (tensor == own.to(tensor.device))).all()):
            count = int((~th.isfinite(tensor)).sum())
            raise CheckpointError(f"{name}: {key} has {count} entries that are not finite: the agent can't act, refused.")
