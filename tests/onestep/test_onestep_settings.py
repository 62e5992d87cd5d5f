"""Onestep gets the paper's setting, and of each dataset what is known of its α."""

import pytest
from exact import SPACES

from sb3_genoffline import Onestep
from zoo.runs.hyperparameters import load_hyperparameters

ALPHA = {
    "halfcheetah-medium-v2": 0.1,
    "hopper-medium-v2": 1.0,
    "walker2d-medium-v2": 1.0,
    "halfcheetah-medium-expert-v2": 3.0,
    "hopper-medium-expert-v2": 3.0,
    "walker2d-medium-expert-v2": 1.0,
    "mujoco/halfcheetah/medium-v0": 0.1,
    "genoffline/hopper/medium-expert-v1": 3.0,
    "genoffline/hopper/medium-replay-v1": 1.0,
    "antmaze-umaze-v0": 1.0,
}


@pytest.mark.parametrize("dataset", ALPHA)
def test_a_dataset_gets_the_alpha_that_is_known_of_it(dataset: str) -> None:
    settings = load_hyperparameters("onestep", dataset)
    model = Onestep(settings.policy, SPACES, device="cpu", **settings.arguments)
    assert (model.improvement, model.alpha) == ("reverse_kl", ALPHA[dataset])
    assert (settings.n_timesteps, model.behavior_steps, model.critic_steps) == (100_000, 500_000, 2_000_000)
    assert (model.learning_rate, model.critic_learning_rate, model.behavior_learning_rate) == (1e-4,) * 3
    assert (model.batch_size, model.target_update_interval, model.policy.actor.truncated) == (512, 2, True)
    assert [layer.out_features for layer in model.policy.actor.net if hasattr(layer, "out_features")] == [1024, 1024, 2 * 2]


def test_the_profile_official_is_the_run_that_the_code_releases() -> None:
    arguments = load_hyperparameters("onestep", "hopper-medium-v2", "official").arguments
    assert (arguments["distribution"], arguments["replacement"]) == ("normal", True)
