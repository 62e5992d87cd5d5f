"""What can be measured about logged data before anything is trained: each part of a report in one function."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sb3_genoffline.data import OfflineDataset, scale_actions
from sb3_genoffline.data.antmaze import success_rate
from sb3_genoffline.data.chain import chain_breaks

SATURATION_MARGIN = 1e-3
"""An action this near to a bound, on the scale of [−1, 1], counts as saturated."""
ON_BOUND = 1e-6
"""An action this near to a bound lies on it, but for rounding."""
VALUE_ROWS = 100_000
"""Rows in which the different values of an action are counted."""
SPARSE = 0.9
"""Share of the most frequent reward from which rewards are sparse."""
HISTOGRAM_BINS = 40
ROUND_OFF = 1e-5
"""Observations may leave their space by so much of a bound (of 1, if the bound is smaller)."""
SHORTEST_INFERRED_LIMIT, FEWEST_AT_INFERRED_LIMIT, SHARE_AT_INFERRED_LIMIT = 10, 3, 0.05
"""The longest length counts as a step limit that nobody stated if it has so many steps and so many episodes have it."""
_CHUNK = 1 << 16


@dataclass(frozen=True, eq=False)
class Episodes:
    """
    Where episodes end, and why.

    :param lengths: smallest, median and largest number of steps
    :param terminated: episodes whose last row is a termination and no truncation
    :param truncated: whose last row is a truncation and no termination
    :param both: whose last row is both
    :param cut: whose last row is neither
    :param step_limit: steps after which the environment cuts an episode
    :param limit_inferred: the limit is not the environment's but the length that the longest episodes share
    :param at_limit: episodes with exactly as many steps
    :param terminated_at_limit: those of them that are marked as terminations
    :param above_limit: episodes with more steps
    :param termination_share: share of the rows that are terminations
    :param flags_inside: rows inside episodes that are marked as an end
    :param single_steps: episodes of one step that do not terminate
    :param gaps: rows inside episodes whose next observation is not the observation of the row after them
    :param standing: share of the rows without termination whose next observation is their own observation
    """

    lengths: tuple[int, float, int]
    terminated: int
    truncated: int
    both: int
    cut: int
    step_limit: int | None
    limit_inferred: bool
    at_limit: int
    terminated_at_limit: int
    above_limit: int
    termination_share: float
    flags_inside: int
    single_steps: int
    gaps: int
    standing: float


@dataclass(frozen=True, eq=False)
class Returns:
    """
    Undiscounted returns of the episodes.

    :param mean: mean
    :param std: standard deviation (of the population)
    :param quartiles: (5,) minimum, quartiles and maximum
    :param counts: (B,) episodes in each bin of the histogram
    :param edges: (B + 1,) of the bins
    :param success_rate: share of the episodes in which the goal is reached (None: not a maze)
    :param score_mean: mean on the normalised scale (None: no reference returns are known); of a maze 100 · ``success_rate``
    :param score_std: standard deviation there; None for mazes too
    :param score_quartiles: the quartiles there; None for mazes too
    :param references: returns that count as 0 and as 100; None for mazes, whose returns do not count
    """

    mean: float
    std: float
    quartiles: np.ndarray
    counts: np.ndarray
    edges: np.ndarray
    success_rate: float | None
    score_mean: float | None
    score_std: float | None
    score_quartiles: np.ndarray | None
    references: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Actions:
    """
    The A dimensions of the actions, scaled to [−1, 1].

    :param mean: (A,)
    :param std: (A,)
    :param low: (A,) smallest
    :param high: (A,) largest
    :param at_low: (A,) share within ``SATURATION_MARGIN`` of −1
    :param at_high: (A,) share within it of 1
    :param any_saturated: share of rows in which any dimension is at a bound
    :param clipped: (A,) share of rows that lie on a bound exactly, as clipping leaves them and squashing does not
    :param held: (A,) share of these whose next row in the episode lies on the same bound: seldom after noise, mostly under a
        controller that pushes as hard as it may
    :param n_values: int (A,) different values in ``value_rows`` rows
    :param value_rows: see ``n_values``
    """

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    at_low: np.ndarray
    at_high: np.ndarray
    any_saturated: float
    clipped: np.ndarray
    held: np.ndarray
    n_values: np.ndarray
    value_rows: int

    @property
    def saturated(self) -> np.ndarray:
        """(A,) share of rows at either bound."""
        return self.at_low + self.at_high


@dataclass(frozen=True, eq=False)
class Observations:
    """
    The S columns of the observations, in their own units.

    :param mean: (S,)
    :param std: (S,)
    :param low: (S,) smallest
    :param high: (S,) largest
    :param outlier: (S,) largest distance from the mean, in standard deviations; 0 in a constant column
    :param outside: (S,) share of rows beyond the bounds of the observation space
    """

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    outlier: np.ndarray
    outside: np.ndarray


@dataclass(frozen=True, eq=False)
class Rewards:
    """
    Single rewards, and the discounted returns Σ γ^i·r that follow each row within its episode.

    :param mean: mean
    :param std: standard deviation
    :param low: smallest
    :param high: largest
    :param zeros: share of rewards that are 0
    :param n_values: number of different rewards
    :param mode: the most frequent one
    :param mode_share: share of rows that have it
    :param gamma: discount
    :param bound: max|r|/(1 − γ), what no discounted return can exceed
    :param attained: smallest and largest discounted return in the data; what follows a truncation is not in them
    """

    mean: float
    std: float
    low: float
    high: float
    zeros: float
    n_values: int
    mode: float
    mode_share: float
    gamma: float
    bound: float
    attained: tuple[float, float]

    @property
    def sparse(self) -> bool:
        """Whether nearly all rewards are the same, as of tasks that only reward success."""
        return self.mode_share >= SPARSE

    @property
    def largest_attained(self) -> float:
        """Largest magnitude of a discounted return."""
        return max(map(abs, self.attained))


def measure_episodes(data: OfflineDataset) -> Episodes:
    """:param data: any"""
    lengths, last = data.episode_lengths(), data.episode_ends - 1
    terminated, truncated = data.terminations[last], data.truncations[last]
    limit, inferred = _step_limit(data, lengths)
    at_limit = lengths == limit if limit is not None else np.zeros(len(lengths), dtype=bool)
    inside = data.terminations | data.truncations
    inside[last] = False
    gaps, standing = 0, 0
    is_last = np.zeros(len(data), dtype=bool)
    is_last[last] = True
    for rows in chunks(len(data)):
        overlapping = slice(rows.start, rows.stop + 1)
        jump = chain_breaks(data.observations[overlapping], data.next_observations[overlapping])
        gaps += int((jump & ~is_last[rows][: len(jump)]).sum())
        same = (data.observations[rows] == data.next_observations[rows]).all(axis=1)
        standing += int((same & ~data.terminations[rows]).sum())
    return Episodes(
        lengths=(int(lengths.min()), float(np.median(lengths)), int(lengths.max())),
        terminated=int((terminated & ~truncated).sum()),
        truncated=int((truncated & ~terminated).sum()),
        both=int((terminated & truncated).sum()),
        cut=int((~terminated & ~truncated).sum()),
        step_limit=limit,
        limit_inferred=inferred,
        at_limit=int(at_limit.sum()),
        terminated_at_limit=int((at_limit & terminated).sum()),
        above_limit=int((lengths > limit).sum()) if limit is not None else 0,
        termination_share=float(data.terminations.mean()),
        flags_inside=int(inside.sum()),
        single_steps=int(((lengths == 1) & ~terminated).sum()),
        gaps=gaps,
        standing=standing / max(1, int((~data.terminations).sum())),
    )


def _step_limit(data: OfflineDataset, lengths: np.ndarray) -> tuple[int | None, bool]:
    """The environment's step limit; without one, the length that many of the longest episodes share."""
    for spec in (data.env_spec, data.eval_env_spec):
        if spec is not None and spec.max_episode_steps is not None:
            return spec.max_episode_steps, False
    longest = int(lengths.max())
    share = float((lengths == longest).mean())
    many = share >= SHARE_AT_INFERRED_LIMIT and share * len(lengths) >= FEWEST_AT_INFERRED_LIMIT
    return (longest, True) if many and longest >= SHORTEST_INFERRED_LIMIT else (None, False)


