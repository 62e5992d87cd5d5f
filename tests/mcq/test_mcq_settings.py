"""MCQ gets the code's setting, and of each dataset what is known of its λ."""

from typing import Any

import pytest
from exact import SPACES

from sb3_genoffline import MCQ
from zoo.runs.hyperparameters import load_hyperparameters

LAM = {
    "halfcheetah-medium-v2": 0.95,
    "halfcheetah-medium-replay-v2": 0.95,
    "halfcheetah-medium-expert-v2": 0.7,
    "hopper-medium-v2": 0.7,
    "hopper-medium-replay-v2": 0.9,
    "hopper-medium-expert-v2": 0.5,
    "walker2d-medium-v2": 0.9,
    "walker2d-medium-replay-v2": 0.9,
    "walker2d-medium-expert-v2": 0.8,
    "maze2d-medium-v1": 0.9,
    "pen-human-v0": 0.3,
    "genoffline/hopper/medium-replay-v1": 0.9,
    "mujoco/walker2d/medium-v0": 0.9,
    "genoffline/pointmaze/stitch-v0": 0.7,
}


def agent(dataset: str, profile: str | None = None) -> Any:
    settings = load_hyperparameters("mcq", dataset, profile)
    assert settings.n_timesteps == 1_000_000
    return MCQ(settings.policy, SPACES, device="cpu", **settings.arguments)


@pytest.mark.parametrize("dataset", LAM)
def test_a_dataset_gets_the_lambda_that_is_known_of_it(dataset: str) -> None:
    model = agent(dataset)
    assert (model.lam, model.n_actions, model.latent_clip, model.vae.beta) == (LAM[dataset], 10, 0.5, 2.0)
    assert (model.learning_rate, model.vae_learning_rate, model.batch_size) == (3e-4, 1e-3, 256)
    assert (model.target_floor, model.one_sided, model.margin, model.gate_distance) == (None, False, 0.0, None)


def test_the_profile_official_has_floor_and_gates_as_the_code_does() -> None:
    for dataset, gated in (("hopper-medium-v2", True), ("halfcheetah-expert-v2", True), ("hopper-medium-replay-v2", False)):
        model = agent(dataset, "official")
        expected = (0.0, True, 5.0, 0.1) if gated else (0.0, False, 0.0, None)
        assert (model.target_floor, model.one_sided, model.margin, model.gate_distance) == expected
        assert model.replacement
