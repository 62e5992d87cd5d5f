"""In how many logged maze episodes the goal was reached."""

from typing import Protocol

import numpy as np

JUMP = 1.0  # m between two rows that are not one step apart
AT_GOAL = float(np.exp(-0.45)) - 1e-6  # least reward at the goal: 1 if sparse, exp(-distance) within 0.45 m if dense


class Episodes(Protocol):
    """What of an :class:`~sb3_genoffline.data.dataset.OfflineDataset` tells successes."""

    @property
    def observations(self) -> np.ndarray:
        """(N, S)"""

    @property
    def rewards(self) -> np.ndarray:
        """(N,)"""

    @property
    def next_observations(self) -> np.ndarray:
        """(N, S)"""

    @property
    def terminations(self) -> np.ndarray:
        """Bool (N,)"""

    @property
    def episode_starts(self) -> np.ndarray:
        """First row of each episode, int64 (E,)."""

    @property
    def episode_ends(self) -> np.ndarray:
        """Exclusive, int64 (E,)."""


def far_apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """
    :param a: (N, at least 2), metres in the first two columns
    :param b: likewise
    :return: bool (N,), whether the places are more than :data:`JUMP` apart
    """
    return np.asarray(np.linalg.norm(b[:, :2].astype(np.float64) - a[:, :2], axis=1) > JUMP)


def success_rate(dataset: Episodes) -> float:
    """
    :param dataset: maze data, raw rewards: sparse (1 at the goal) or gymnasium-robotics' dense ones
    :return: share of the logged episodes in which the goal was reached, 0 to 1
    """
    starts, last = dataset.episode_starts, dataset.episode_ends - 1
    reached = np.maximum.reduceat(dataset.rewards, starts) >= AT_GOAL
    before, after = last[:-1], starts[1:]
    goes_on = dataset.terminations[before] & ~far_apart(dataset.observations[before], dataset.observations[after])
    # only D4RL's logs go on behind a termination; its rows then have themselves as their next observation
    goes_on &= (dataset.next_observations[before] == dataset.observations[before]).all(axis=1)
    logged = np.concatenate([[0], np.cumsum(~goes_on)])
    return float((np.bincount(logged, weights=reached) > 0).mean())
