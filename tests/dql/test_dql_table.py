"""The zoo's hyper-parameters of Diffusion-QL: the released code's table."""

import pytest

from zoo.runs.hyperparameters import load_hyperparameters

TABLE = {  # eta, gradient norm, learning rate (None: 3e-4), max Q backup
    "halfcheetah-medium-v2": (1.0, 9.0, None, False),
    "halfcheetah-medium-replay-v2": (1.0, 2.0, None, False),
    "halfcheetah-medium-expert-v2": (1.0, 7.0, None, False),
    "hopper-medium-v2": (1.0, 9.0, None, False),
    "hopper-medium-replay-v2": (1.0, 4.0, None, False),
    "hopper-medium-expert-v2": (1.0, 5.0, None, False),
    "walker2d-medium-v2": (1.0, 1.0, None, False),
    "walker2d-medium-replay-v2": (1.0, 4.0, None, False),
    "walker2d-medium-expert-v2": (1.0, 5.0, None, False),
    "antmaze-umaze-v0": (0.5, 2.0, None, False),
    "antmaze-umaze-diverse-v0": (2.0, 3.0, None, True),
    "antmaze-medium-play-v0": (2.0, 2.0, 1e-3, True),
    "antmaze-medium-diverse-v0": (3.0, 1.0, None, True),
    "antmaze-large-play-v0": (4.5, 10.0, None, True),
    "antmaze-large-diverse-v0": (3.5, 7.0, None, True),
}


@pytest.mark.parametrize("dataset", TABLE)
def test_a_dataset_gets_its_row_under_all_its_names(dataset: str) -> None:
    env, level = dataset.rsplit("-v", 1)[0].split("-", 1)
    antmaze = env == "antmaze"
    roots = ["D4RL"] if antmaze else ["mujoco", "genoffline"]
    settings = load_hyperparameters("dql", dataset)
    assert settings.entry == dataset
    found = settings.arguments
    values = (found["eta"], found["max_grad_norm"], found.get("learning_rate"), found.get("max_q_backup", False))
    assert values == TABLE[dataset]
    assert found.get("reward_transform") == ("cql_antmaze" if antmaze else None)
    assert settings.n_timesteps == found.get("lr_decay_steps", 2_000_000) == (1_000_000 if antmaze else 2_000_000)
    for root in roots:
        assert load_hyperparameters("dql", f"{root}/{env}/{level}-v0").plain == settings.plain
