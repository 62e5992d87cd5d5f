"""The zoo's hyper-parameters of SPOT: the configurations of the authors' code."""

from typing import Any

import pytest

from sb3_genoffline import SPOT
from zoo.runs.hyperparameters import load_hyperparameters, unnamed_defaults

GYM = {"learning_rate": 3e-4, "normalize_observations": True, "reward_transform": None}
GYM_NETWORKS = {"actor_dropout": 0.1, "actor_init": None, "critic_init": None}
ANTMAZE = {"learning_rate": 1e-4, "normalize_observations": False, "reward_transform": "iql_antmaze"}
ANTMAZE_NETWORKS = {"actor_dropout": 0.0, "actor_init": 1e-3, "critic_init": 3e-3}
LAM = {
    **dict.fromkeys(["halfcheetah-medium-v2", "halfcheetah-medium-replay-v2"], 0.05),
    "halfcheetah-medium-expert-v2": 1.0,
    **dict.fromkeys(["hopper-medium-v2", "hopper-medium-replay-v2"], 0.1),
    "hopper-medium-expert-v2": 0.2,
    **dict.fromkeys(["walker2d-medium-v2", "walker2d-medium-replay-v2"], 0.2),
    "walker2d-medium-expert-v2": 0.5,
    **dict.fromkeys(["antmaze-umaze-v2", "antmaze-umaze-diverse-v2"], 0.25),
    "antmaze-medium-play-v2": 0.05,
    **dict.fromkeys(["antmaze-medium-diverse-v2", "antmaze-large-play-v2", "antmaze-large-diverse-v2"], 0.025),
}


@pytest.mark.parametrize("dataset", LAM)
def test_a_dataset_gets_the_authors_configuration_under_all_its_names(dataset: str) -> None:
    settings = load_hyperparameters("spot", dataset)
    defaults = unnamed_defaults("spot", settings)
    found: dict[str, Any] = defaults | settings.arguments
    networks = defaults["policy_kwargs"] | settings.arguments.get("policy_kwargs", {})
    env, level = dataset.removesuffix("-v2").split("-", 1)
    expected = ANTMAZE if env == "antmaze" else GYM
    assert settings.entry == dataset and settings.n_timesteps == SPOT.default_gradient_steps
    assert (found["lam"], found["critic_learning_rate"] or found["learning_rate"]) == (LAM[dataset], 3e-4)
    assert {name: found[name] for name in expected} == expected
    assert {name: networks[name] for name in GYM_NETWORKS} == (ANTMAZE_NETWORKS if env == "antmaze" else GYM_NETWORKS)
    for root in ["D4RL"] if env == "antmaze" else ["mujoco", "genoffline"]:
        assert load_hyperparameters("spot", f"{root}/{env}/{level}-v0").plain == settings.plain
