"""Which rows follow on each other: whether a row's next observation is the observation of the next row."""

import numpy as np

SINGLE = float(np.finfo(np.float32).eps)
# What two logs of one moment may differ by, as a share of how far the state moves in a step. Another episode begins farther
# away unless every step of the data is a leap.
_SAME_MOMENT = 0.01


def chain_breaks(
    observations: np.ndarray, next_observations: np.ndarray, eps: float = SINGLE, share: float = _SAME_MOMENT
) -> np.ndarray:
    """
    Both tolerances follow the data, column by column: rounding follows the numbers and their type, and the rest how far the
    column moves in a step, on average. So they mean the same for metres and for nanometres.

    :param observations: float32 ``(N, obs_dim)``.
    :param next_observations: Likewise.
    :param eps: Of the coarsest type that the numbers have been in.
    :param share: Of a mean step, beyond which two observations are not the same moment.
    :return: Bool ``(N - 1,)``: whether row i's next observation is not row i + 1's observation.
    """
    following, after = next_observations[:-1], observations[1:]
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.abs(next_observations - observations).mean(axis=0, dtype=np.float64) if len(observations) else 0.0
        rounding = 4 * eps * np.maximum(np.abs(following), np.abs(after))
        return np.asarray((np.abs(after - following) > rounding + share * steps).any(axis=1))


def chain_ends(observations: np.ndarray, next_observations: np.ndarray, eps: float = SINGLE) -> np.ndarray:
    """
    :param observations: float32 ``(N, obs_dim)``, N at least 1.
    :param next_observations: Likewise.
    :param eps: As in :func:`chain_breaks`.
    :return: Bool ``(N,)``: the rows whose next observation is not the next row's observation, and the last row.
    """
    return np.append(chain_breaks(observations, next_observations, eps), True)
