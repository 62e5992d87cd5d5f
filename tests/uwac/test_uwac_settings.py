"""UWAC gets the code's one setting."""

from typing import Any

import pytest
from exact import SPACES

from sb3_genoffline import UWAC
from zoo.runs.hyperparameters import load_hyperparameters


@pytest.mark.parametrize("dataset", ["hopper-medium-v2", "mujoco/walker2d/medium-v0", "genoffline/halfcheetah/random-v0"])
def test_all_datasets_get_the_codes_one_setting(dataset: str) -> None:
    settings = load_hyperparameters("uwac", dataset)
    model: Any = UWAC(settings.policy, SPACES, device="cpu", **settings.arguments)
    assert settings.n_timesteps == UWAC.default_gradient_steps == 3_000_000
    assert (model.uncertainty_beta, model.weighting, model.weight_power, model.q_penalty) == (0.5, "exp", 2, 0.0)
    assert (model.n_passes, model.n_target_samples, model.n_action_samples, model.lam) == (100, 10, 100, 0.75)
    assert (model.kernel, model.mmd_sigma, model.mmd_threshold, model.n_mmd_samples) == ("gaussian", 20.0, 0.07, 4)
    assert (model.learning_rate, model.critic_learning_rate, model.vae_learning_rate) == (1e-4, 3e-4, 3e-4)
    assert (model.multiplier_learning_rate, model.warmup_steps, model.batch_size, model.vae.beta) == (1e-3, 40_000, 256, 0.5)
    assert (model.policy.critic_dropout, model.policy.spectral_norm) == (0.1, True)


def test_the_profile_of_the_papers_weights() -> None:
    arguments = load_hyperparameters("uwac", "hopper-medium-v2", "paper_weights").arguments
    assert (arguments["weighting"], arguments["weight_power"]) == ("inverse", 1)
    assert arguments["policy_kwargs"] == {"spectral_norm": False}
