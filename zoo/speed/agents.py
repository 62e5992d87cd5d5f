"""Agents whose updates are timed, on data that say nothing."""

import importlib
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_genoffline import ALGOS
from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.errors import UserError

from ..runs.hyperparameters import load_hyperparameters, own_file, read_yaml

SHAPES = {"hopper": (11, 3), "halfcheetah": (17, 6), "walker2d": (17, 6), "antmaze": (29, 8)}
N_ROWS = 100_000
"""Of the data that updates are timed on."""
_NOT_PLAIN = ("critic_layer_norm", "critic_activation_fn", "activation_fn")
"""What the plain forms do not have, and the profile for a CPU has."""


def setting_arguments(algo: str, setting: str) -> dict[str, Any]:
    """
    :param algo: name in ``ALGOS``
    :param setting: ``"paper"``: the constructor's defaults; ``"light"``: the profile for a CPU with the networks of the plain
        forms; else another profile, or a dataset with an entry of its own
    :raises UserError: naming the settings that there are
    """
    if setting == "paper":
        return {}
    content = read_yaml(own_file(ALGOS[algo])) if own_file(ALGOS[algo]).is_file() else {}
    profiles = content.get("profiles") or {}
    profile = "cpu" if setting == "light" else setting
    if profile in profiles:
        found = dict(load_hyperparameters(algo, "default", profile).arguments)
        if setting == "light":
            kwargs = found.get("policy_kwargs") or {}
            found["policy_kwargs"] = {name: value for name, value in kwargs.items() if name not in _NOT_PLAIN}
        return found
    if setting not in content:
        known = ["paper", *(["light"] if "cpu" in profiles else []), *profiles]
        raise UserError(f"--setting {setting} is not known; use one of {', '.join(known)}, or a dataset with an entry.")
    return load_hyperparameters(algo, setting).arguments


def synthetic_data(obs_dim: int, action_dim: int, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random transitions, each of which goes on from the last: speed does not depend on what they say."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(n + 1, obs_dim)).astype(np.float32)
    return {
        "observations": states[:-1],
        "actions": rng.uniform(-1, 1, (n, action_dim)).astype(np.float32),
        "rewards": rng.normal(size=n).astype(np.float32),
        "next_observations": states[1:],
        "terminals": np.arange(1, n + 1) % 100 == 0,
        "timeouts": np.zeros(n, dtype=bool),
    }


def measure(run: Callable[[], Any], repeats: int, device: th.device) -> float:
    """Seconds per call."""
    if device.type == "cuda":
        th.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    if device.type == "cuda":
        th.cuda.synchronize(device)
    return (time.perf_counter() - start) / repeats


def plain_form(cls: type[AnyAlgorithm]) -> Callable[[Any], Any] | None:
    """
    :param cls: an algorithm
    :return: the class ``Plain<its name>`` of the module ``plain_<its key>`` here, or of the module ``plain`` beside its own:
        the update as one would first write it; None if nobody has
    """
    theirs = getattr(sys.modules.get(cls.__module__), "__package__", None)
    for name, package in ((f".plain_{cls.name}", __package__), (".plain", theirs)):
        if package and importlib.util.find_spec(name, package) is not None:
            found: Callable[[Any], Any] | None = getattr(importlib.import_module(name, package), f"Plain{cls.__name__}", None)
            return found
    return None


def make_agent(algo: str, shape: str, setting: str, device: str, **kwargs: Any) -> Any:
    """An agent of the given setting."""
    obs_dim, action_dim = SHAPES[shape]
    box = spaces.Box(-np.inf, np.inf, (obs_dim,)), spaces.Box(-1, 1, (action_dim,))
    arguments = setting_arguments(algo, setting) | kwargs
    return ALGOS[algo](next(iter(ALGOS[algo].policy_aliases)), box, seed=0, device=device, **arguments)


def build(algo: str, shape: str, setting: str, device: str, n_rows: int | None = None, **kwargs: Any) -> Any:
    """
    An agent of the given setting with its buffer filled, ready to update. Each fit takes one step, and everything learns from
    the first update on: updates cost the same however long what came before them was.
    """
    starts = {name: 0 for name in ALGOS[algo].argument_table().arguments if name.endswith(("_start", "warmup_steps"))}
    model = make_agent(algo, shape, setting, device, **{**starts, **kwargs})
    data = model.set_dataset(synthetic_data(*SHAPES[shape], n_rows or N_ROWS))
    if model.uses_fitted_model():
        model.begin_fits()
        for fit in model.fits.left:
            fit.n_steps = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about what was learned: nothing, and there was nothing to learn
        return model.learn_offline(data, gradient_steps=2, log_interval=None)


def make_fits(algo: str, shape: str, setting: str, device: str, n_rows: int | None = None) -> list[Fit]:
    """What an agent of the given setting fits before its updates, each fit ready for its first step."""
    model = make_agent(algo, shape, setting, device)
    model.set_dataset(synthetic_data(*SHAPES[shape], n_rows or N_ROWS))
    fits: list[Fit] = model.make_fits() if model.uses_fitted_model() else []
    for fit in fits:
        fit.begin()
    return fits
