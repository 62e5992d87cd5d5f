"""
Values of a policy from the episodes of another one, by importance weights: formulas on numbers, no networks.

Episodes stand in rows of length T, the longest one's. Where an episode has ended its reward is 0, its ratio 1, and ``alive``
False. ``log_ratios`` are log π(a | s) − log b(a | s) of each step.
"""

from typing import NamedTuple

import numpy as np


class Steps(NamedTuple):
    """
    E episodes of at most T steps.

    :param log_ratios: (E, T), 0 where an episode has ended
    :param rewards: (E, T), 0 where an episode has ended
    :param alive: bool (E, T), whether there is a step
    """

    log_ratios: np.ndarray
    rewards: np.ndarray
    alive: np.ndarray


def padded(values: np.ndarray, episode_ends: np.ndarray) -> np.ndarray:
    """
    :param values: (N,), row by row
    :param episode_ends: (E,) exclusive row ends
    :return: (E, T), 0 where an episode has ended
    """
    lengths = np.diff(episode_ends, prepend=0)
    rows = np.zeros((len(lengths), int(lengths.max())), dtype=np.float64)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = values
    return rows


def steps_of(log_ratios: np.ndarray, rewards: np.ndarray, episode_ends: np.ndarray, clip: tuple[float, float] | None) -> Steps:
    """
    :param log_ratios: (N,)
    :param rewards: (N,)
    :param episode_ends: (E,) exclusive row ends
    :param clip: bounds of each log ratio; None: none
    """
    clipped = log_ratios if clip is None else np.clip(log_ratios, *clip)
    alive = padded(np.ones(len(rewards)), episode_ends) > 0
    return Steps(padded(clipped, episode_ends), padded(rewards, episode_ends), alive)


def cumulative_weights(steps: Steps) -> np.ndarray:
    """c_t = Π_{j ≤ t} ρ_j; after its end an episode keeps its last one. (E, T)"""
    return np.asarray(np.exp(np.cumsum(steps.log_ratios, axis=1)))


def normalised(weights: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Weights over their sum, at each step over the episodes that still run. (E, T)"""
    total = (weights * alive).sum(axis=0)
    return np.asarray(np.divide(weights * alive, total, out=np.zeros_like(weights), where=total > 0))


def discounts(steps: Steps, gamma: float) -> np.ndarray:
    """γ^t, (T,)"""
    return np.asarray(gamma ** np.arange(steps.rewards.shape[1]))


def trajectory_is(steps: Steps, gamma: float) -> float:
    """Ordinary importance sampling: the mean of whole returns, each times the product of all its ratios."""
    whole = np.exp(steps.log_ratios.sum(axis=1))
    return float((whole * (steps.rewards @ discounts(steps, gamma))).mean())


def trajectory_wis(steps: Steps, gamma: float) -> float:
    """Weighted importance sampling: as :func:`trajectory_is`, over the sum of the weights."""
    whole = np.exp(steps.log_ratios.sum(axis=1))
    return float((whole / whole.sum()) @ (steps.rewards @ discounts(steps, gamma)))


def pdis(steps: Steps, gamma: float) -> float:
    """Per-decision importance sampling: each reward times the ratios up to it (Precup et al. 2000)."""
    return float(((cumulative_weights(steps) * steps.rewards).mean(axis=0) * discounts(steps, gamma)).sum())


def wpdis(steps: Steps, gamma: float) -> float:
    """:func:`pdis` with weights normalised at each step over the episodes that still run: biased, far less noisy."""
    weights = normalised(cumulative_weights(steps), steps.alive)
    # what an episode that has ended would have added is 0: the mean over all episodes, not over those that run
    share = steps.alive.mean(axis=0)
    return float(((weights * steps.rewards).sum(axis=0) * share * discounts(steps, gamma)).sum())


def effective_sample_size(steps: Steps) -> np.ndarray:
    """(Σc)²/Σc² at each step over the episodes that still run, (T,): how many episodes carry the weight."""
    weights = cumulative_weights(steps) * steps.alive
    largest = weights.max(axis=0, keepdims=True)  # squares of weights overflow first
    weights = np.divide(weights, largest, out=np.zeros_like(weights), where=largest > 0)
    squares = (weights**2).sum(axis=0)
    return np.asarray(np.divide(weights.sum(axis=0) ** 2, squares, out=np.zeros_like(squares), where=squares > 0))


def doubly_robust(steps: Steps, q: np.ndarray, v: np.ndarray, gamma: float) -> float:
    """
    Jiang and Li 2016: the model's value, corrected by weighted TD errors; right if either the ratios or Q are.

    :param steps: E episodes
    :param q: (E, T) Q(s_t, a_t), 0 where an episode has ended
    :param v: (E, T) V(s_t), likewise
    :param gamma: discount
    """
    weights = cumulative_weights(steps)
    before = np.concatenate([np.ones((len(weights), 1)), weights[:, :-1]], axis=1)
    terms = weights * (steps.rewards - q) + before * v
    return float(((terms * steps.alive).mean(axis=0) * discounts(steps, gamma)).sum())


def weighted_doubly_robust(steps: Steps, q: np.ndarray, v: np.ndarray, gamma: float) -> float:
    """
    Thomas and Brunskill 2016: :func:`doubly_robust` with normalised weights.

    :param steps: E episodes
    :param q: (E, T) Q(s_t, a_t), 0 where an episode has ended
    :param v: (E, T) V(s_t), likewise
    :param gamma: discount
    """
    weights, share = cumulative_weights(steps), steps.alive.mean(axis=0)
    now = normalised(weights, steps.alive) * share
    before = np.concatenate([np.ones((len(weights), 1)), weights[:, :-1]], axis=1)
    before = normalised(before, steps.alive) * share
    return float(((now * (steps.rewards - q) + before * v).sum(axis=0) * discounts(steps, gamma)).sum())
