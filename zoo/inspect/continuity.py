"""What the states themselves say about ends that were not logged, or logged the wrong way round."""

from dataclasses import dataclass

import numpy as np

from sb3_genoffline.data import OfflineDataset

from .measures import chunks

JUMP = 10.0
"""A step so many times as long as the median one is a jump."""


@dataclass(frozen=True)
class Continuity:
    """
    How the observations move from row to row, across the ends of episodes too, in standard deviations of each column.

    :param jumps: rows from which it is a jump to the next
    :param roughness: mean squared step over twice the variance: 1 for independent rows, near 0 for a smooth log in time order
    """

    jumps: int
    roughness: float


def measure_continuity(data: OfflineDataset, std: np.ndarray) -> Continuity:
    """
    :param data: any
    :param std: (S,) standard deviation of the observation columns
    """
    moving = std > 0
    if len(data) < 2 or not moving.any():
        return Continuity(jumps=0, roughness=1.0)
    steps = np.empty(len(data) - 1, dtype=np.float32)
    for rows in chunks(len(steps)):
        differences = np.diff(data.observations[rows.start : rows.stop + 1][:, moving], axis=0) / std[moving]
        steps[rows] = np.sqrt((differences**2).mean(axis=1))
    return Continuity(
        jumps=int((steps > JUMP * np.median(steps)).sum()),
        roughness=float(np.mean(steps**2, dtype=np.float64)) / 2,
    )
