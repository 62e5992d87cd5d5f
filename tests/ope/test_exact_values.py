"""FQE's targets, draws and intervals where the regression is exact and the truth is known."""

from typing import Any

import numpy as np
import pytest
import torch as th
from exact_fit import solve
from gymnasium import spaces
from problems import Linear, linear_data
from torch import Tensor

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.ope import FQE

WIDE = spaces.Box(-50.0, 50.0, (1,), np.float32)
"""No action is clipped."""


def quadratic(states: Tensor, actions: Tensor) -> Tensor:
    """All monomials up to the second order."""
    s, a = states[..., 0], 50.0 * actions[..., 0]
    return th.stack([s * s, s * a, a * a, s, a, th.ones_like(s)], dim=-1)


def of_quadratic(seed: int, noise: float, n_actions: int, cached: bool, n: int = 4000, sweeps: int = 90) -> FQE:
    data = linear_data(n, seed=seed, quadratic=True).replace(action_space=WIDE)
    fqe = FQE(Linear(noise=noise), data, gamma=0.95, n_members=1, bootstrap=False, clip_targets=False, device="cpu")
    fqe._fit.next_actions.policy = fqe.policy.with_seed(1000 + seed)  # not the seed that made the data
    fqe._fit.next_actions.prepare(n_actions, cached)
    return solve(fqe, quadratic, sweeps)


def constant(fqe: FQE) -> float:
    """V at s = 0: what the policy's noise costs."""
    return float(fqe.state_values(np.zeros((1, 1), np.float32), n_samples=20_000)[0, 0])


def test_a_quadratic_problem_is_solved_exactly():
    """r = −s² − a², s' = 0.9 s + a, π(s) = −0.3 s: V = −1.65653495 s² (the page's claim 10)."""
    fqe = of_quadratic(0, noise=0.0, n_actions=1, cached=True, n=400)
    s, a = np.array([[1.0], [-2.0], [0.5]], np.float32), np.array([[1.0], [0.5], [-3.0]], np.float32)
    expected = -2.27470365 * s * s - 2.83267477 * s * a - 2.57370821 * a * a
    assert fqe.predict_value(s, a)[0] == pytest.approx(expected[:, 0], rel=1e-4)
    assert fqe.state_values(s)[0] == pytest.approx(-1.65653495 * s[:, 0] ** 2, rel=1e-4)


def test_a_policys_noise_has_its_price():
    """With σ = 0.2 V has the constant −2.05896657, which d3rlpy's mean action misses; fresh draws average out."""
    assert constant(of_quadratic(0, noise=0.2, n_actions=4, cached=False)) == pytest.approx(-2.05896657, abs=0.05)


def test_draws_that_are_kept_do_not_average_out():
    """The page's claim 11: over seeds the constant spreads by 0.196 with one kept action, by 0.054 with 16."""
    few = [constant(of_quadratic(seed, 0.2, 1, cached=True)) for seed in range(4)]
    many = [constant(of_quadratic(seed, 0.2, 16, cached=True)) for seed in range(4)]
    print(
        f"constant of V: {np.mean(few):.3f} ± {np.std(few):.3f} with M = 1, {np.mean(many):.3f} ± {np.std(many):.3f} with 16"
    )
    assert np.std(few) > 2 * np.std(many)
    assert np.mean(many) == pytest.approx(-2.05896657, abs=0.1)


# ---------------------------------------------------------------------- a table

N_STATES, HORIZON, GAMMA = 4, 8, 0.9


