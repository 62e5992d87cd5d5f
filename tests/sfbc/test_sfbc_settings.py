"""SfBC gets its code's settings."""

import math
from typing import Any

import pytest
from exact import SPACES

from sb3_genoffline import SfBC
from zoo.runs.hyperparameters import load_hyperparameters


@pytest.mark.parametrize(
    ("dataset", "steps", "n_selected", "shortest", "net_arch"),
    [
        ("hopper-medium-v2", 24_500, 4, 1, None),
        ("mujoco/walker2d/medium-v0", 24_500, 4, 1, None),
        ("antmaze-medium-play-v2", 48_900, 1, 5, None),
        ("antmaze-large-play-v2", 48_900, 1, 5, [512, 256, 256]),
        ("genoffline/pointmaze/stitch-v0", 24_500, 1, 1, None),
    ],
)
def test_a_dataset_gets_the_codes_setting_for_its_kind(
    dataset: str, steps: int, n_selected: int, shortest: int, net_arch: list[int] | None
) -> None:
    """README claim 12."""
    settings = load_hyperparameters("sfbc", dataset)
    model: Any = SfBC(settings.policy, SPACES, device="cpu", **settings.arguments)
    assert settings.n_timesteps == model.usual_gradient_steps() == 2 * steps
    assert (model.critic_steps, model.n_selected, model.min_episode_length) == (steps, n_selected, shortest)
    assert model.policy_kwargs.get("net_arch") == net_arch
    assert (model.batch_size, model.learning_rate, model.behavior_learning_rate) == (4096, 1e-3, 1e-4)
    assert (model.behavior_steps, model.n_planning_samples, model.n_action_samples) == (586_200, 16, 32)
    assert (model.planning_alpha, model.selection_alpha, model.gamma) == (20.0, 100.0, 0.99)
    assert (model.n_solver_steps, model.solver_order, model.planning_target) == (15, 3, "code")


@pytest.mark.parametrize(
    ("dataset", "n_rows", "batches"),
    [
        ("hopper-medium-v2", 1_000_000, (977, 245)),
        ("hopper-medium-replay-v2", 402_000, (982, 197)),
        ("walker2d-medium-replay-v2", 302_000, (959, 222)),
        ("halfcheetah-medium-replay-v2", 202_000, (987, 247)),
    ],
)
def test_steps_are_the_codes_epochs_of_so_many_rows(dataset: str, n_rows: int, batches: tuple[int, int]) -> None:
    """README claim 12."""
    assert tuple(math.ceil(round(rows / n_rows) * n_rows / 4096) for rows in (4e6, 1e6)) == batches
    settings = load_hyperparameters("sfbc", dataset)
    model: Any = SfBC(settings.policy, SPACES, device="cpu", **settings.arguments)
    assert (model.behavior_steps, model.critic_steps) == (600 * batches[0], 100 * batches[1])
    assert settings.n_timesteps == 200 * batches[1]