def measure_returns(data: OfflineDataset) -> Returns:
    """:param data: any"""
    returns = data.episode_returns()
    counts, edges = histogram(returns, HISTOGRAM_BINS)
    scale = data.score_scale
    success = success_rate(data) if scale is not None and scale.kind == "success" else None
    by_return = scale if scale is not None and scale.kind == "return" else None
    scores = None if by_return is None else by_return.of(returns)
    levels = [0.0, 0.25, 0.5, 0.75, 1.0]
    return Returns(
        mean=float(returns.mean()),
        std=float(returns.std()),
        quartiles=np.quantile(returns, levels),
        counts=counts,
        edges=edges,
        success_rate=success,
        score_mean=None if scale is None else float(scale.of(returns, success).mean()),
        score_std=None if scores is None else float(scores.std()),
        score_quartiles=None if scores is None else np.quantile(scores, levels),
        references=None if by_return is None else (by_return.low, by_return.high),
    )


def measure_actions(data: OfflineDataset, seed: int) -> Actions:
    """
    :param data: any
    :param seed: of the rows in which values are counted
    """

    def scaled(rows: slice) -> np.ndarray:
        return scale_actions(data.actions[rows], data.action_space)

    mean, std = _moments(scaled, len(data))
    low, high = (scale_actions(edge, data.action_space) for edge in (data.actions.min(axis=0), data.actions.max(axis=0)))
    std[low == high] = 0.0
    at_low, at_high, any_saturated, clipped = np.zeros(len(mean)), np.zeros(len(mean)), 0, np.zeros(len(mean))
    for rows in chunks(len(data)):
        actions = scaled(rows)
        below, above = actions <= SATURATION_MARGIN - 1, actions >= 1 - SATURATION_MARGIN
        at_low += below.sum(axis=0)
        at_high += above.sum(axis=0)
        any_saturated += int((below | above).any(axis=1).sum())
        clipped += (np.abs(actions) >= 1 - ON_BOUND).sum(axis=0)
    sample = data.actions[sample_rows(len(data), VALUE_ROWS, seed)]
    return Actions(
        mean=mean,
        std=std,
        low=low,
        high=high,
        at_low=at_low / len(data),
        at_high=at_high / len(data),
        any_saturated=any_saturated / len(data),
        clipped=clipped / len(data),
        held=_held_at_bounds(data),
        n_values=np.array([len(np.unique(column)) for column in sample.T]),
        value_rows=len(sample),
    )


