"""
The crossing: a task that can only be solved by joining the first half of one trajectory to the second half of another.

A point moves from left to right in ten steps; the action is its vertical speed. Half of the behaviour's episodes start below,
rise to the middle and sink back; the other half start above, sink to the middle and rise again. Only the last step is paid, by
the height at the end. So all that started below ended badly, and near the middle all heights have seen both ways, down a bit
more often below it. The agent starts below: imitation sinks with those it knows, the best policy rises.
"""

import numpy as np
from gymnasium import spaces

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm

N_STEPS, STEP = 10, 0.2
START, SPEED = 0.8, 0.8
AIM_OFF, ACTION_NOISE = 0.05, 0.15
OBSERVATION_SPACE = spaces.Box(-2.0, 2.0, (2,), np.float32)
ACTION_SPACE = spaces.Box(-1.0, 1.0, (1,), np.float32)


def observe(step: int, heights: np.ndarray) -> np.ndarray:
    """(B, 2): how far the points are, from −1 to 1, and how high."""
    return np.stack([np.full_like(heights, 2.0 * step / N_STEPS - 1.0), heights], axis=1).astype(np.float32)


def move(step: int, heights: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    :return: the next heights and the rewards, each (B,)
    """
    heights = heights + STEP * np.clip(actions, -1.0, 1.0)
    return heights, 5.0 * np.maximum(1.0 + heights, 0.0) * (step == N_STEPS - 1)


def make_crossing(n_episodes: int = 600, seed: int = 0) -> OfflineDataset:
    """The behaviour's episodes, which terminate at the right end; their mean return is 5."""
    rng = np.random.default_rng(seed)
    side = np.where(np.arange(n_episodes) % 2 == 0, 1.0, -1.0)  # above or below
    heights = side * START + 0.05 * rng.normal(size=n_episodes)
    half = N_STEPS // 2
    columns: dict[str, list[np.ndarray]] = {"observations": [], "actions": [], "rewards": [], "next_observations": []}
    for step in range(N_STEPS):
        wanted = (side * AIM_OFF - heights) / (STEP * (half - step)) if step < half else side * SPEED
        actions = np.clip(wanted + ACTION_NOISE * rng.normal(size=n_episodes), -1.0, 1.0)
        following, rewards = move(step, heights, actions)
        row = (observe(step, heights), actions[:, None], rewards, observe(step + 1, following))
        for column, values in zip(columns.values(), row, strict=True):
            column.append(values)
        heights = following
    arrays = {name: np.stack(values, axis=1).reshape(n_episodes * N_STEPS, -1) for name, values in columns.items()}
    ends = np.arange(n_episodes * N_STEPS) % N_STEPS == N_STEPS - 1
    return OfflineDataset(
        **(arrays | {"rewards": arrays["rewards"][:, 0]}),
        terminations=ends,
        truncations=np.zeros_like(ends),
        observation_space=OBSERVATION_SPACE,
        action_space=ACTION_SPACE,
        id="tests/crossing-v0",
    )


def mean_return(model: OfflineAlgorithm, n_starts: int = 50) -> float:
    """Of an agent that starts below, at heights that the behaviour started from."""
    heights = -START + np.linspace(-0.05, 0.05, n_starts)
    total, state = np.zeros(n_starts), None
    for step in range(N_STEPS):
        actions, state = model.predict(observe(step, heights), state, deterministic=True)
        heights, rewards = move(step, heights, actions[:, 0])
        model.policy.observe_rewards(state, rewards)
        total += rewards
    return float(total.mean())
