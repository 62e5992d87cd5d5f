"""Returns improved by planning (SfBC's README claims 5 and 6), and the sampler that holds them."""

from typing import Any

import numpy as np
import pytest
import torch as th
from exact import close
from worlds import make_dataset

from sb3_genoffline import OfflineDataset
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.returns import PlanningTarget, ReturnSampler, planned_returns
from sb3_genoffline.data.sequences import returns_to_go
from sb3_genoffline.errors import UserError

REWARDS, ENDS = np.array([1, 0.5, -0.2, 2, 0, 1]), np.array([3, 6])
STANDARDISED = np.array([0.74381248, 0.34190327, 0.58317375, 0.79757152, 0.79759000, -0.06254210])
VALUES = np.array([1.80034290, 1.40130626, 1.64085231, 1.85371771, 1.85373606, 0.99975157])


def make_sampler(**changes: Any) -> ReturnSampler:
    data = changes.pop("dataset", None) or make_dataset()
    buffer = OfflineBuffer(1, data.observation_space, data.action_space, "cpu", dataset=data, reward_scale=2.0)
    return ReturnSampler(buffer, 0.9, **({"seed": 0} | changes))


def by_loop(rewards: np.ndarray, values: np.ndarray, ends: np.ndarray, discount: float, form: str) -> np.ndarray:
    returns = np.zeros(len(rewards))
    for row in range(len(rewards) - 1, -1, -1):
        last = row + 1 in ends
        if form == "code":
            returns[row] = max(rewards[row] + discount * (0.0 if last else returns[row + 1]), values[row])
        else:
            returns[row] = rewards[row] + discount * (0.0 if last else max(returns[row + 1], values[row + 1]))
    return returns


def test_planned_returns_are_known_numbers() -> None:
    first = returns_to_go(REWARDS, ENDS, 0.99)
    close(first, [1.29898, 0.302, -0.2, 2.9801, 0.99, 1], 1e-9)
    close([first.mean(), first.std()], [1.06184667, 0.99285271], 5e-9)
    code = planned_returns(REWARDS, VALUES, ENDS, 0.99)
    close(code, [3.10319935, 2.12444378, 1.64085231, 3.83519870, 1.85373606, 1], 2e-8)
    close([code.mean(), code.std(), (code[0] - code.mean()) / code.std()], [2.25957170, 0.94398135, 0.89369100], 5e-8)
    paper = planned_returns(REWARDS, VALUES, ENDS, 0.99, "paper")
    close(paper, [3.10319935, 2.12444378, -0.2, 3.83519870, 0.99, 1], 2e-8)
    assert abs(paper[0] - 2.38729319) > 0.5  # returns of before, without the recursion
    close(code, np.maximum(paper, VALUES), 1e-12)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_planned_returns_are_those_of_a_loop_over_rows(form: PlanningTarget) -> None:
    rng = np.random.default_rng(0)
    for lengths in ([1], [1, 1, 4], [7, 1, 16, 5], [33, 2]):
        ends = np.cumsum(lengths)
        rewards, values = rng.normal(size=(2, ends[-1]))
        for discount in (0.0, 0.9, 1.0):
            expected = by_loop(rewards, values, ends, discount, form)
            close(planned_returns(rewards, values, ends, discount, form), expected, 1e-12)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_nothing_goes_back_over_an_episodes_end(form: PlanningTarget) -> None:
    changed = VALUES + np.array([0, 0, 0, 50, 50, 50])
    before, after = (planned_returns(REWARDS, values, ENDS, 0.99, form) for values in (VALUES, changed))
    assert (before[:3] == after[:3]).all() and before[3] != after[3]


def test_first_returns_are_cut_at_terminations_and_time_outs() -> None:
    sampler, data = make_sampler(), make_dataset()
    assert data.terminations[9] and data.truncations[19]
    close(sampler.returns[[9, 19]], 2.0 * data.rewards[[9, 19]], 1e-6)
    close(sampler.returns[18], 2.0 * (data.rewards[18] + 0.9 * data.rewards[19]), 1e-6)
    close([sampler.mean, sampler.scale], [sampler.returns.mean(), sampler.returns.std()], 1e-12)


