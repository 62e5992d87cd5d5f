"""Tiny agents and data for the tests of DAC."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from sb3_genoffline import DAC, OfflineDataset

STATE_DIM, ACTION_DIM = 3, 2


@pytest.fixture(scope="session")
def make_dac() -> Callable[..., DAC]:
    """A tiny agent: S = 3, A = 2, H = 3, N = 4, widths 8; any argument can be changed."""

    def make(**kwargs: Any) -> DAC:
        box = (spaces.Box(-np.inf, np.inf, (STATE_DIM,)), spaces.Box(-1, 1, (ACTION_DIM,)))
        env = kwargs.pop("env", box)
        settings = {
            "n_critics": 3,
            "n_q_samples": 4,
            "n_action_samples": 5,
            "batch_size": 16,
            "reward_transform": None,
            "seed": 0,
            "device": "cpu",
        }
        policy_kwargs = {"net_arch": [8, 8, 8]} | kwargs.pop("policy_kwargs", {})
        return DAC("DiffusionPolicy", env, **(settings | kwargs), policy_kwargs=policy_kwargs)

    return make


@pytest.fixture(scope="session")
def dataset() -> OfflineDataset:
    """50 rows: episodes of 10 steps, of which every other terminates."""
    rng = np.random.default_rng(0)
    n = 50
    last = np.arange(n) % 10 == 9
    return OfflineDataset(
        observations=rng.normal(size=(n, STATE_DIM)),
        actions=rng.uniform(-1, 1, size=(n, ACTION_DIM)),
        rewards=rng.normal(size=n),
        next_observations=rng.normal(size=(n, STATE_DIM)),
        terminations=last & (np.arange(n) // 10 % 2 == 0),
        truncations=last & (np.arange(n) // 10 % 2 == 1),
        observation_space=spaces.Box(-np.inf, np.inf, (STATE_DIM,)),
        action_space=spaces.Box(-1, 1, (ACTION_DIM,)),
    )