class Table:
    """Two actions, −1 and 1; the chosen one leads on or back, and the last state pays."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.following = rng.dirichlet(np.ones(N_STATES), size=(N_STATES, 2))  # (S, 2, S)
        self.rewards = rng.normal(size=(N_STATES, 2))
        self.chosen = rng.integers(2, size=N_STATES)

    def predict(self, observations: np.ndarray, deterministic: bool = False) -> tuple[np.ndarray, None]:
        return np.where(self.chosen[observations.argmax(1)], 1.0, -1.0)[:, None].astype(np.float32), None

    def value(self) -> float:
        """Of the policy, from a state that is drawn uniformly."""
        rows = np.arange(N_STATES)
        chain, reward = self.following[rows, self.chosen], self.rewards[rows, self.chosen]
        return float(np.linalg.solve(np.eye(N_STATES) - GAMMA * chain, reward).mean())

    def data(self, n_episodes: int, seed: int) -> OfflineDataset:
        """Episodes of a behaviour that tosses a coin, cut after :data:`HORIZON` steps."""
        rng = np.random.default_rng(seed)
        s = np.empty((n_episodes, HORIZON + 1), int)
        a = rng.integers(2, size=(n_episodes, HORIZON))
        s[:, 0] = rng.integers(N_STATES, size=n_episodes)
        for t in range(HORIZON):
            cumulative = self.following[s[:, t], a[:, t]].cumsum(1)
            s[:, t + 1] = (rng.random((n_episodes, 1)) > cumulative).sum(1).clip(max=N_STATES - 1)
        eye = np.eye(N_STATES, dtype=np.float32)
        rewards = self.rewards[s[:, :-1], a] + 0.3 * rng.normal(size=a.shape)
        n = a.size
        return OfflineDataset(
            observations=eye[s[:, :-1].ravel()],
            actions=np.where(a, 1.0, -1.0).reshape(n, 1).astype(np.float32),
            rewards=rewards.ravel().astype(np.float32),
            next_observations=eye[s[:, 1:].ravel()],
            terminations=np.zeros(n, bool),
            truncations=np.arange(1, n + 1) % HORIZON == 0,
            observation_space=spaces.Box(0.0, 1.0, (N_STATES,), np.float32),
            action_space=spaces.Box(-1.0, 1.0, (1,), np.float32),
        )


def cells(states: Tensor, actions: Tensor) -> Tensor:
    """One feature for each state and action."""
    cell = 2 * states.argmax(-1) + (actions[..., 0] > 0)
    return th.nn.functional.one_hot(cell, 2 * N_STATES).double()


def of_table(table: Table, n_episodes: int, seed: int, **settings: Any) -> FQE:
    arguments: dict[str, Any] = {"gamma": GAMMA, "clip_targets": False, "seed": seed, "device": "cpu", "net_arch": ()}
    fqe = FQE(table, table.data(n_episodes, seed + 10_000), **(arguments | settings))
    fqe._fit.next_actions.prepare(1, cached=True)
    return solve(fqe, cells, 80)


def test_a_table_is_solved():
    """Exactly: the value of the chain that the data count."""
    table = Table()
    fqe = of_table(table, 50, 0, n_members=1, bootstrap=False)
    s, a, following = fqe.dataset.observations.argmax(1), fqe.dataset.actions[:, 0] > 0, fqe.dataset.next_observations
    seen = [(s == state) & (a == table.chosen[state]) for state in range(N_STATES)]
    chain = np.stack([following[rows].mean(0) for rows in seen]).astype(float)
    reward = np.array([fqe.dataset.rewards[rows].mean() for rows in seen], float)
    values = np.linalg.solve(np.eye(N_STATES) - GAMMA * chain, reward)
    assert fqe.state_values(np.eye(N_STATES, dtype=np.float32))[0] == pytest.approx(values, rel=2e-3, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_intervals_hold_the_truth_as_often_as_they_say(level: float):
    """200 repetitions of 60 episodes; the standard error of a share of 0.9 is 0.02 then."""
    table = Table()
    truth = table.value()
    held = []
    for seed in range(200):
        low, high = of_table(table, 60, seed).estimate(level).interval
        held.append(low <= truth <= high)
    print(f"{np.mean(held):.3f} of 200 intervals of level {level} hold the truth")
    assert abs(np.mean(held) - level) < 0.07
