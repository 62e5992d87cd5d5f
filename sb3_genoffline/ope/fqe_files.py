"""A fit of FQE as a file. Files of others choose values, never sizes: all is checked before anything is taken over."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import Tensor

from sb3_genoffline.common.arguments import Count, Share
from sb3_genoffline.common.conforming import misfit
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.archive import (
    CheckpointError,
    PathOrFile,
    read_archive,
    tree_from_members,
    tree_to_members,
    write_archive,
)
from sb3_genoffline.files.untrusted import check_tensors, short
from sb3_genoffline.ope.acting import TargetPolicy
from sb3_genoffline.ope.q_fit import QFit

_MOST_UPDATES, _KEYS = 10**12, {"fit", "history", "clipped", "data", "settings", "policy"}
_FIT_KEYS = {"name", "step", "modules", "optimizers", "sampler", "actions"}
History = list[tuple[int, float]]


class FitIdentity(NamedTuple):
    """
    What a fit belongs to.

    :param data: fingerprint of the rows
    :param settings: arguments by name, plain data
    :param policy: that is judged
    :param observations: (K, S) few rows that policies are told apart by
    """

    data: str
    settings: Mapping[str, Any]
    policy: TargetPolicy
    observations: np.ndarray


def digest_of(array: np.ndarray) -> str:
    """Of an argument that is too large for a file of settings."""
    return hashlib.sha256(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def write_fit(path: PathOrFile, fit: QFit, history: History, clipped: float, identity: FitIdentity) -> None:
    """
    :param path: file name (``.zip`` is added) or open binary file
    :param fit: to go on with
    :param history: looks at the estimate
    :param clipped: share of the last targets beyond what is attainable
    :param identity: of the fit
    """
    tree = {
        "fit": fit.state_dict(),
        "history": [[step, value] for step, value in history],
        "clipped": clipped,
        "data": identity.data,
        "settings": dict(identity.settings),
        "policy": identity.policy.probe(identity.observations).as_dict(),
    }
    write_archive(path, tree_to_members(tree, "fqe"))


def read_fit(path: PathOrFile, fit: QFit, identity: FitIdentity, kept: set[tuple[int, bool]]) -> tuple[History, float]:
    """
    Go on with a fit of a file, which is left as it was where the file is refused.

    :param path: file name or open binary file
    :param fit: new, of the same arguments
    :param identity: of it
    :param kept: (M, cached) as the arguments allow them
    :return: looks at the estimate, and the share of the last targets beyond what is attainable
    :raises CheckpointError: if the file holds something else, or what no fit leaves
    :raises UserError: if it belongs to other data, settings or another policy
    """
    members = read_archive(path)
    tree = tree_from_members(members, "fqe") if "fqe.json" in members else None
    if not isinstance(tree, dict) or not tree.keys() >= {"fit", "history", "data"}:
        raise CheckpointError(f"{path} does not hold an FQE.")
    if tree.keys() != _KEYS:
        raise CheckpointError(f"{path} does not say with which settings and for which policy it was fitted: fit it anew.")
    _check_identity(path, tree, identity)
    state = _checked_state(path, tree["fit"], fit, kept)
    history, clipped = _checked_history(path, tree["history"], state["step"]), tree["clipped"]
    if misfit(clipped, Share) is not None:
        raise CheckpointError(f"{path} has clipped={short(clipped)}, no share of targets: take another copy.")
    fit.load_state_dict(state)
    return history, float(clipped)


def _check_identity(path: PathOrFile, tree: Mapping[str, Any], identity: FitIdentity) -> None:
    if tree["data"] != identity.data:
        raise UserError(f"{path} was fitted on other data than these: give the same ones.")
    theirs = tree["settings"]
    if not isinstance(theirs, dict) or theirs.keys() != identity.settings.keys():
        raise CheckpointError(f"{path} has the settings {short(theirs)}, which are not an FQE's: take another copy.")
    for name, ours in identity.settings.items():
        if repr(theirs[name]) != repr(ours):  # plain data, or whatever else stands in the file
            raise UserError(
                f"{path} was fitted with {name}={short(theirs[name])} and is loaded into an FQE with {name}={short(ours)}: "
                "make it with the same arguments."
            )
    probe = identity.policy.probe(identity.observations)
    try:
        same = probe.matches(tree["policy"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} has no readable actions of its policy: take another copy.") from error
    if not same:
        raise UserError(f"{path} was fitted for another policy, whose actions differ from this one's: give the same policy.")


def _checked_history(path: PathOrFile, history: Any, step: int) -> History:
    looks: list[Any] = history if isinstance(history, list) else [None]
    found: History = []
    for look in looks:
        pair: Any = look if isinstance(look, list) and len(look) == 2 else (None, None)
        at, value = pair
        last = found[-1][0] if found else 0
        if misfit(at, Count) is not None or misfit(value, float) is not None or not last <= int(at) <= step:
            raise CheckpointError(f"{path} has {short(look)} among its looks at the estimate: take another copy.")
        found.append((int(at), float(value)))
    return found


def _mapping(path: PathOrFile, name: str, value: Any, keys: set[Any]) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != keys:
        raise CheckpointError(f"{path} has {name}={short(value)}, without the parts that a fit has: take another copy.")
    return value


def _checked_state(path: PathOrFile, state: Any, fit: QFit, kept: set[tuple[int, bool]]) -> dict[str, Any]:
    """What a fit can take over without failing: no key, size or type of it is the file's choice."""
    own = fit.state_dict()
    if not isinstance(state, dict) or misfit(state.get("step"), Count) is not None or state["step"] > _MOST_UPDATES:
        step = state.get("step") if isinstance(state, dict) else state
        raise CheckpointError(f"{path} claims to have made {short(step)} updates: take another copy.")
    state = _mapping(path, "fit", state, _FIT_KEYS)
    modules = _mapping(path, "fit.modules", state["modules"], set(own["modules"]))
    for name, expected in own["modules"].items():
        _check_tensors(path, modules[name], expected, name)
    optimizers = _mapping(path, "fit.optimizers", state["optimizers"], set(own["optimizers"]))
    averaged = {
        name: _checked_optimizer(path, optimizers[name], fit.optimizers[name], state["step"]) for name in own["optimizers"]
    }
    return {
        "step": state["step"],
        "modules": modules,
        "optimizers": averaged,
        "sampler": _checked_sampler(path, state["sampler"], own["sampler"], len(fit.sampler)),
        "actions": _checked_actions(path, state["actions"], own["actions"], kept, state["step"]),
    }


