"""The zoo's hyper-parameters of Diffusion-QL: the released code's table."""

from typing import Any

import pytest

from zoo.runs.hyperparameters import load_hyperparameters, unnamed_defaults

TABLE = {  # eta, gradient norm, the actor's rate, max Q backup, rewards, updates
    "halfcheetah-medium-v2": (1.0, 9.0, 3e-4, False, None, 2_000_000),
    "halfcheetah-medium-replay-v2": (1.0, 2.0, 3e-4, False, None, 2_000_000),
    "halfcheetah-medium-expert-v2": (1.0, 7.0, 3e-4, False, None, 2_000_000),
    "hopper-medium-v2": (1.0, 9.0, 3e-4, False, None, 2_000_000),
    "hopper-medium-replay-v2": (1.0, 4.0, 3e-4, False, None, 2_000_000),
    "hopper-medium-expert-v2": (1.0, 5.0, 3e-4, False, None, 2_000_000),
    "walker2d-medium-v2": (1.0, 1.0, 3e-4, False, None, 2_000_000),
    "walker2d-medium-replay-v2": (1.0, 4.0, 3e-4, False, None, 2_000_000),
    "walker2d-medium-expert-v2": (1.0, 5.0, 3e-4, False, None, 2_000_000),
    "antmaze-umaze-v0": (0.5, 2.0, 3e-4, False, "cql_antmaze", 1_000_000),
    "antmaze-umaze-diverse-v0": (2.0, 3.0, 3e-4, True, "cql_antmaze", 1_000_000),
    "antmaze-medium-play-v0": (2.0, 2.0, 1e-3, True, "cql_antmaze", 1_000_000),
    "antmaze-medium-diverse-v0": (3.0, 1.0, 3e-4, True, "cql_antmaze", 1_000_000),
    "antmaze-large-play-v0": (4.5, 10.0, 3e-4, True, "cql_antmaze", 1_000_000),
    "antmaze-large-diverse-v0": (3.5, 7.0, 3e-4, True, "cql_antmaze", 1_000_000),
    "pen-human-v1": (0.15, 7.0, 3e-5, False, "reward_normalize", 1_000_000),
    "pen-cloned-v1": (0.1, 8.0, 3e-5, False, "reward_normalize", 1_000_000),
    "kitchen-complete-v0": (0.005, 9.0, 3e-4, False, None, 250_000),
    "kitchen-partial-v0": (0.005, 10.0, 3e-4, False, None, 1_000_000),
    "kitchen-mixed-v0": (0.005, 10.0, 3e-4, False, None, 1_000_000),
}


@pytest.mark.parametrize("dataset", TABLE)
def test_a_dataset_gets_its_row_under_all_its_names(dataset: str) -> None:
    settings = load_hyperparameters("dql", dataset)
    found: dict[str, Any] = unnamed_defaults("dql", settings) | settings.arguments
    names = ("eta", "max_grad_norm", "learning_rate", "max_q_backup", "reward_transform")
    assert settings.entry == dataset
    assert (*(found[name] for name in names), settings.n_timesteps) == TABLE[dataset]
    assert (found["critic_learning_rate"] or found["learning_rate"], found["lr_decay_steps"]) == (3e-4, None)
    env, level = dataset.rsplit("-v", 1)[0].split("-", 1)
    locomotion = env in ("halfcheetah", "hopper", "walker2d")
    for root in ("mujoco", "genoffline") if locomotion else ("D4RL",):
        assert load_hyperparameters("dql", f"{root}/{env}/{level}-v0").plain == settings.plain
