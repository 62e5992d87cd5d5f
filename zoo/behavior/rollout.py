"""Many copies of one environment stepped in a plain loop with one batched policy call per step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_genoffline.errors import UserError

from .episode import Episode
from .policy import Noise, Policy


@dataclass(frozen=True)
class Segment:
    """
    A stretch of collected steps.

    :param policy: Who acts; None is uniform over the action space
    :param noise: See :meth:`Policy.act`
    :param n_steps: How many environment steps, all copies together
    """

    policy: Policy | None
    noise: Noise
    n_steps: int


class _Slot:
    """One copy of the environment and the episode it is in; buffers are reused, episodes are copies."""

    def __init__(self, env: gym.Env, limit: int):
        assert isinstance(env.observation_space, gym.spaces.Box) and isinstance(env.action_space, gym.spaces.Box)
        self.env: Any = env.unwrapped  # wrappers cost a third of the time; the time limit is kept here
        self.limit = limit
        self.observations = np.empty((limit + 1, *env.observation_space.shape), dtype=env.observation_space.dtype)
        self.actions = np.empty((limit, *env.action_space.shape), dtype=env.action_space.dtype)
        self.rewards = np.empty(limit)
        self.length = 0

    def reset(self, seed: int | None = None) -> np.ndarray:
        self.length = 0
        self.observations[0] = self.env.reset(seed=seed)[0]
        return self.observations[0]

    def step(self, action: np.ndarray) -> Episode | None:
        """Take one step; return the episode if it ended there."""
        t = self.length
        self.actions[t] = action
        self.observations[t + 1], self.rewards[t], terminated, truncated, _ = self.env.step(self.actions[t])
        self.length = t + 1
        if terminated or truncated or self.length == self.limit:
            return self.episode(bool(terminated))
        return None

    def episode(self, terminated: bool) -> Episode:
        n = self.length
        return Episode(
            self.observations[: n + 1].copy(), self.actions[:n].copy(), self.rewards[:n].copy(), terminated, not terminated
        )


def make_slots(env_id: str, n_envs: int) -> list[_Slot]:
    """
    :param env_id: A registered environment with Box spaces and a time limit
    :param n_envs: How many copies
    """
    envs = [gym.make(env_id) for _ in range(n_envs)]
    limit = envs[0].spec.max_episode_steps if envs[0].spec is not None else None
    if limit is None:
        raise UserError(f"{env_id} has no time limit; register it with max_episode_steps")
    return [_Slot(env, limit) for env in envs]


def rollout(env_id: str, segments: Sequence[Segment], seed: Sequence[int], n_envs: int) -> Iterator[Episode]:
    """
    Collect episodes, in the order in which they end. Episodes run on across the border of two segments, as they do while a
    policy is being trained; those still open after the last one come out truncated, so every step is in some episode.

    :param env_id: A registered environment
    :param segments: Who acts, one after another
    :param seed: Entropy of all randomness: same seed and ``n_envs``, same episodes
    :param n_envs: Copies stepped together
    """
    env_seed, action_seed = np.random.SeedSequence(list(seed)).spawn(2)
    generator = np.random.default_rng(action_seed)
    slots = make_slots(env_id, n_envs)
    low, high = slots[0].env.action_space.low, slots[0].env.action_space.high
    observations = np.stack([slot.reset(int(s)) for slot, s in zip(slots, env_seed.generate_state(n_envs), strict=True)])
    try:
        first = 0  # the copy whose turn it is: a segment may end in the middle of a sweep over the copies
        for segment in segments:
            left = segment.n_steps
            while left > 0:
                batch = observations[first : first + left]
                if segment.policy is None:
                    actions = generator.uniform(low, high, size=(len(batch), len(low))).astype(np.float32)
                else:
                    actions = segment.policy.act(batch, segment.noise, generator)
                for i, action in enumerate(actions, start=first):
                    episode = slots[i].step(action)
                    if episode is None:
                        observations[i] = slots[i].observations[slots[i].length]
                    else:
                        yield episode
                        observations[i] = slots[i].reset()
                left -= len(actions)
                first = (first + len(actions)) % n_envs
        for slot in slots:
            if slot.length:
                yield slot.episode(terminated=False)
    finally:
        for slot in slots:
            slot.env.close()


def evaluate(policy: Policy, env_id: str, noise: Noise, n_episodes: int = 20, seed: int = 10_000) -> np.ndarray:
    """
    :param policy: The policy to score
    :param env_id: A registered environment
    :param noise: See :meth:`Policy.act`
    :param n_episodes: One whole episode in each of so many copies
    :param seed: Episode i starts from ``seed + i``; the action noise is seeded with it too
    :return: ``(n_episodes,)`` undiscounted returns
    """
    generator = np.random.default_rng(seed)
    slots = make_slots(env_id, n_episodes)
    observations = np.stack([slot.reset(seed + i) for i, slot in enumerate(slots)])
    returns = np.zeros(n_episodes)
    running = np.arange(n_episodes)
    while len(running):
        still = []
        for i, action in zip(running, policy.act(observations[running], noise, generator), strict=True):
            episode = slots[i].step(action)
            if episode is None:
                observations[i] = slots[i].observations[slots[i].length]
                still.append(i)
            else:
                returns[i] = episode.rewards.sum()
        running = np.array(still, dtype=int)
    for slot in slots:
        slot.env.close()
    return returns
