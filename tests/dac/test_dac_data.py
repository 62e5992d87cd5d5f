"""What DAC asks of its data, with the numbers of its reference implementation (README claims 18 to 20), in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import close
from gymnasium import spaces

from sb3_genoffline import DAC, OfflineDataset, load_dataset
from sb3_genoffline.data.buffers import OfflineBuffer, TransitionBatch
from sb3_genoffline.data.transforms import reward_affine

pytestmark = pytest.mark.usefixtures("float64")
MakeDac = Callable[..., DAC]
MakeBatch = Callable[..., TransitionBatch]


def test_trajectory_scaling_divides_by_the_spread_of_returns() -> None:
    """Episodes end after rows 3, 5 and 7, one of them only seen from where its next observation lies."""
    rewards = np.array([1, 1, 1, 2, 0, 0, 5], np.float32)
    observations = np.arange(7, dtype=np.float32)[:, None]
    following = observations + 1
    following[4] += 0.5
    terminations = np.isin(np.arange(7), [2, 6])
    data = load_dataset(
        {
            "observations": observations,
            "actions": np.zeros((7, 1), np.float32),
            "rewards": rewards,
            "next_observations": following,
            "terminations": terminations,
        }
    )
    np.testing.assert_array_equal(data.episode_ends, [3, 5, 7])
    np.testing.assert_array_equal(data.episode_returns(), [3, 2, 5])
    scale, shift = reward_affine(data, "iql_locomotion")
    close(scale * rewards + shift, [333.3333, 333.3333, 333.3333, 666.6667, 0, 0, 1666.6667], 1e-4)


def ten_rows(actions: Any = None) -> OfflineDataset:
    rows = np.arange(10)
    return OfflineDataset(
        observations=rows[:, None],
        actions=np.linspace(-1, 1, 10)[:, None] if actions is None else actions,
        rewards=rows,
        next_observations=rows[:, None] + 1,
        terminations=rows == 4,
        truncations=rows == 9,
        observation_space=spaces.Box(-np.inf, np.inf, (1,)),
        action_space=spaces.Box(-1, 1, (1,)),
    )


def buffer_of(data: OfflineDataset, **kwargs: Any) -> OfflineBuffer:
    return OfflineBuffer(100, data.observation_space, data.action_space, "cpu", dataset=data, seed=0, **kwargs)


def test_the_sampler_visits_every_row_once_an_epoch_and_reshuffles() -> None:
    buffer = buffer_of(ten_rows())
    epochs = []
    for _ in range(6):
        batches = [buffer.sample(4).observations.flatten().tolist() for _ in range(3)]
        assert [len(batch) for batch in batches] == [4, 4, 2]
        epochs.append([row for batch in batches for row in batch])
        assert sorted(epochs[-1]) == list(range(10))
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_stored_actions_keep_off_the_edge_and_masks_are_zero_at_terminations_only() -> None:
    buffer = buffer_of(ten_rows())
    rows = buffer.rows_at(th.arange(10))
    assert rows.actions.double().abs().max() <= 1 - 1e-5
    close(rows.actions.flatten()[1:-1], np.linspace(-1, 1, 10)[1:-1], 1e-6)
    close(rows.masks, [1, 1, 1, 1, 0, 1, 1, 1, 1, 1])
