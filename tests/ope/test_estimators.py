"""Importance weighting on numbers: the values of the specification, and what must not change an estimate."""

import numpy as np
import pytest

from sb3_genoffline.ope.estimators import (
    Steps,
    doubly_robust,
    effective_sample_size,
    pdis,
    steps_of,
    trajectory_is,
    trajectory_wis,
    weighted_doubly_robust,
    wpdis,
)

GAMMA = 0.9
E, T = np.meshgrid(np.arange(4), np.arange(3), indexing="ij")
RATIOS, REWARDS = 0.5 * np.sin(1 + E + 2 * T), np.cos(0.3 * E + T)
Q, V = np.sin(E + 0.5 * T), 0.8 * np.cos(0.2 * E + T)


def example(log_ratios: np.ndarray = RATIOS) -> Steps:
    return Steps(log_ratios, REWARDS, np.ones((4, 3), dtype=bool))


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [(trajectory_is, 0.35762700), (pdis, 0.73682583), (trajectory_wis, 0.37156086), (wpdis, 0.52488687)],
)
def test_estimates_of_four_episodes(estimator, expected):
    assert estimator(example(), GAMMA) == pytest.approx(expected, abs=5e-9)


def test_without_ratios_it_is_the_mean_return():
    assert pdis(example(np.zeros((4, 3))), GAMMA) == pytest.approx(0.36368610, abs=5e-9)


def test_effective_sample_sizes():
    assert effective_sample_size(example()) == pytest.approx([3.67240754, 3.40871514, 3.99482235], abs=5e-9)


def test_doubly_robust_estimates():
    assert doubly_robust(example(), Q, V, GAMMA) == pytest.approx(0.10466932, abs=5e-9)
    assert weighted_doubly_robust(example(), Q, V, GAMMA) == pytest.approx(-0.06510012, abs=5e-9)


def test_doubly_robust_is_its_recursion():
    """V_t = v + ρ(r + γV_{t+1} − q), from the last step to the first."""
    value = np.zeros(4)
    for t in (2, 1, 0):
        value = V[:, t] + np.exp(RATIOS[:, t]) * (REWARDS[:, t] + GAMMA * value - Q[:, t])
    assert doubly_robust(example(), Q, V, GAMMA) == pytest.approx(value.mean())


@pytest.mark.parametrize(("clip", "expected"), [((-6.0, 2.0), 0.08788039), (None, 0.08873936)])
def test_ratios_are_clipped_step_by_step(clip, expected):
    flat = (8 * RATIOS).ravel()
    steps = steps_of(flat, REWARDS.ravel(), np.array([3, 6, 9, 12]), clip)
    assert (1 - GAMMA) * wpdis(steps, GAMMA) == pytest.approx(expected, abs=5e-9)


def ragged(rng: np.random.Generator, lengths: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rng.normal(size=sum(lengths)), rng.normal(size=sum(lengths)), np.cumsum(lengths)


@pytest.mark.parametrize("estimator", [trajectory_is, trajectory_wis, pdis, wpdis])
def test_the_order_of_episodes_and_their_doubling_change_nothing(estimator):
    rng = np.random.default_rng(0)
    ratios, rewards, ends = ragged(rng, [3, 1, 5, 2])
    parts = np.split(np.arange(11), ends[:-1])
    expected = estimator(steps_of(ratios, rewards, ends, None), GAMMA)
    for order in ([2, 0, 3, 1], [0, 1, 2, 3, 0, 1, 2, 3]):
        rows = np.concatenate([parts[i] for i in order])
        other = np.cumsum([len(parts[i]) for i in order])
        assert estimator(steps_of(ratios[rows], rewards[rows], other, None), GAMMA) == pytest.approx(expected)


def test_an_ended_episode_has_no_weight_in_later_steps():
    """Episodes of one and three steps: at the second step the longer one is alone, and counts for half of all."""
    steps = steps_of(np.array([5.0, 0.3, 0.1, 0.2]), np.array([1.0, 1.0, 1.0, 1.0]), np.array([1, 4]), None)
    assert effective_sample_size(steps)[1:] == pytest.approx([1, 1])
    assert wpdis(steps, 1.0) == pytest.approx(1 + 0.5 + 0.5)


def test_huge_ratios_give_finite_sizes():
    steps = steps_of(np.array([800.0, 1.0, 799.0, 0.0]) / 2, np.ones(4), np.array([2, 4]), None)
    assert np.isfinite(effective_sample_size(steps)).all()
