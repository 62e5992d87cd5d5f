"""IDQL gets its code's settings."""

from typing import Any

import pytest
from exact import SPACES
from torch import nn

from sb3_genoffline import IDQL
from zoo.runs.hyperparameters import load_hyperparameters


@pytest.mark.parametrize(
    ("dataset", "expectile", "rewards"),
    [
        ("hopper-medium-v2", 0.7, "iql_locomotion"),
        ("mujoco/walker2d/medium-v0", 0.7, "iql_locomotion"),
        ("antmaze-large-play-v2", 0.9, "iql_antmaze"),
        ("genoffline/pointmaze/stitch-v0", 0.9, "iql_antmaze"),
    ],
)
def test_a_dataset_gets_the_codes_setting_for_its_kind(dataset: str, expectile: float, rewards: str) -> None:
    """README claim 8."""
    settings = load_hyperparameters("idql", dataset)
    model: Any = IDQL(settings.policy, SPACES, device="cpu", **settings.arguments)
    assert settings.n_timesteps == IDQL.default_gradient_steps == 1_500_000
    assert (model.expectile, model.reward_transform) == (expectile, rewards)
    assert (model.batch_size, model.critic_batch_size, model.actor_updates) == (2048, 256, 2)
    assert (model.tau, model.actor_tau, model.actor_weight_decay, model.gamma) == (0.005, 0.001, 0.0, 0.99)
    assert (model.n_diffusion_steps, model.beta_schedule, model.n_action_samples, model.selection) == (5, "vp", 64, "best")


def test_the_profile_of_the_later_code() -> None:
    """README claim 8."""
    settings = load_hyperparameters("idql", "hopper-medium-v2", "head")
    arguments = settings.arguments
    assert settings.n_timesteps == 3_000_000 and arguments["actor_weight_decay"] == 1e-4
    assert (arguments["batch_size"], arguments["critic_batch_size"], arguments["actor_updates"]) == (512, 512, 1)
    assert arguments["policy_kwargs"] == {"time_dim": 128, "activation_fn": nn.SiLU, "value_layer_norm": True}
