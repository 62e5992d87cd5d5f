"""Tiny agents, batches and data for the tests of CPED."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from sb3_genoffline import OfflineDataset
from sb3_genoffline.cped import CPED

STATE_DIM, ACTION_DIM = 3, 2
BOX = (spaces.Box(-np.inf, np.inf, (STATE_DIM,)), spaces.Box(-1, 1, (ACTION_DIM,)))


@pytest.fixture(scope="session")
def make_cped() -> Callable[..., CPED]:
    """
    A tiny agent that has no phases (critic and Q-term from update 0 on): S = 3, A = 2, widths 8. Its density has random
    weights and counts as fitted unless ``fitted=False``. Any argument can be changed.
    """

    def make(fitted: bool = True, **kwargs: Any) -> CPED:
        env = kwargs.pop("env", BOX)
        settings = {
            "critic_start": 0,
            "q_start": 0,
            "flow_steps": 8,
            "flow_batch_size": 16,
            "flow_eval_every": 2,
            "batch_size": 16,
            "seed": 0,
            "device": "cpu",
        }
        small = {"net_arch": [8, 8], "flow_net_arch": [8], "flow_transforms": 1} | kwargs.pop("policy_kwargs", {})
        model = CPED("FlowDensityPolicy", env, **(settings | kwargs), policy_kwargs=small)
        if fitted:
            model.policy.nll_threshold.fill_(3.0)
            model.policy.nll_q99.fill_(6.0)
            model.policy.fitted.fill_(True)
        return model

    return make


@pytest.fixture(scope="session")
def make_data() -> Callable[..., OfflineDataset]:
    """200 rows in episodes of 10, of which every other one terminates."""

    def make(seed: int = 0, name: str | None = "tests/rows-v0") -> OfflineDataset:
        rng = np.random.default_rng(seed)
        n = 200
        last, even = np.arange(n) % 10 == 9, np.arange(n) // 10 % 2 == 0
        return OfflineDataset(
            observations=rng.normal(1.0, 2.0, size=(n, STATE_DIM)),
            actions=rng.uniform(-1, 1, size=(n, ACTION_DIM)),
            rewards=rng.normal(size=n),
            next_observations=rng.normal(1.0, 2.0, size=(n, STATE_DIM)),
            terminations=last & even,
            truncations=last & ~even,
            observation_space=BOX[0],
            action_space=BOX[1],
            id=name,
        )

    return make
