"""A tiny world for the tests of every algorithm: environment, dataset, and agents that train in milliseconds."""

import functools
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch as th
import yaml
from stable_baselines3.common.utils import LinearSchedule

import sb3_genoffline
from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.registry import ALGOS
from sb3_genoffline.testing import ACTION_SPACE, OBSERVATION_SPACE, PointEnv, point_dataset

# What an algorithm rightly says about a world of random numbers
EXPECTED_WARNINGS = "The uncertainty H is no larger|This training ends after"
EXAMPLES = ("spot", "td3_bc")
"""An algorithm that fits a model first and one that does not: for questions about code that all share."""
FITTING = tuple(name for name, cls in ALGOS.items() if next(iter(cls.policy_aliases.values())).fitted_model)
"""The algorithms that fit a model before their policy."""
KINDS = ("bc", "decision_transformer", "dql", "qdq")
"""
One algorithm for each way through the code that they share: without critics; of windows, with a memory; a diffusion policy
with targets; and critics after a model that is fitted in two phases. What no algorithm has code of its own for is asked of
these.
"""
of_each_kind = pytest.mark.parametrize("algo", KINDS)
TRAINING_SETTINGS: dict[str, Any] = {
    "lr_decay_steps": 20,
    "learning_rate": LinearSchedule(1e-3, 1e-4, 1.0),
    "normalize_observations": True,
    "replacement": True,
}
"""What every algorithm has that a training depends on, with values that are not the default."""
SHARED = {"batch_size": 16, "seed": 0, "device": "cpu", "reward_transform": "reward_normalize"}

N_ROWS = 60  # four batches of 16, 16, 16 and 12

gym.register("genoffline-tests/Point-v0", entry_point=PointEnv)


def make_dataset(seed: int = 0) -> OfflineDataset:
    """60 rows of the point's world in episodes of 10, of which every other one terminates."""
    return point_dataset(seed, N_ROWS)


def make_batch(n: int = 12, seed: int = 0) -> TransitionBatch:
    """B random transitions of 3 state and 2 action dimensions in the default dtype, a third of them terminal."""
    rng = th.Generator().manual_seed(seed)
    states, next_states = th.randn(2, n, 3, generator=rng)
    return TransitionBatch(
        observations=states,
        actions=th.rand(n, 2, generator=rng) * 2 - 1,
        rewards=th.randn(n, generator=rng),
        next_observations=next_states,
        masks=(th.arange(n) % 3 > 0).to(states.dtype),
    )


@functools.cache
def _tiny_profile(algo: str) -> str:
    file = Path(sb3_genoffline.__file__).parent / algo / "hyperparameters.yml"
    return json.dumps(yaml.safe_load(file.read_text())["profiles"]["tiny"]["default"])


def small_settings(algo: str) -> dict[str, Any]:
    """Arguments that make an algorithm small: its profile ``tiny``."""
    settings: dict[str, Any] = json.loads(_tiny_profile(algo))
    settings.pop("n_timesteps")
    return settings


def make_agent(algo: str, env: Any = (OBSERVATION_SPACE, ACTION_SPACE), **changes: Any) -> OfflineAlgorithm:
    """A small agent; ``changes`` are constructor arguments."""
    return ALGOS[algo]("MlpPolicy", env, **(SHARED | small_settings(algo) | changes))


def members(source: Any) -> dict[str, bytes]:
    """Contents of a saved agent (a path), or of an agent as it would be saved now."""
    if isinstance(source, OfflineAlgorithm):
        file = io.BytesIO()
        source.save(file)
        source = file
    with zipfile.ZipFile(source) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def snapshot(source: Any) -> dict[str, bytes]:
    """What must agree, bit for bit, between two equal agents: weights, counters, optimizers, generators, sampler."""
    found = members(source)
    return {name: found[name] for name in ("data", "policy.safetensors", "training.json", "training.safetensors")}


def differing(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """Names of the members that differ."""
    assert first.keys() == second.keys()
    return [name for name, content in first.items() if second[name] != content]
