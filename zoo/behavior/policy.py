"""What every behaviour policy can do."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

Noise = str | float
"""``"none"``, ``"policy"`` (as it was trained) or a standard deviation in action units."""


class Policy(Protocol):
    """A trained actor in plain numpy, kept in a safetensors file."""

    @property
    def obs_dim(self) -> int: ...

    @property
    def act_dim(self) -> int: ...

    def act(self, observations: np.ndarray, noise: Noise, generator: np.random.Generator | None = None) -> np.ndarray:
        """
        :param observations: ``(n, obs_dim)`` raw observations
        :param noise: How the actor explores
        :param generator: Draws the noise; needed unless there is none
        :return: ``(n, act_dim)`` float32 actions inside the action space
        """
        ...

    def save(self, path: str | Path) -> None:
        """Write the policy as one safetensors file, in one step: a killed process leaves the old file or the new one."""
        ...
