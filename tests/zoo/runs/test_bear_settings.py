"""BEAR gets what its authors say of each task, and what their first code has."""

import pytest

from zoo.runs.hyperparameters import load_hyperparameters

HALFCHEETAH = ("halfcheetah-medium-v2", "halfcheetah-medium-expert-v0", "mujoco/halfcheetah/simple-v0")
OTHERS = ("hopper-medium-v2", "walker2d-random-v0", "mujoco/hopper/expert-v0", "antmaze-umaze-v0", "nobody/knows/this-v0")


@pytest.mark.parametrize("dataset", [*HALFCHEETAH, "genoffline/halfcheetah/medium-replay-v0", *OTHERS])
def test_the_kernel_is_the_authors_choice(dataset: str) -> None:
    found = load_hyperparameters("bear", dataset)
    assert found.arguments.get("kernel", "laplacian") == ("gaussian" if "halfcheetah" in dataset else "laplacian")
    assert found.n_timesteps == 1_000_000


@pytest.mark.parametrize("dataset", [*HALFCHEETAH, "genoffline/halfcheetah/medium-replay-v0", *OTHERS])
def test_the_first_codes_settings_are_a_profile(dataset: str) -> None:
    found = load_hyperparameters("bear", dataset, "first_code").arguments
    assert (found.get("kernel", "laplacian"), found["mmd_sigma"]) in (("laplacian", 10.0), ("gaussian", 20.0))
    assert {found[name] for name in ("learning_rate", "critic_learning_rate", "vae_learning_rate")} == {0.001}
    assert (found["q_samples"], found["mmd_noise_clip"], found["n_action_samples"]) == ("mean", 0.5, 10)
    assert found["policy_kwargs"] == {"net_arch": [400, 300], "slow_actor": True, "clip_log_std": False}