def _check_tensors(path: PathOrFile, found: Any, expected: Mapping[Any, Tensor], name: str) -> None:
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise CheckpointError(f"{path} has {name}={short(found)}, which are no weights: take another copy.")
    check_tensors(found, {key: value.cpu() for key, value in expected.items()}, f"{path}, {name}")
    for key, value in found.items():
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path} has entries of {name}.{key} that are not finite: take another copy.")


def _checked_optimizer(path: PathOrFile, state: Any, optimizer: th.optim.Optimizer, step: int) -> dict[str, Any]:
    averages: dict[Any, Any] = _mapping(path, "fit.optimizer", state, {"state", "param_groups"})["state"]
    parameters = optimizer.param_groups[0]["params"] if step else []
    _mapping(path, "fit.optimizer.state", averages, set(range(len(parameters))))
    for number, parameter in enumerate(parameters):
        shape = parameter.detach()
        expected = {"step": th.zeros(()), "exp_avg": shape, "exp_avg_sq": shape}
        _check_tensors(path, averages[number], expected, f"optimizer.{number}")
        if bool((averages[number]["exp_avg_sq"] < 0).any()) or float(averages[number]["step"]) < 0:
            raise CheckpointError(f"{path} has squares below 0 in optimizer.{number}: take another copy.")
    return {"state": averages, "param_groups": optimizer.state_dict()["param_groups"]}


def _check_streams(path: PathOrFile, streams: list[Any], own: list[Tensor]) -> None:
    """Whether generators of this machine can stand there."""
    good = len(streams) == len(own)
    for theirs, ours in zip(streams, own, strict=False):
        good = good and isinstance(theirs, Tensor) and theirs.dtype == ours.dtype and theirs.shape == ours.shape
        if good and len(ours) > 16:  # a CUDA generator's has 16 bytes, any of which will do
            try:
                th.Generator().set_state(theirs)
            except RuntimeError:
                good = False
    if not good:
        raise CheckpointError(
            f"{path} has no state of random numbers for these devices: give FQE and policy those they had, or another copy."
        )


def _checked_sampler(path: PathOrFile, state: Any, own: Mapping[str, Any], n_rows: int) -> dict[str, Any]:
    found = _mapping(path, "fit.sampler", state, set(own))
    if misfit(found["cursor"], Count) or found["cursor"] > n_rows or not isinstance(found["mid_epoch"], bool):
        raise CheckpointError(f"{path} stands at row {short(state['cursor'])} of {n_rows}: take another copy.")
    if found["device"] == own["device"]:
        _check_streams(path, [found["rng"], found["online_rng"]], [own["rng"], own["online_rng"]])
    elif found["device"] not in ("cpu", "cuda", "mps"):
        raise CheckpointError(f"{path} drew its rows on the device {short(state['device'])}: take another copy.")
    return found


def _checked_actions(
    path: PathOrFile, state: Any, own: Mapping[str, Any], kept: set[tuple[int, bool]], step: int
) -> dict[str, Any]:
    found = _mapping(path, "fit.actions", state, set(own))
    asked = (found["n"], found["cached"])
    good = misfit(asked[0], Count) is None and isinstance(asked[1], bool)
    if not good or asked not in (kept if step else kept | {(0, False)}):
        raise CheckpointError(
            f"{path} asks for n={short(asked[0])} actions in a state, cached={short(asked[1])}, which these arguments don't "
            "give: take another copy."
        )
    _check_streams(path, found["stream"] if isinstance(found["stream"], list) else [], own["stream"])
    return found