def _held_at_bounds(data: OfflineDataset) -> np.ndarray:
    """See :attr:`Actions.held`; 0 in a dimension that never lies on a bound."""
    last, width = np.zeros(len(data), bool), data.actions.shape[1]
    last[data.episode_ends - 1] = True
    followed, stay = np.zeros((2, width))
    for rows in chunks(len(data)):
        actions = scale_actions(data.actions[rows.start : rows.stop + 1], data.action_space)
        goes_on = ~last[rows.start : rows.start + len(actions) - 1, None]
        for bound in (-1, 1):
            on = bound * actions >= 1 - ON_BOUND
            followed += (on[:-1] & goes_on).sum(axis=0)
            stay += (on[:-1] & on[1:] & goes_on).sum(axis=0)
    return stay / np.maximum(followed, 1)


def measure_observations(data: OfflineDataset) -> Observations:
    """:param data: any"""
    mean, std = _moments(lambda rows: data.observations[rows], len(data))
    low, high = data.observations.min(axis=0), data.observations.max(axis=0)
    std[low == high] = 0.0  # without the round-off of the mean
    bounds = data.observation_space.low.astype(np.float64), data.observation_space.high.astype(np.float64)
    slack = [ROUND_OFF * np.maximum(1.0, np.abs(bound)) for bound in bounds]
    outside = np.zeros(len(mean))
    for rows in chunks(len(data)):
        beyond = (data.observations[rows] < bounds[0] - slack[0]) | (data.observations[rows] > bounds[1] + slack[1])
        outside += beyond.sum(axis=0)
    farthest = np.maximum(high - mean, mean - low)
    return Observations(
        mean=mean,
        std=std,
        low=low,
        high=high,
        outlier=np.divide(farthest, std, out=np.zeros_like(std), where=low < high),
        outside=outside / len(data),
    )


