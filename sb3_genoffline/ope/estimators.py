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
    :param cut: bool (E,), whether an episode goes on unseen after its last step; None: none does
    """

    log_ratios: np.ndarray
    rewards: np.ndarray
    alive: np.ndarray
    cut: np.ndarray | None = None


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


def steps_of(
    log_ratios: np.ndarray,
    rewards: np.ndarray,
    episode_ends: np.ndarray,
    clip: tuple[float, float] | None,
    cut: np.ndarray | None = None,
) -> Steps:
    """
    :param log_ratios: (N,)
    :param rewards: (N,)
    :param episode_ends: (E,) exclusive row ends
    :param clip: bounds of each log ratio; None: none
    :param cut: bool (E,), see :class:`Steps`
    """
    clipped = log_ratios if clip is None else np.clip(log_ratios, *clip)
    alive = padded(np.ones(len(rewards)), episode_ends) > 0
    return Steps(padded(clipped, episode_ends), padded(rewards, episode_ends), alive, cut)


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
    """
    :func:`pdis` with weights normalised at each step over the episodes that still run: biased, far less noisy. Like all that
    have no Q, it leaves out what follows time-outs.
    """
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


def _states(steps: Steps, v: np.ndarray, following: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Whether there is a state, and its value, both (E, T + 1): of each step, and of what follows the last one of cut ones."""
    none = np.zeros((len(v), 1))
    there, values = np.concatenate([steps.alive, none > 0], axis=1), np.concatenate([v, none], axis=1)
    if steps.cut is not None and following is not None:
        cut = np.flatnonzero(steps.cut)
        lengths = steps.alive.sum(axis=1)[cut]
        there[cut, lengths], values[cut, lengths] = True, following[cut]
    return there, values


def _with_first(weights: np.ndarray) -> np.ndarray:
    """Weights of states: those of the steps that led to them. (E, T) -> (E, T + 1)"""
    return np.concatenate([np.ones((len(weights), 1)), weights], axis=1)


def doubly_robust(steps: Steps, q: np.ndarray, v: np.ndarray, gamma: float, following: np.ndarray | None = None) -> float:
    """
    Jiang and Li 2016: the model's value, corrected by weighted TD errors; right if either the ratios or Q are.

    An episode that is cut after T steps goes on: γ^T·c_T·V(s_T) is added.

    :param steps: E episodes
    :param q: (E, T) Q(s_t, a_t), 0 where an episode has ended
    :param v: (E, T) V(s_t), likewise
    :param gamma: discount
    :param following: (E,) V(s_T) of the state after the last step, read where an episode is cut; None: nothing follows
    """
    weights = cumulative_weights(steps)
    there, values = _states(steps, v, following)
    corrections = (weights * (steps.rewards - q) * steps.alive).mean(axis=0) @ discounts(steps, gamma)
    modelled = (_with_first(weights) * values * there).mean(axis=0) @ gamma ** np.arange(values.shape[1])
    return float(corrections + modelled)


def weighted_doubly_robust(
    steps: Steps, q: np.ndarray, v: np.ndarray, gamma: float, following: np.ndarray | None = None
) -> float:
    """
    Thomas and Brunskill 2016: :func:`doubly_robust` with normalised weights. The state after a cut is one of those that its
    weight is normalised over.

    :param steps: E episodes
    :param q: (E, T) Q(s_t, a_t), 0 where an episode has ended
    :param v: (E, T) V(s_t), likewise
    :param gamma: discount
    :param following: see :func:`doubly_robust`
    """
    weights = cumulative_weights(steps)
    there, values = _states(steps, v, following)
    now = normalised(weights, steps.alive) * steps.alive.mean(axis=0)
    before = normalised(_with_first(weights), there) * there.mean(axis=0)
    corrections = (now * (steps.rewards - q)).sum(axis=0) @ discounts(steps, gamma)
    return float(corrections + (before * values).sum(axis=0) @ gamma ** np.arange(values.shape[1]))
