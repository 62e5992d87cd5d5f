"""Copies of a PointMaze stepped together: the numbers of `env.step`, at several times its rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from .episode import Episode
from .waypoints import Itinerary, Pilots, Routes, Steering

GOAL_RADIUS = 0.45
"""Distance to the goal at which PointMaze speaks of success."""


class PointMazes:
    """
    Copies of gymnasium-robotics' ``PointMazeEnv`` that call MuJoCo directly, since most of ``env.step`` are copies, checks and
    an evaluation of the state that the step itself repeats. Reward and end of an episode are left to the caller.

    :param spec: of the environment
    :param n: number of copies
    """

    def __init__(self, spec: EnvSpec, n: int) -> None:
        import mujoco

        self._step = mujoco.mj_step
        self.envs: list[Any] = [gym.make(spec).unwrapped for _ in range(n)]
        self._parts = [(env.model, env.data, env.data.qpos, env.data.qvel, env.data.ctrl) for env in self.envs]
        self.states, self.goals = np.zeros((n, 4)), np.zeros((n, 2))
        self.maze: Any = self.envs[0].maze

    def reset(self, i: int, seed: int | None = None) -> None:
        """Begin an episode of copy ``i``."""
        observation, _ = self.envs[i].reset(seed=seed)
        self.states[i], self.goals[i] = observation["observation"], observation["desired_goal"]

    def step(self, actions: np.ndarray) -> None:
        """
        Move the first n copies on.

        :param actions: ``(n, 2)`` within [-1, 1]
        """
        n = len(actions)
        velocities = np.clip(self.states[:n, 2:], -5.0, 5.0)  # PointEnv's limit, which it sets before each step
        for (model, data, qpos, qvel, ctrl), velocity, action, state in zip(
            self._parts, velocities, actions, self.states, strict=False
        ):
            qvel[:] = velocity
            ctrl[:] = action
            self._step(model, data)
            state[:2], state[2:] = qpos, qvel

    def close(self) -> None:
        for env in self.envs:
            env.close()


def _episode(env: Any, states: np.ndarray, goal: np.ndarray, actions: np.ndarray, terminated: bool) -> Episode:
    achieved = states[:, :2]
    return Episode(
        observations={
            "achieved_goal": achieved.copy(),
            "desired_goal": np.tile(goal, (len(states), 1)),
            "observation": states.copy(),
        },
        actions=actions.copy(),
        rewards=env.compute_reward(achieved[1:], goal, {}),
        terminated=terminated,
        truncated=not terminated,
        infos={"success": np.linalg.norm(achieved - goal, axis=1) <= GOAL_RADIUS},
    )


def rollout(
    spec: EnvSpec, itinerary: Itinerary | None, steering: Steering, n_steps: int, seed: Sequence[int], n_envs: int
) -> Iterator[Episode]:
    """
    Collect episodes, in the order in which they end; those still open after the last step come out truncated.

    :param spec: of a PointMaze whose goal stays for the whole episode (``reset_target=False``)
    :param itinerary: where the controller goes; None acts uniformly at random
    :param steering: how it goes
    :param n_steps: steps in all, all copies together
    :param seed: entropy of all randomness: same seed and ``n_envs``, same episodes
    :param n_envs: copies stepped together
    """
    env_seed, action_seed = np.random.SeedSequence(list(seed)).spawn(2)
    generator = np.random.default_rng(action_seed)
    mazes = PointMazes(spec, n_envs)
    limit = spec.max_episode_steps
    assert limit is not None and not mazes.envs[0].reset_target
    episodic = not mazes.envs[0].continuing_task
    pilots = None if itinerary is None else Pilots(Routes(mazes.maze), itinerary, steering, n_envs, generator)
    states = np.empty((n_envs, limit + 1, 4))
    actions = np.empty((n_envs, limit, 2), dtype=np.float32)
    lengths, copies = np.zeros(n_envs, dtype=int), np.arange(n_envs)

    def begin(i: int, seed: int | None = None) -> None:
        mazes.reset(i, seed)
        lengths[i], states[i, 0] = 0, mazes.states[i]
        if pilots is not None:
            pilots.begin(i, mazes.states[i, :2].copy(), mazes.goals[i].copy())

    def end(i: int, terminated: bool) -> Episode:
        t = lengths[i]
        return _episode(mazes.envs[i], states[i, : t + 1], mazes.goals[i], actions[i, :t], terminated)

    try:
        for i, number in enumerate(env_seed.generate_state(n_envs)):
            begin(i, int(number))
        for first in range(0, n_steps, n_envs):
            n = min(n_envs, n_steps - first)
            now = generator.uniform(-1.0, 1.0, (n, 2)).astype(np.float32) if pilots is None else pilots.act(mazes.states[:n])
            mazes.step(now)
            actions[copies[:n], lengths[:n]] = now
            lengths[:n] += 1
            states[copies[:n], lengths[:n]] = mazes.states[:n]
            over = lengths[:n] == limit
            if episodic:
                reached = np.linalg.norm(mazes.states[:n, :2] - mazes.goals[:n], axis=1) <= GOAL_RADIUS
                over |= reached
            for i in np.flatnonzero(over).tolist():
                yield end(i, episodic and bool(reached[i]))
                begin(i)
        for i in np.flatnonzero(lengths).tolist():
            yield end(i, terminated=False)
    finally:
        mazes.close()
