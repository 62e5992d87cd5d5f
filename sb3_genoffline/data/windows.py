"""Discounted returns of windows that slide along the episodes: what QDQ's consistency model learns from."""

import warnings
from typing import NamedTuple

import numpy as np

from sb3_genoffline.data.chain import chain_breaks
from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.errors import UserError

_MOST_JUMPS = 0.1


class WindowedReturns(NamedTuple):
    """
    M windows.

    :param rows: int64 (M,), the dataset's row that a window starts at
    :param lengths: int64 (M,), rewards in it
    :param returns: float64 (M,), Σ_i γ^i·r_{p+i}; nothing is bootstrapped where the window ends
    """

    rows: np.ndarray
    lengths: np.ndarray
    returns: np.ndarray


def windowed_returns(
    dataset: OfflineDataset,
    gamma: float = 0.99,
    window: int = 200,
    stride: int = 10,
    max_windows: int = 100,
    full_coverage: bool = False,
    reward_scale: float = 1.0,
    reward_shift: float = 0.0,
) -> WindowedReturns:
    """
    The truncated Q dataset of QDQ (eq. 5, with the discount counted from the window's start, as its released code has it).

    A trajectory of at most ``window`` steps gives one item, its whole return. A longer one gives windows that start every
    ``stride`` steps, up to the first that reaches its end (which may be shorter) or the ``max_windows``-th.

    :param dataset: episodes of any lengths
    :param gamma: discount
    :param window: W, rewards in a window
    :param stride: steps between the starts of two windows
    :param max_windows: at most so many per trajectory
    :param full_coverage: slide on, with ever shorter windows, up to a trajectory's last step (not in the paper); short
        trajectories then have windows too
    :param reward_scale: the rewards that count are ``reward_scale·r + reward_shift``
    :param reward_shift: see ``reward_scale``
    """
    for name, value in (("window", window), ("stride", stride), ("max_windows", max_windows)):
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1.")
    ends = trajectory_ends(dataset)
    starts = np.concatenate([[0], ends[:-1]])
    counts = count_windows(ends - starts, window, stride, max_windows, full_coverage)
    trajectory = np.repeat(np.arange(len(ends)), counts)
    number = np.arange(len(trajectory)) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, ... in each trajectory
    rows = starts[trajectory] + number * stride
    lengths = np.minimum(window, ends[trajectory] - rows)
    rewards = reward_scale * dataset.rewards.astype(np.float64) + reward_shift
    returns = np.zeros(len(rows))
    longest_first = np.argsort(-lengths, kind="stable")
    n_longer = np.searchsorted(-lengths[longest_first], -np.arange(1, lengths.max() + 1), side="right")
    for step, n in enumerate(n_longer):  # the windows that have a reward at this step
        chosen = longest_first[:n]
        returns[chosen] += gamma**step * rewards[rows[chosen] + step]
    return WindowedReturns(rows, lengths, returns)


def count_windows(
    lengths: np.ndarray, window: int = 200, stride: int = 10, max_windows: int = 100, full_coverage: bool = False
) -> np.ndarray:
    """
    :param lengths: int (E,) of trajectories
    :param window: W
    :param stride: k
    :param max_windows: at most so many
    :param full_coverage: windows start every ``stride`` steps up to the last step
    :return: int64 (E,) number of windows of each: 1 up to ``window`` steps, then ⌈(L − W)/k⌉ + 1, at most ``max_windows``
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    n_starts = (lengths - 1) // stride + 1
    if not full_coverage:  # the first window that reaches the end is the last
        n_starts = np.minimum(n_starts, 1 - np.minimum(0, (window - lengths) // stride))
    return np.asarray(np.minimum(max_windows, n_starts))


def trajectory_ends(dataset: OfflineDataset) -> np.ndarray:
    """
    Exclusive row ends of the stretches that were recorded without a break: the episodes' ends, terminations and truncations
    inside an episode, and places inside one where the next observation is not the observation that follows, as in QDQ's
    released code (which compares with 1e-6; here the tolerance follows the data).

    :param dataset: where such places are more than a tenth of all rows, they can't be breaks (noise on the observations?): a
        warning says so and the others alone count
    :return: int64 (K,)
    """
    marked = np.union1d(np.flatnonzero(dataset.terminations | dataset.truncations) + 1, dataset.episode_ends)
    gaps = chain_breaks(dataset.observations, dataset.next_observations)
    breaks = np.setdiff1d(np.flatnonzero(gaps) + 1, marked)
    if len(breaks) > _MOST_JUMPS * len(dataset):
        warnings.warn(
            f"In {len(breaks) / len(dataset):.0%} of the rows the next observation is not the observation that follows, so "
            "that can't tell where a recording was interrupted: only episode_ends and flags count as trajectory ends.",
            stacklevel=2,
        )
        return marked
    return np.union1d(breaks, marked)
