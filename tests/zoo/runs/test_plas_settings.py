"""PLAS gets what its paper says, its perturbation what reproduces that, and the released command is a profile."""

import pytest

from zoo.runs.hyperparameters import load_hyperparameters

TABLE = {  # M, width of the VAE, perturbation of PLAS+P
    "halfcheetah-random-v2": (2.0, 750, 0.5),
    "hopper-random-v2": (2.0, 750, 0.5),
    "walker2d-random-v2": (2.0, 750, 0.05),
    "halfcheetah-medium-v2": (2.0, 750, 0.1),
    "hopper-medium-v0": (2.0, 750, 0.01),
    "walker2d-medium-v2": (2.0, 750, 0.1),
    "halfcheetah-medium-replay-v2": (2.0, 128, 0.05),
    "hopper-medium-replay-v2": (0.5, 128, 0.2),
    "walker2d-medium-replay-v2": (2.0, 128, 0.01),
    "halfcheetah-medium-expert-v2": (0.5, 750, 0.01),
    "hopper-medium-expert-v2": (2.0, 750, 0.01),
    "walker2d-medium-expert-v2": (2.0, 750, 0.01),
    "antmaze-umaze-v2": (2.0, 750, 0.05),
    "mujoco/hopper/simple-v0": (2.0, 750, 0.01),
    "mujoco/halfcheetah/expert-v0": (0.5, 750, 0.01),
    "genoffline/hopper/medium-replay-v1": (0.5, 128, 0.2),
    "genoffline/walker2d/expert-v1": (2.0, 750, 0.01),
}


@pytest.mark.parametrize("dataset", TABLE)
def test_a_dataset_gets_the_papers_settings(dataset: str) -> None:
    bound, width, perturbation = TABLE[dataset]
    found = load_hyperparameters("plas", dataset)
    assert found.n_timesteps == 500_000 and "max_perturbation" not in found.arguments and "lam" not in found.arguments
    assert found.arguments.get("max_latent_action", 2.0) == bound
    assert found.arguments.get("policy_kwargs", {"vae_net_arch": [750, 750]}) == {"vae_net_arch": [width, width]}
    assert load_hyperparameters("plas", dataset, "perturbation").arguments["max_perturbation"] == perturbation
    official = load_hyperparameters("plas", dataset, "official").arguments
    assert (official["lam"], official["max_latent_action"], official["policy_kwargs"]) == (
        0.75,
        2.0,
        {"vae_net_arch": [750, 750]},
    )
