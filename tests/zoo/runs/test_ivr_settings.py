"""SQL and EQL get what the scripts and configurations of their authors' code say."""

from typing import Any

import pytest
from gymnasium import spaces

from sb3_genoffline.registry import ALGOS
from zoo.runs.hyperparameters import load_hyperparameters

SPACES = (spaces.Box(-1.0, 1.0, (3,)), spaces.Box(-1.0, 1.0, (2,)))
MUJOCO, ANTMAZE, KITCHEN = (3e-4, "iql_locomotion", 0.0), (2e-4, "iql_antmaze", 0.0), (3e-4, None, 0.1)
TABLE = {  # alpha of SQL and of EQL; rate, rewards, the actor's dropout
    **{
        f"{env}-{level}-v2": (1.0, 2.0, MUJOCO)
        for env in ("halfcheetah", "hopper", "walker2d")
        for level in ("medium", "medium-replay", "medium-expert")
    },
    **{f"antmaze-{maze}-v2": (0.1, 0.5, ANTMAZE) for maze in ("umaze", "medium-play", "medium-diverse", "large-play")},
    "antmaze-large-diverse-v2": (0.1, 0.5, ANTMAZE),
    "antmaze-umaze-diverse-v2": (3.0, 5.0, ANTMAZE),
    **{f"kitchen-{level}-v0": (0.5, 2.0, KITCHEN) for level in ("complete", "partial", "mixed")},
    "D4RL/antmaze/umaze-diverse-v1": (3.0, 5.0, ANTMAZE),
    "D4RL/kitchen/mixed-v2": (0.5, 2.0, KITCHEN),
    "mujoco/hopper/medium-v0": (1.0, 2.0, MUJOCO),
    "genoffline/hopper/medium-replay-v1": (1.0, 2.0, MUJOCO),
    "genoffline/antmaze/umaze-v0": (0.1, 0.5, ANTMAZE),
}


@pytest.mark.parametrize("algo", ["sql", "eql"])
@pytest.mark.parametrize("dataset", TABLE)
def test_the_authors_scripts_are_what_a_dataset_gets(dataset: str, algo: str) -> None:
    settings = load_hyperparameters(algo, dataset)
    model: Any = ALGOS[algo](settings.policy, SPACES, device="cpu", **settings.arguments)
    *alphas, expected = TABLE[dataset]
    assert model.alpha == alphas[algo == "eql"]
    assert (model.learning_rate, model.reward_transform, model.policy.actor_dropout) == expected
    assert settings.n_timesteps == model.lr_decay_steps == 1_000_000


def test_the_profile_official_of_eql_cuts_exponents_off() -> None:
    assert load_hyperparameters("eql", "hopper-medium-v2").arguments.get("official_clip") is None
    assert load_hyperparameters("eql", "hopper-medium-v2", "official").arguments["official_clip"] is True
