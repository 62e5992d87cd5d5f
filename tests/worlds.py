"""A tiny world for the tests of every algorithm: environment, dataset, and agents that train in milliseconds."""

import functools
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
import yaml
from gymnasium import spaces

import sb3_genoffline
from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.registry import ALGOS

# What an algorithm rightly says about a world of random numbers
EXPECTED_WARNINGS = "The uncertainty H is no larger"
EXAMPLES = ("spot", "td3_bc")
"""An algorithm that fits a model first and one that does not: for questions about code that all share."""
FITTING = tuple(name for name, cls in ALGOS.items() if next(iter(cls.policy_aliases.values())).fitted_model)
"""The algorithms that fit a model before their policy."""
SHARED = {"batch_size": 16, "seed": 0, "device": "cpu", "reward_transform": "reward_normalize"}

OBSERVATION_SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTION_SPACE = spaces.Box(np.array([0, -2], np.float32), np.array([1, 5], np.float32))
N_ROWS = 60  # four batches of 16, 16, 16 and 12


class PointEnv(gym.Env):
    """
    A point that actions push. Episodes are cut after ``limit`` steps, or end where the point goes beyond ``goal``.

    :param dtype: of observations and of their space
    :param goal: where an episode terminates
    :param limit: steps after which it is truncated
    """

    action_space = ACTION_SPACE

    def __init__(self, dtype: Any = np.float32, goal: float = np.inf, limit: int = 5) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), dtype)
        self.dtype, self.goal, self.limit = dtype, goal, limit
        self.position, self.steps = np.zeros(3), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.normal(size=3), 0
        return self.position.astype(self.dtype), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(np.asarray(action, np.float32)), action
        self.steps += 1
        self.position = self.position + np.array([action[0], action[1], 1.0])
        reward = float(self.position[0] - abs(self.position[1]))
        ended = bool(self.position[2] > self.goal)
        return self.position.astype(self.dtype), reward, ended, self.steps >= self.limit and not ended, {}


gym.register("genoffline-tests/Point-v0", entry_point=PointEnv)


def make_dataset(seed: int = 0) -> OfflineDataset:
    """60 rows of the point's world in episodes of 10, of which every other one terminates."""
    rng = np.random.default_rng(seed)
    last = np.arange(N_ROWS) % 10 == 9
    even = np.arange(N_ROWS) // 10 % 2 == 0
    observations = rng.normal(2.0, 3.0, size=(N_ROWS, 3))
    following = np.where(last[:, None], rng.normal(2.0, 3.0, size=(N_ROWS, 3)), np.roll(observations, -1, axis=0))
    return OfflineDataset(
        observations=observations,
        actions=rng.uniform(ACTION_SPACE.low, ACTION_SPACE.high, size=(N_ROWS, 2)),
        rewards=rng.normal(size=N_ROWS),
        next_observations=following,
        terminations=last & even,
        truncations=last & ~even,
        observation_space=OBSERVATION_SPACE,
        action_space=ACTION_SPACE,
        id=f"tests/point-{seed}-v0",
        ref_min_score=-10.0,
        ref_max_score=30.0,
    )


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
