"""Which rows follow on each other: whether a row's next observation is the observation of the next row."""

from typing import Any

import numpy as np

from sb3_genoffline.data.blocks import row_blocks

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
    n_rows = len(observations)
    breaks = np.empty(max(n_rows - 1, 0), dtype=np.bool_)
    with np.errstate(over="ignore", invalid="ignore"):
        moved: Any = sum(
            np.abs(next_observations[block] - observations[block]).sum(axis=0, dtype=np.float64)
            for block in row_blocks(n_rows)
        )
        for block in row_blocks(len(breaks)):
            following, after = next_observations[block], observations[1:][block]
            rounding = 4 * eps * np.maximum(np.abs(following), np.abs(after))
            breaks[block] = (np.abs(after - following) > rounding + share * moved / n_rows).any(axis=1)
    return breaks


def chain_ends(observations: np.ndarray, next_observations: np.ndarray, eps: float = SINGLE) -> np.ndarray:
    """
    :param observations: float32 ``(N, obs_dim)``, N at least 1.
    :param next_observations: Likewise.
    :param eps: As in :func:`chain_breaks`.
    :return: Bool ``(N,)``: the rows whose next observation is not the next row's observation, and the last row.
    """
    return np.append(chain_breaks(observations, next_observations, eps), True)