def measure_rewards(data: OfflineDataset, gamma: float) -> Rewards:
    """
    :param data: any
    :param gamma: discount in [0, 1)
    """
    values, counts = np.unique(data.rewards, return_counts=True)
    following = discounted_returns(data, gamma)
    return Rewards(
        mean=float(data.rewards.mean(dtype=np.float64)),
        std=float(data.rewards.std(dtype=np.float64)),
        low=float(values[0]),
        high=float(values[-1]),
        zeros=float((data.rewards == 0).mean()),
        n_values=len(values),
        mode=float(values[counts.argmax()]),
        mode_share=float(counts.max() / len(data)),
        gamma=gamma,
        bound=float(np.abs(values[[0, -1]]).max() / (1 - gamma)),
        attained=(float(following.min()), float(following.max())),
    )


def discounted_returns(data: OfflineDataset, gamma: float) -> np.ndarray:
    """
    Sums Σ_i γ^i·r_{t+i} to the end of the episode, by doubling: each pass joins two sums of equal length, so that a
    logarithmic number of them does.

    :param data: any
    :param gamma: discount in [0, 1)
    :return: float64 (N,)
    """
    sums = data.rewards.astype(np.float64)
    left = np.repeat(data.episode_ends, data.episode_lengths()) - np.arange(len(data))  # rows to the end, this one included
    step = 1
    while step < left.max() and gamma**step > np.finfo(np.float64).eps:
        sums[:-step] += np.where(left[:-step] > step, gamma**step * sums[step:], 0.0)
        step *= 2
    return sums


def histogram(values: np.ndarray, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """
    :param values: (N,)
    :param n_bins: between the smallest and the largest value; around them if they are equal but for round-off
    :return: counts (B,) and edges (B + 1,)
    """
    low, high = float(values.min()), float(values.max())
    room = max(1.0, abs(low), abs(high))
    if high - low < 1e-9 * room:
        low, high = low - 0.5 * room, high + 0.5 * room
    return np.histogram(values, n_bins, range=(low, high))


def chunks(n: int, size: int = _CHUNK) -> Iterator[slice]:
    """Slices that cover n rows one after another, so that what is computed on them needs little memory."""
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))


def _moments(rows_of: Callable[[slice], Any], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of columns in float64, in two passes and without a copy of all rows."""
    mean = sum(rows_of(rows).sum(axis=0, dtype=np.float64) for rows in chunks(n)) / n
    square = sum(np.square(rows_of(rows) - mean).sum(axis=0) for rows in chunks(n)) / n
    return mean, np.sqrt(square)


def sample_rows(n: int, size: int, seed: int) -> np.ndarray:
    """
    :param n: rows there are
    :param size: rows wanted; no more than there are
    :param seed: of the choice
    :return: int64, different row numbers in order
    """
    if n <= size:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size, replace=False))
