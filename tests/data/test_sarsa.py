"""Which rows have a next action, and what a sampler of them draws."""

from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_genoffline import OfflineDataset, load_dataset
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.sarsa import SarsaSampler, sarsa_rows
from sb3_genoffline.errors import UserError


def make_dataset(*episodes: tuple[int, bool], **changes: Any) -> OfflineDataset:
    """
    A walk along a line; an action says its row.

    :param episodes: length of each, and whether it terminates
    """
    n = sum(length for length, _ in episodes)
    last = np.zeros(n, bool)
    last[np.cumsum([length for length, _ in episodes]) - 1] = True
    terminal = last.copy()
    terminal[last] = [ends for _, ends in episodes]
    places = np.arange(n, dtype=float)[:, None] + 100 * np.cumsum(last)[:, None]
    columns = {
        "observations": places,
        "actions": np.arange(n)[:, None] / 100,
        "rewards": np.arange(n),
        "next_observations": np.where(last[:, None], places + 0.5, np.roll(places, -1, 0)),
        "terminals": terminal,
        "timeouts": last & ~terminal,
    }
    return load_dataset(columns | changes)


def sampler_of(dataset: OfflineDataset, **settings: Any) -> SarsaSampler:
    buffer = OfflineBuffer(1, dataset.observation_space, dataset.action_space, "cpu", dataset=dataset)
    return SarsaSampler(buffer, **settings)


def test_the_last_row_of_an_episode_counts_only_if_it_terminates() -> None:
    """Onestep's README claim 2: of three rows that are cut and two that end, four."""
    sampler = sampler_of(make_dataset((3, False), (2, True)))
    assert len(sampler) == 4
    batch = sampler.gather(th.arange(4))
    assert batch.rewards.tolist() == [0, 1, 3, 4] and batch.masks.tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(batch.next_actions[:3, 0], [0.01, 0.02, 0.04], atol=1e-7)
    np.testing.assert_allclose(batch.actions[:, 0], [0, 0.01, 0.03, 0.04], atol=1e-7)
    assert th.equal(batch.next_observations[:2], sampler.buffer.rows_at(th.tensor([1, 2])).observations)


def test_a_recording_that_breaks_off_has_no_next_action_there() -> None:
    dataset = make_dataset((30, True))
    observations, following = dataset.observations.copy(), dataset.next_observations.copy()
    observations[12:] += 50
    following[12:] += 50
    broken = dataset.replace(observations=observations, next_observations=following)
    assert sarsa_rows(dataset).tolist() == [*range(30)]
    assert sarsa_rows(broken).tolist() == [i for i in range(30) if i != 11]


def test_rows_out_of_order_are_refused_or_warned_of() -> None:
    with pytest.raises(UserError, match="No row of the 3 terminates or is followed"):
        sarsa_rows(make_dataset((1, False), (1, False), (1, False)))
    with pytest.warns(UserWarning, match="known of only 1 of 4 rows.*in time order"):
        assert sarsa_rows(make_dataset(*[(1, False)] * 3, (1, True))).tolist() == [3]
    without = OfflineBuffer(1, make_dataset((2, True)).observation_space, make_dataset((2, True)).action_space, "cpu")
    with pytest.raises(UserError, match="no offline rows"):
        SarsaSampler(without)


def test_an_epoch_draws_every_row_once_and_a_copy_goes_on_alike() -> None:
    dataset = make_dataset((9, False), (8, True))
    sampler, other = (sampler_of(dataset, seed=seed) for seed in (1, 2))
    rows = [sampler.draw(6).rewards.tolist() for _ in range(3)]
    assert [len(part) for part in rows] == [6, 6, 4]
    assert sorted(row for part in rows for row in part) == [*range(8), *range(9, 17)]
    sampler.draw(5)
    other.load_state_dict(sampler.state_dict())
    assert all(th.equal(a, b) for a, b in zip(sampler.draw(5), other.draw(5), strict=True))
    with pytest.raises(UserError, match="drew from 16 rows, and here are 4"):
        sampler_of(make_dataset((3, False), (2, True))).load_state_dict(sampler.state_dict())


def test_draws_by_another_generator_leave_the_order_alone() -> None:
    sampler, other = (sampler_of(make_dataset((20, True)), seed=0) for _ in range(2))
    drawn = sampler.draw_by(th.Generator().manual_seed(0), 200)
    assert len(drawn.rewards) == 200 and len(set(drawn.rewards.tolist())) == 20
    assert th.equal(sampler.draw(7).rewards, other.draw(7).rewards)
    assert len(sampler_of(make_dataset((20, True)), replacement=True, seed=0).draw(50).rewards) == 50
