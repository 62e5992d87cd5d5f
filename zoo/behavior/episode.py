"""An episode as a collector hands it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Observations = np.ndarray | Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class Episode:
    """
    :param observations: ``(T + 1, …)``, the last one included; a mapping of arrays for Dict observations
    :param actions: ``(T, act_dim)`` as the environment received them
    :param rewards: ``(T,)`` float64
    :param terminated: The task ended at the last step
    :param truncated: The time limit, or the end of collection, cut it at the last step
    :param infos: Further arrays of ``T + 1`` rows, as Minari stores them (the first row belongs to the reset)
    """

    observations: Observations
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    truncated: bool
    infos: Mapping[str, np.ndarray] | None = None
