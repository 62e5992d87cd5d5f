"""The hand-written SAC makes SB3's updates, and goes on from what it kept."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC

from zoo.behavior.sac import Learner

SETTINGS = {
    "batch_size": 32,
    "learning_rate": 3e-3,
    "gamma": 0.9,
    "tau": 0.1,
    "actor_width": 16,
    "critic_width": 24,
}


def make_model() -> SAC:
    return SAC(
        "MlpPolicy",
        "Hopper-v5",
        policy_kwargs={"net_arch": {"pi": [16, 16], "qf": [24, 24]}},
        buffer_size=1,
        seed=0,
        device="cpu",
        **{name: SETTINGS[name] for name in ("batch_size", "learning_rate", "gamma", "tau")},
    )


def make_batch(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(32, 11 + 3 + 11 + 2, generator=generator)
    rows[:, 11:14] = rows[:, 11:14].tanh()
    rows[:, -1] = (rows[:, -1] > 1).float()
    return rows


def update_sb3(model: SAC, batch: torch.Tensor, noise: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """SB3's own update, with the batch and the actors' draws given."""
    draws = iter(noise.split(32))
    names = ("observations", "actions", "next_observations", "rewards", "dones")
    data: Any = SimpleNamespace(**dict(zip(names, batch.split([11, 3, 11, 1, 1], 1), strict=True)), discounts=None)
    with monkeypatch.context() as patch:
        patch.setattr(model.replay_buffer, "sample", lambda *args, **kwargs: data)
        patch.setattr("torch.distributions.normal._standard_normal", lambda *args, **kwargs: next(draws))
        model.train(1, 32)


def test_its_updates_are_sb3s(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    model._setup_learn(1)
    learner, other = Learner(11, 3, SETTINGS), Learner(11, 3, SETTINGS)
    learner.start_from(model)
    for i in range(20):
        batch, noise = make_batch(i), torch.randn(64, 3, generator=torch.Generator().manual_seed(100 + i))
        update_sb3(model, batch, noise, monkeypatch)
        learner.update(batch, noise)
    other.start_from(model)
    torch.testing.assert_close(learner.vectors["critic"], other.vectors["critic"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(learner.vectors["actor"][:-1], other.vectors["actor"][:-1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(learner.vectors["actor"][-1:], model.log_ent_coef.detach(), rtol=1e-4, atol=1e-5)
    model.critic.load_state_dict(model.critic_target.state_dict())
    other.start_from(model)
    torch.testing.assert_close(learner.vectors["target"], other.vectors["target"], rtol=1e-3, atol=1e-4)
