"""Tiny agents, batches and data for the tests of QDQ."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_genoffline import OfflineDataset
from sb3_genoffline.qdq import QDQ

STATE_DIM, ACTION_DIM = 3, 2


@pytest.fixture(scope="session")
def make_qdq() -> Callable[..., QDQ]:
    """
    A tiny agent: S = 3, A = 2, n = 5, widths 8; its consistency model has random weights and counts as fitted, on returns
    from −20 to 60, so that H is a few units. Any argument can be changed.
    """

    def make(**kwargs: Any) -> QDQ:
        box = (spaces.Box(-np.inf, np.inf, (STATE_DIM,)), spaces.Box(-1, 1, (ACTION_DIM,)))
        env = kwargs.pop("env", box)
        settings = {"n_q_samples": 5, "batch_size": 16, "seed": 0, "device": "cpu"}
        policy_kwargs = {"net_arch": [8, 8], "q_net_arch": [8, 16]} | kwargs.pop("policy_kwargs", {})
        model = QDQ("ConsistencyQPolicy", env, **(settings | kwargs), policy_kwargs=policy_kwargs)
        model.policy.q_sampler.set_range(th.tensor([-20.0, 60.0]))
        model.policy.q_sampler.fitted.fill_(True)
        return model

    return make


@pytest.fixture(scope="session")
def make_data() -> Callable[..., OfflineDataset]:
    """60 rows in episodes of 10, of which every other one terminates; ``reward`` and the size of the actions are given."""

    def make(reward: float = 1.0, largest_action: float = 1.0) -> OfflineDataset:
        rng = np.random.default_rng(0)
        n = 60
        last, even = np.arange(n) % 10 == 9, np.arange(n) // 10 % 2 == 0
        return OfflineDataset(
            observations=rng.normal(size=(n, STATE_DIM)),
            actions=rng.uniform(-largest_action, largest_action, size=(n, ACTION_DIM)),
            rewards=np.full(n, reward),
            next_observations=rng.normal(size=(n, STATE_DIM)),
            terminations=last & even,
            truncations=last & ~even,
            observation_space=spaces.Box(-np.inf, np.inf, (STATE_DIM,)),
            action_space=spaces.Box(-1, 1, (ACTION_DIM,)),
        )

    return make
