"""The page's claims 1 and 17: importance weighting on known numbers, and what must not change an estimate."""

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


@pytest.mark.parametrize("estimator", [doubly_robust, weighted_doubly_robust])
def test_a_right_model_is_kept_whatever_the_ratios_where_episodes_are_cut(estimator):
    """Reward 1 for ever is worth 10: in episodes of several lengths, all of them cut; without the cuts it is far from it."""
    rng, lengths = np.random.default_rng(0), [3, 1, 5, 2, 5]
    ratios, _, ends = ragged(rng, lengths)
    ones = np.ones(len(ratios))
    steps = steps_of(ratios, ones, ends, None, cut=np.ones(5, bool))
    model = 10 * steps.alive
    if estimator is weighted_doubly_robust:
        assert estimator(steps, model, model, GAMMA, np.full(5, 10.0)) == pytest.approx(10)
    assert estimator(steps_of(0 * ratios, ones, ends, None, np.ones(5, bool)), model, model, GAMMA, np.full(5, 10.0)) == (
        pytest.approx(10)
    )
    ended = steps._replace(cut=np.zeros(5, bool))
    without = estimator(steps._replace(cut=None), model, model, GAMMA)
    assert estimator(ended, model, model, GAMMA, np.full(5, 10.0)) == without < 9


def test_what_follows_a_cut_has_the_weight_of_its_last_step():
    """The recursion from behind begins with V(s_T) where an episode is cut, and with 0 where it has ended."""
    cut, following = np.array([True, False, True, False]), np.array([2.0, 3.0, -1.0, 5.0])
    value = np.where(cut, following, 0.0)
    for t in (2, 1, 0):
        value = V[:, t] + np.exp(RATIOS[:, t]) * (REWARDS[:, t] + GAMMA * value - Q[:, t])
    assert doubly_robust(example()._replace(cut=cut), Q, V, GAMMA, following) == pytest.approx(value.mean())
    weights = np.exp(RATIOS.sum(axis=1))
    share = weights[cut] / weights[cut].sum() * 0.5
    added = GAMMA**3 * share @ following[cut]
    expected = weighted_doubly_robust(example(), Q, V, GAMMA) + added
    assert weighted_doubly_robust(example()._replace(cut=cut), Q, V, GAMMA, following) == pytest.approx(expected)