def test_planning_takes_values_in_units_of_the_returns_until_then() -> None:
    sampler = make_sampler()
    values, before = np.linspace(-1, 1, 60), sampler.mean + sampler.scale * np.linspace(-1, 1, 60)
    rewards = 2.0 * make_dataset().rewards.astype(np.float64)
    sampler.draw(16)
    sampler.replan(values, 0.9)
    close(sampler.returns, planned_returns(rewards, before, make_dataset().episode_ends, 0.9), 1e-9)
    assert (sampler.n_plans, sampler.n_drawn) == (1, 0)
    close([sampler.mean, sampler.scale], [sampler.returns.mean(), sampler.returns.std()], 1e-12)


def test_returns_that_hardly_differ_are_not_blown_up() -> None:
    data = make_dataset()
    sampler = make_sampler(dataset=data.replace(rewards=np.zeros(60, np.float32)))
    assert (sampler.mean, sampler.scale) == (0.0, 0.1)


def test_batches_hold_rows_with_their_returns() -> None:
    sampler, data = make_sampler(), make_dataset()
    batch = sampler.gather(th.tensor([3, 41]))
    close(batch.observations, data.observations[[3, 41]], 0)
    close(batch.returns, sampler.returns[[3, 41]], 1e-5)
    close([batch.mean, batch.scale], [sampler.mean, sampler.scale], 1e-6)
    drawn = [sampler.draw(16) for _ in range(4)]
    assert [len(part.returns) for part in drawn] == [16, 16, 16, 12] and sampler.n_drawn == 4
    close(np.sort(np.concatenate([part.returns for part in drawn])), np.sort(sampler.returns), 1e-5)


def test_short_episodes_are_left_out() -> None:
    data = make_dataset()
    short: OfflineDataset = data.replace(episode_ends=np.array([4, 10, 20, 30, 40, 57, 60]), truncations=np.arange(60) == 3)
    sampler = make_sampler(dataset=short, min_episode_length=5)
    assert len(sampler) == 53
    close(sampler.observations_at(slice(None)), data.observations[4:57], 0)
    sampler.replan(np.zeros(53), 0.9)
    assert len(sampler.returns) == 53
    with pytest.warns(UserWarning, match="Only 17 of 60 rows are learned from.*min_episode_length=11"):
        make_sampler(dataset=short, min_episode_length=11)
    with pytest.raises(UserError, match="min_episode_length=18 leaves no row: the longest of 7 episodes has 17"):
        make_sampler(dataset=short, min_episode_length=18)


def test_a_sampler_goes_on_where_its_state_was_taken() -> None:
    sampler, other = make_sampler(), make_sampler(seed=1)
    sampler.replan(np.ones(60), 0.9)
    sampler.draw(16)
    other.load_state_dict(sampler.state_dict())
    assert (other.returns == sampler.returns).all() and (other.n_plans, other.n_drawn) == (1, 1)
    for _ in range(5):
        assert all(th.equal(ours, theirs) for ours, theirs in zip(sampler.draw(16), other.draw(16), strict=True))
    assert other.generator.initial_seed() == sampler.generator.initial_seed()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"returns": th.zeros(7)}, "has 7 returns, and here are 60 rows"),
        ({"returns": [0.0]}, "has no list of returns"),
        ({"returns": th.full((60,), th.nan)}, "not finite"),
        ({"n_plans": -1}, "not whole numbers"),
        ({"n_drawn": 1.5}, "not whole numbers"),
    ],
)
def test_a_state_that_can_not_be_is_refused(change: dict[str, Any], message: str) -> None:
    sampler = make_sampler()
    with pytest.raises(UserError, match=message):
        sampler.load_state_dict(sampler.state_dict() | change)


def test_a_buffer_without_a_dataset_is_refused() -> None:
    data = make_dataset()
    with pytest.raises(UserError, match="no offline rows"):
        ReturnSampler(OfflineBuffer(1, data.observation_space, data.action_space, "cpu"), 0.9)
