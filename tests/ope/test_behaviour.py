"""What the logged episodes are worth: a time-out cuts the log, and not what it is worth."""

from typing import Any

import numpy as np
import pytest
import torch as th
from exact_fit import solve
from problems import linear_data
from test_exact_values import GAMMA, HORIZON, N_STATES, Table
from torch import Tensor

from sb3_genoffline.ope import FQE, behaviour
from sb3_genoffline.ope.behaviour import discounted_returns, episode_values


def by_state(states: Tensor, actions: Tensor) -> Tensor:
    return th.nn.functional.one_hot(states.argmax(-1), N_STATES).double()


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The regression of FQE is exact."""

    def fit(self: FQE, *_: Any, **__: Any) -> FQE:
        self._fit.next_actions.prepare(1, cached=True)
        return solve(self, by_state, 150)

    monkeypatch.setattr(behaviour.FQE, "fit", fit)


def test_what_follows_a_time_out_is_the_value_of_the_policy_that_acted(exact: None):
    """A coin is tossed in a table, and each episode is cut after 8 steps, where 0.9^8 = 43% of the weight is left."""
    table = Table()
    data = table.data(2_000, seed=1)
    found = episode_values(data, GAMMA, n_members=1, bootstrap=False, clip_targets=False, device="cpu")
    states, following = data.observations.argmax(1), data.next_observations
    chain = np.stack([following[states == s].mean(0) for s in range(N_STATES)]).astype(float)
    rewards = np.array([data.rewards[states == s].mean() for s in range(N_STATES)], float)
    values = np.linalg.solve(np.eye(N_STATES) - GAMMA * chain, rewards)
    ends = following[data.episode_ends - 1].argmax(1)
    assert found.following == pytest.approx(GAMMA**HORIZON * values[ends], rel=1e-4, abs=1e-4)
    truth = np.linalg.solve(np.eye(N_STATES) - GAMMA * table.following.mean(1), table.rewards.mean(1)).mean()
    assert found.mean == pytest.approx(truth, abs=0.05) and abs(found.logged - truth) > 0.3  # which is all that was logged
    assert found.is_cut and found.best == (found.returns + found.following).max()


def test_nothing_follows_a_termination_and_only_time_outs_are_fitted(exact: None):
    data = Table().data(10, seed=0)
    ends = np.arange(1, len(data) + 1) % HORIZON == 0
    half = ends & (np.arange(len(data)) < len(data) // 2)
    found = episode_values(data.replace(terminations=half, truncations=ends & ~half), GAMMA, n_members=1, device="cpu")
    assert (found.following[:5] == 0).all() and (found.following[5:] != 0).all()


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_without_a_fit_where_nothing_worth_it_follows(gamma: float, monkeypatch: pytest.MonkeyPatch):
    data = linear_data(80)
    monkeypatch.setattr(behaviour, "FQE", None)
    if gamma > 0.5:
        data = data.replace(terminations=data.truncations, truncations=np.zeros(80, bool))
    found = episode_values(data, gamma)
    expected = data.rewards.reshape(2, 40) @ gamma ** np.arange(40)
    assert found.returns == pytest.approx(expected, rel=1e-5) and not found.is_cut
    assert found.mean == found.logged == pytest.approx(expected.mean(), rel=1e-5)
    assert discounted_returns(data, gamma) == pytest.approx(expected, rel=1e-5)
