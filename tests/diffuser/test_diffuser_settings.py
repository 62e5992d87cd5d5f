"""Diffuser gets its code's settings."""

from typing import Any

import pytest
from exact import SPACES

from sb3_genoffline import Diffuser
from zoo.recipes import collectible
from zoo.runs.hyperparameters import load_hyperparameters


@pytest.mark.parametrize(
    ("dataset", "horizon", "scale", "stop"),
    [
        ("hopper-medium-v2", 32, 0.1, 2),
        ("hopper-medium-expert-v2", 32, 0.0001, 4),
        ("halfcheetah-medium-replay-v2", 4, 0.001, 4),
        ("mujoco/walker2d/medium-v0", 32, 0.1, 2),
        ("genoffline/hopper/expert-v1", 32, 0.0001, 4),
        ("genoffline/hopper/medium-v1", 32, 0.1, 2),
    ],
)
def test_a_dataset_gets_the_codes_setting_for_its_kind(dataset: str, horizon: int, scale: float, stop: int) -> None:
    """README claim 9."""
    settings = load_hyperparameters("diffuser", dataset)
    model: Any = Diffuser(settings.policy, SPACES, device="cpu", **settings.arguments)
    assert settings.n_timesteps == Diffuser.default_gradient_steps == 1_000_000
    assert (model.horizon, model.guide_scale, model.guide_stop, model.n_guide_steps) == (horizon, scale, stop, 2)
    assert (model.n_plans, model.n_diffusion_steps, model.action_weight, model.batch_size) == (64, 20, 10.0, 64)
    assert (model.learning_rate, model.tau, model.value_steps, model.return_discount) == (2e-4, 0.005, 200_000, 0.997)
    assert (model.target_update_interval, model.target_copy_steps, model.termination_penalty) == (10, 2000, -100.0)


@pytest.mark.parametrize("dataset", [name for name in collectible() if "halfcheetah" in name])
def test_all_of_our_halfcheetah_data_get_the_codes_horizon(dataset: str) -> None:
    assert load_hyperparameters("diffuser", dataset).arguments["horizon"] == 4


@pytest.mark.parametrize("dataset", ["antmaze-large-play-v0", "D4RL/antmaze/umaze-v1", "genoffline/pointmaze/stitch-v0"])
def test_arriving_in_a_maze_costs_nothing(dataset: str) -> None:
    """An episode terminates there."""
    assert load_hyperparameters("diffuser", dataset, "cpu").arguments["termination_penalty"] == 0.0
