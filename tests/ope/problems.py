"""Small problems whose values are known."""

from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_genoffline.data import OfflineDataset

ACTIONS = spaces.Box(-2.0, 2.0, (1,), np.float32)


class Linear:
    """π(s) = gain·s, with or without noise from torch's global generator."""

    def __init__(self, gain: float = -0.3, noise: float = 0.0) -> None:
        self.gain, self.noise = gain, noise

    def predict(self, observations: Any, deterministic: bool = False) -> tuple[np.ndarray, None]:
        import torch as th

        return self.gain * observations + self.noise * th.randn(observations.shape).numpy(), None


def linear_data(n: int = 4000, seed: int = 0, quadratic: bool = False, n_rows_episode: int = 40) -> OfflineDataset:
    """s' = 0.9 s + a; r = s + 0.5 a, or −s² − a². Rows are drawn on their own: what follows an episode's row is any state."""
    rng = np.random.default_rng(seed)
    s, a = rng.normal(0, 1.5, (n, 1)).astype(np.float32), rng.uniform(-2, 2, (n, 1)).astype(np.float32)
    return OfflineDataset(
        observations=s,
        actions=a,
        rewards=(-(s**2) - a**2 if quadratic else s + 0.5 * a)[:, 0],
        next_observations=0.9 * s + a,
        terminations=np.zeros(n, bool),
        truncations=np.arange(1, n + 1) % n_rows_episode == 0,
        observation_space=spaces.Box(-np.inf, np.inf, (1,), np.float32),
        action_space=ACTIONS,
    )
