"""``policy.save`` and ``Policy.load``: a policy without its algorithm, in a file without pickles."""

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from torch import Tensor

from sb3_genoffline.common.arguments import ArgumentTable, as_device
from sb3_genoffline.common.plain import from_json, to_json
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.archive import (
    FORMAT_VERSION,
    CheckpointError,
    PathOrFile,
    read_archive,
    read_tensors,
    space_to_json,
    tree_to_members,
    write_archive,
)
from sb3_genoffline.files.untrusted import box_from_json, check_sizes, check_tensors, entry, parse_json, short

PolicyT = TypeVar("PolicyT")


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state without what ``torch.compile`` puts into the names of the modules that it wraps."""
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}


@contextmanager
def global_rng_preserved() -> Iterator[None]:
    """Leave Python's, numpy's and torch's global generators as they were found."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with th.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def blamed_on(name: str) -> Iterator[None]:
    """Whatever goes wrong inside is a fault of the file: a :class:`CheckpointError` that says so."""
    try:
        yield
    except (CheckpointError, MemoryError, th.OutOfMemoryError):
        raise
    except Exception as error:
        raise CheckpointError(f"{name} does not describe a valid agent ({type(error).__name__}: {error}).") from error


def arguments_to_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Checked arguments -> plain data."""
    return {name: to_json(name, value) for name, value in values.items()}


def arguments_from_json(data: Mapping[str, Any], table: ArgumentTable) -> dict[str, Any]:
    """
    Inverse of :func:`arguments_to_json`; the data are not trusted.

    :param data: by name
    :param table: what there is
    :raises UserError: naming an argument that is unknown or wrong, or whose value would make the constructor read a file
    """
    for name, value in data.items():
        if value is not None and name in table.arguments and table.arguments[name].names_file:
            raise UserError(f"{name}={short(value)} names a file to read, which an agent's file must not do")
    return table.check({name: from_json(name, value) for name, value in data.items()})


def sizing(arguments: Mapping[str, Any], table: ArgumentTable) -> dict[str, Any]:
    """Of a policy's arguments those that may size its networks, for :func:`~sb3_genoffline.files.untrusted.check_sizes`."""
    return {name: value for name, value in arguments.items() if table.arguments[name].is_size}


def save_policy(policy: Any, path: PathOrFile) -> None:
    """
    :param policy: an ``OfflinePolicy``
    :param path: file name (``.zip`` is added) or open binary file
    """
    table: ArgumentTable = policy.argument_table()
    given = {name: value for name, value in policy.constructor_values.items() if name in table.arguments}
    settings = {name: getattr(policy, name) for name in policy.acting_settings}  # they may have been set since
    data = {
        "format_version": FORMAT_VERSION,
        "policy_class": type(policy).__name__,
        "observation_space": space_to_json(policy.observation_space),
        "action_space": space_to_json(policy.action_space),
        "arguments": arguments_to_json(table.check(given | settings)),
        "acting_seed": policy.acting_seed,
        "fitted_with": policy.fitted_with,
    }
    tensors = {name: tensor.cpu().contiguous() for name, tensor in plain_names(policy.state_dict()).items()}
    weights = tree_to_members(tensors, "policy")["policy.safetensors"]
    write_archive(path, {"policy.json": json.dumps(data, indent=2).encode(), "policy.safetensors": weights})


def load_policy(cls: type[PolicyT], path: PathOrFile, device: th.device | str) -> PolicyT:
    """
    Inverse of :func:`save_policy`; the file is not trusted.

    :param cls: class of the policy
    :param path: file name or open binary file
    :param device: of the networks
    """
    device = as_device(device)
    members, name = read_archive(path), f"{path}"
    if "policy.json" not in members:
        raise CheckpointError(f"{name} does not hold a policy of its own: load an agent's file with the agent's class.")
    data = parse_json(members["policy.json"], f"{name}: the member 'policy.json'", strict=False)
    if entry(data, "policy_class", str, name) != cls.__name__:
        raise CheckpointError(f"{name} holds a {short(data['policy_class'])}, not a {cls.__name__}.")
    tensors = read_tensors(members, "policy.safetensors")
    observation_space, action_space = (space_of(data, key, name) for key in ("observation_space", "action_space"))
    with blamed_on(name), global_rng_preserved():
        table: ArgumentTable = cls.argument_table()  # type: ignore[attr-defined]
        arguments = arguments_from_json(entry(data, "arguments", dict[str, Any], name), table)
        n_stored = sum(tensor.numel() for tensor in tensors.values())
        check_sizes(sizing(arguments, table), observation_space.shape[0], action_space.shape[0], n_stored)
        policy: Any = cls(observation_space, action_space, lambda _: 0.0, **arguments)  # type: ignore[call-arg]
    load_tensors_into(policy, tensors, "policy.safetensors")
    policy.seed_acting(entry(data, "acting_seed", int, name))
    policy.fitted_with = facts_of(data, name) or {}
    policy.set_training_mode(False)
    return policy.to(device)  # type: ignore[no-any-return]


def load_tensors_into(policy: Any, tensors: Mapping[str, Tensor], name: str) -> None:
    """
    Check what a file holds against the policy, and take it over.

    :param policy: an ``OfflinePolicy``
    :param tensors: its whole state, or that of acting alone
    :param name: of the file, for the error
    """
    own = policy.state_dict()
    acting = plain_names(policy.acting_state_dict()).keys()
    whole = policy.with_spare_modules(tensors) if tensors.keys() == acting else tensors
    check_tensors(whole, plain_names(own), name)
    policy.load_state_dict({compiled: whole[plain] for compiled, plain in zip(own, plain_names(own), strict=True)})


def facts_of(data: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """What a fitted model was fitted with, by a description that is not trusted; None where it does not say."""
    hint = dict[str, str | float | bool | list[float | str] | None] | None
    facts: dict[str, Any] | None = entry({"fitted_with": None} | dict(data), "fitted_with", hint, name)
    return facts


def space_of(data: Mapping[str, Any], key: str, name: str) -> spaces.Box:
    """The space of this name in an agent's description, which is not trusted."""
    return box_from_json(entry(data, key, dict[str, Any], name), f"{name}: {key}")
