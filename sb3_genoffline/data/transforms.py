"""Reward transforms of the papers, all affine, and the action transforms; vectorised."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.errors import UserError

Affine = tuple[float, float]
# Sums and means of equal float32 numbers differ by less than this share of them, which is not a spread.
_ROUND_OFF = 1e-7


def _return_spread(dataset: OfflineDataset, name: str) -> float:
    returns = dataset.episode_returns()
    spread = float(returns.max() - returns.min())
    if not spread > _ROUND_OFF * float(np.abs(returns).max()):
        raise UserError(
            f"reward transform {name!r} divides by the spread of the episode returns, which is 0 here: "
            f"{_episodes(dataset)} return {returns[0]:g}. Use another transform, or none."
        )
    return spread


def _episodes(dataset: OfflineDataset) -> str:
    return "the only episode has" if dataset.n_episodes == 1 else f"all {dataset.n_episodes} episodes have"


def iql_locomotion(dataset: OfflineDataset) -> Affine:
    """r · 1000 / (largest − smallest episode return)."""
    return 1000.0 / _return_spread(dataset, "iql_locomotion"), 0.0


def traj_normalize(dataset: OfflineDataset) -> Affine:
    """r · (whole part of the mean episode length) / (largest − smallest episode return)."""
    return float(int(dataset.episode_lengths().mean())) / _return_spread(dataset, "traj_normalize"), 0.0


def reward_normalize(dataset: OfflineDataset) -> Affine:
    """(r − mean) / population standard deviation, over all rewards."""
    rewards = dataset.rewards.astype(np.float64)
    std = float(rewards.std())
    if not std > _ROUND_OFF * float(np.abs(rewards).max()):
        raise UserError(
            "reward transform 'reward_normalize' divides by the standard deviation of the rewards, which is 0 here: "
            f"all {len(dataset)} rewards are {rewards[0]:g}. Use another transform, or none."
        )
    return 1.0 / std, -float(rewards.mean()) / std


def iql_antmaze(dataset: OfflineDataset) -> Affine:
    """r − 1."""
    return 1.0, -1.0


def cql_antmaze(dataset: OfflineDataset) -> Affine:
    """(r − 0.5) · 4."""
    return 4.0, -2.0


def antmaze(dataset: OfflineDataset) -> Affine:
    """(r − 0.25) · 2."""
    return 2.0, -0.5


def antmaze100(dataset: OfflineDataset) -> Affine:
    """100 · r."""
    return 100.0, 0.0


REWARD_TRANSFORMS: dict[str, Callable[[OfflineDataset], Affine]] = {
    function.__name__: function
    for function in (iql_locomotion, traj_normalize, reward_normalize, iql_antmaze, cql_antmaze, antmaze, antmaze100)
}


def reward_affine(dataset: OfflineDataset, name: str | None) -> Affine:
    """
    What a reward transform does to this dataset's rewards.

    :param dataset: Data with raw rewards.
    :param name: A key of :data:`REWARD_TRANSFORMS`, or None for raw rewards.
    :return: (scale, shift): the reward becomes ``scale * r + shift``.
    :raises UserError: For an unknown name, or if the data have no spread to divide by.
    """
    if name is None:
        return 1.0, 0.0
    if name not in REWARD_TRANSFORMS:
        raise UserError(f"reward transform {name!r} does not exist; choose None or one of {', '.join(REWARD_TRANSFORMS)}.")
    return REWARD_TRANSFORMS[name](dataset)


def transform_rewards(dataset: OfflineDataset, name: str | None) -> OfflineDataset:
    """
    The dataset with its rewards transformed.

    :param dataset: Data with raw rewards.
    :param name: A key of :data:`REWARD_TRANSFORMS`, or None for raw rewards.
    :return: A dataset with transformed rewards; the other arrays are shared.
    """
    if name is None:
        return dataset
    scale, shift = reward_affine(dataset, name)
    return dataset.replace(rewards=(scale * dataset.rewards.astype(np.float64) + shift).astype(np.float32))


def clip_actions(actions: Any, bound: float = 1 - 1e-5) -> np.ndarray:
    """
    Keep actions off the edge of the box, where the inverse of a squashing function is infinite.

    :param actions: Actions scaled to [-1, 1], any shape.
    :param bound: Largest absolute value that remains.
    :return: float32 array; no value exceeds ``bound``, round-off included.
    """
    edge = np.float32(bound)
    if float(edge) > bound:  # as Python floats: numpy would compare in float32
        edge = np.nextafter(edge, np.float32(0))
    return np.clip(np.asarray(actions, dtype=np.float32), -edge, edge)


def scale_actions(actions: Any, action_space: spaces.Box) -> np.ndarray:
    """
    Actions in [-1, 1], as networks see them.

    :param actions: Actions in the units of ``action_space``, ``(..., act_dim)``.
    :param action_space: Box with finite bounds.
    :return: float32 array in [-1, 1]; unchanged if the box is [-1, 1] already.
    """
    low, high = action_space.low.astype(np.float64), action_space.high.astype(np.float64)
    if (low == -1).all() and (high == 1).all():
        return np.asarray(actions, dtype=np.float32)
    return (2 * (np.asarray(actions, dtype=np.float64) - low) / (high - low) - 1).clip(-1, 1).astype(np.float32)


def unscale_actions(actions: Any, action_space: spaces.Box) -> np.ndarray:
    """
    The inverse of :func:`scale_actions`.

    :param actions: Actions in [-1, 1], ``(..., act_dim)``.
    :param action_space: Box with finite bounds.
    :return: float32 array in the units of ``action_space``.
    """
    low, high = action_space.low.astype(np.float64), action_space.high.astype(np.float64)
    if (low == -1).all() and (high == 1).all():
        return np.asarray(actions, dtype=np.float32)
    return (low + (np.asarray(actions, dtype=np.float64) + 1) / 2 * (high - low)).astype(np.float32)
