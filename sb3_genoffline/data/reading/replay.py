"""Datasets from SB3 replay buffers."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_genoffline.data.chain import chain_ends
from sb3_genoffline.data.combining import combine
from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.flattening import flat_observation_space, flatten_observations
from sb3_genoffline.data.transforms import unscale_actions
from sb3_genoffline.errors import UserError


def from_replay_buffer(buffer: Any) -> OfflineDataset:
    """
    The transitions of an SB3 ``ReplayBuffer``, environment by environment, each in time order (a full ring starts with its
    oldest row).

    - SB3's off-policy algorithms store actions scaled to [-1, 1]; they are scaled back to the units of the action space here.
    - ``terminations`` are dones that are not time-outs. A buffer with ``handle_timeout_termination=False`` (which
      ``optimize_memory_usage`` demands) did not record time-outs, so there they count as terminations, as in SB3 itself.
    - SB3 resets the environments at each ``learn()`` without a mark in the buffer: a step whose next observation is not the
      next row's observation (beyond rounding and a hundredth of a mean step) ends an episode. It is marked
      truncated, as is the last step of each environment, if it is not a termination.
    - With ``optimize_memory_usage`` the next observation is the next row's observation: a full ring has overwritten its oldest
      observation with the newest next one, so the oldest row is dropped; a done row (never bootstrapped from) gets its own
      observation, since the next row's belongs to another episode. Nothing in such a buffer tells where a second ``learn()``
      began: there two episodes are joined, by a step that nobody made.

    :param buffer: A ``ReplayBuffer`` or ``DictReplayBuffer`` (dict observations are flattened).
    :raises UserError: If the buffer is empty, or holds discrete actions, images or actions outside [-1, 1].
    """
    if not isinstance(buffer.action_space, spaces.Box):
        raise UserError(f"The replay buffer's action_space is {buffer.action_space}, which is not supported; a Box is needed.")
    size = buffer.size()
    if size == 0:
        raise UserError("The replay buffer is empty: it holds no transition. Collect some before making a dataset of it.")
    times = (np.arange(size) + (buffer.pos if buffer.full else 0)) % buffer.buffer_size
    shared = bool(buffer.optimize_memory_usage)
    if shared and buffer.full:
        times = times[1:]
        if len(times) == 0:
            raise UserError("The replay buffer holds one row per environment and shares observations: no transition is whole.")

    def rows(array: np.ndarray, at: np.ndarray = times) -> np.ndarray:
        """(time, env, …) → (env · time, …)"""
        chosen: np.ndarray = array[at].swapaxes(0, 1)
        return chosen.reshape(-1, *chosen.shape[2:])

    def flat(observations: Any, at: np.ndarray = times) -> np.ndarray:
        if isinstance(observations, dict):
            nested: Any = {key: rows(array, at) for key, array in observations.items()}
        else:
            nested = rows(observations, at)
        return flatten_observations(buffer.observation_space, nested)

    observations = flat(buffer.observations)
    dones, timeouts = rows(buffer.dones).astype(np.bool_), rows(buffer.timeouts).astype(np.bool_)
    if shared:
        next_observations = flat(buffer.observations, (times + 1) % buffer.buffer_size)
        next_observations[dones] = observations[dones]
    else:
        next_observations = flat(buffer.next_observations)
    scaled = rows(buffer.actions)
    if np.abs(scaled).max() > 1 + 1e-4:
        row, column = (int(i) for i in np.argwhere(np.abs(scaled) > 1 + 1e-4)[0])
        raise UserError(
            f"actions[{row}, {column}] = {scaled[row, column]} in the replay buffer is outside [-1, 1]. SB3's off-policy "
            "algorithms store actions scaled to that range; if yours are in the environment's units, pass a dict of arrays."
        )
    closed = dones | timeouts | chain_ends(observations, next_observations)
    closed[np.arange(1, buffer.n_envs + 1) * len(times) - 1] = True
    terminations = dones & ~timeouts
    return OfflineDataset(
        observations=observations,
        actions=unscale_actions(scaled, buffer.action_space),
        rewards=rows(buffer.rewards),
        next_observations=next_observations,
        terminations=terminations,
        truncations=closed & ~terminations,
        observation_space=flat_observation_space(buffer.observation_space),
        action_space=buffer.action_space,
        episode_ends=np.flatnonzero(closed) + 1,
    )


def from_offline_buffer(buffer: Any) -> OfflineDataset:
    """
    What an agent of this library learns from: the dataset it was trained on, and behind it the steps it has made since,
    environment by environment and each in time order, with raw rewards and actions in the environment's units.

    The buffer keeps no time-outs: an online episode ends at a termination, or where the next observation is not the next row's
    observation.

    :param buffer: An :class:`~sb3_genoffline.data.buffers.OfflineBuffer`.
    :raises UserError: If it holds no transition.
    """
    parts = [] if buffer.dataset is None else [buffer.dataset]
    n = buffer.n_online
    if n:
        ages = (np.arange(n) + (buffer.pos if buffer.full else 0)) % n  # the oldest first
        envs = (buffer.n_envs - 1 - np.arange(n)[::-1]) % buffer.n_envs  # the newest row is the last environment's
        order = np.argsort(envs, kind="stable")
        batch = buffer.rows_at(th.as_tensor(buffer.n_offline + ages[order], device=buffer.device))
        columns = [column.cpu().numpy() for column in batch[:5]]
        observations, actions, rewards, next_observations, masks = columns
        terminations = masks == 0
        closed = terminations | chain_ends(observations, next_observations)
        closed[:-1] |= np.diff(envs[order]) != 0
        online = OfflineDataset(
            observations=observations,
            actions=unscale_actions(actions, buffer.action_space),
            rewards=(rewards.astype(np.float64) - buffer.reward_shift) / buffer.reward_scale,
            next_observations=next_observations,
            terminations=terminations,
            truncations=closed & ~terminations,
            observation_space=flat_observation_space(buffer.observation_space),
            action_space=buffer.action_space,
            episode_ends=np.flatnonzero(closed) + 1,
        )
        parts.append(online if buffer.dataset is None else online.replace(id=buffer.dataset.id))
    if not parts:
        raise UserError("The agent's buffer is empty: it holds no transition. Train it on a dataset, or let it learn first.")
    return parts[0] if len(parts) == 1 else combine(*parts)
