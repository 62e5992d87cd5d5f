"""
AntMaze: an ant that trots where it is told (`zoo/behavior/gait.py`), sent through the U-maze.

`python -m zoo.recipes.antmaze -n 100` measures how often it arrives, without noise and with :data:`NOISE`.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from ..behavior import gait
from ..behavior.episode import Episode
from ..behavior.gait import Trot
from ..behavior.waypoints import Routes
from ..runs.notices import without_adroits_notice
from .recipe import Recipe, fingerprint_of

RECIPE = 1
"""Who changes how the ant walks, or in which order random numbers are drawn, raises it: sets made before are others."""
NAME = "antmaze/umaze"
NOISE = 0.4  # largest standard deviation, in units of action
START, GOAL = (3, 1), (1, 1)
GOAL_RADIUS = 0.45  # of gymnasium-robotics' mazes, m


def spec() -> EnvSpec:
    """
    :return: gymnasium-robotics' AntMaze v4, U-shaped, from one end to the other; the episode ends at the goal
    """
    without_adroits_notice()
    import gymnasium_robotics

    gym.register_envs(gymnasium_robotics)
    plain = copy.deepcopy(gym.spec("AntMaze_UMaze-v4"))
    maze_map: list[list[Any]] = [list(row) for row in plain.kwargs["maze_map"]]
    maze_map[START[0]][START[1]], maze_map[GOAL[0]][GOAL[1]] = "r", "g"
    return EnvSpec(
        id="AntMaze_UMaze_EndToEnd-v4",  # an id that is not registered: it cannot be taken for the plain maze
        entry_point=plain.entry_point,
        max_episode_steps=plain.max_episode_steps,
        kwargs=plain.kwargs | {"maze_map": maze_map, "continuing_task": False},
    )


class AntMazes:
    """
    Copies of gymnasium-robotics' AntMaze, of whose steps only the simulation is done. Reward and end of an episode are left to
    the caller.

    :param spec: Of the environment
    :param n: Number of copies
    """

    def __init__(self, spec: EnvSpec, n: int) -> None:
        self.envs: list[Any] = [gym.make(spec).unwrapped for _ in range(n)]
        self.states, self.goals = np.zeros((n, 29)), np.zeros((n, 2))  # place, then the 27 observations
        self.routes = Routes(self.envs[0].maze)

    def reset(self, i: int, seed: int | None = None) -> None:
        """Begin an episode of copy ``i``."""
        observation, _ = self.envs[i].reset(seed=seed)
        self.states[i] = np.concatenate([observation["achieved_goal"], observation["observation"]])
        self.goals[i] = observation["desired_goal"]

    def headings(self, n: int) -> np.ndarray:
        """Directions from the first n ants to their next waypoints, radians ``(n,)``."""
        places = self.states[:n, :2]
        dx, dy = (self.routes.waypoints(places, self.goals[:n]) - places).T
        return np.arctan2(dy, dx)

    def step(self, actions: np.ndarray) -> np.ndarray:
        """
        Move the first n copies on.

        :param actions: ``(n, 8)``
        :return: ``(n,)`` whether they are at the goal
        """
        n = len(actions)
        for env, action, state in zip(self.envs, actions, self.states, strict=False):
            ant = env.ant_env
            ant.do_simulation(action, ant.frame_skip)
            state[:15], state[15:] = ant.data.qpos, ant.data.qvel
        return np.linalg.norm(self.states[:n, :2] - self.goals[:n], axis=1) <= GOAL_RADIUS

    def close(self) -> None:
        """Free the simulators."""
        for env in self.envs:
            env.close()


def rollout(spec: EnvSpec, trot: Trot, noise: float, n_steps: int, seed: Sequence[int], n_envs: int) -> Iterator[Episode]:
    """
    Collect episodes, in the order in which they end; those still open after the last step come out truncated.

    :param spec: Of an AntMaze that ends at the goal
    :param trot: The gait
    :param noise: Largest standard deviation of the Gaussian noise on its actions; each episode draws its own
    :param n_steps: Steps in all, all copies together
    :param seed: Entropy of all randomness: same seed and ``n_envs``, same episodes
    :param n_envs: Copies stepped together
    """
    env_seed, action_seed = np.random.SeedSequence(list(seed)).spawn(2)
    generator = np.random.default_rng(action_seed)
    limit = spec.max_episode_steps
    assert limit is not None
    mazes = AntMazes(spec, n_envs)
    states, actions = np.empty((n_envs, limit + 1, 29)), np.empty((n_envs, limit, 8), dtype=np.float32)
    lengths, copies, spreads = np.zeros(n_envs, dtype=int), np.arange(n_envs), np.zeros((n_envs, 1), dtype=np.float32)

    def begin(i: int, seed: int | None = None) -> None:
        mazes.reset(i, seed)
        lengths[i], states[i, 0], spreads[i] = 0, mazes.states[i], generator.uniform(0.0, noise)

    try:
        for i, number in enumerate(env_seed.generate_state(n_envs)):
            begin(i, int(number))
        for first in range(0, n_steps, n_envs):
            n = min(n_envs, n_steps - first)
            now = trot.act(mazes.states[:n, 2:], mazes.headings(n), lengths[:n])
            now = np.clip(now + spreads[:n] * generator.standard_normal(now.shape, dtype=np.float32), -1.0, 1.0)
            reached = mazes.step(now)
            actions[copies[:n], lengths[:n]] = now
            lengths[:n] += 1
            states[copies[:n], lengths[:n]] = mazes.states[:n]
            for i in np.flatnonzero(reached | (lengths[:n] == limit)).tolist():
                yield _episode(states[i, : lengths[i] + 1], mazes.goals[i], actions[i, : lengths[i]])
                begin(i)
        for i in np.flatnonzero(lengths).tolist():
            yield _episode(states[i, : lengths[i] + 1], mazes.goals[i], actions[i, : lengths[i]])
    finally:
        mazes.close()


def _episode(states: np.ndarray, goal: np.ndarray, actions: np.ndarray) -> Episode:
    success = np.linalg.norm(states[:, :2] - goal, axis=1) <= GOAL_RADIUS
    return Episode(
        observations={
            "achieved_goal": states[:, :2].copy(),
            "desired_goal": np.tile(goal, (len(states), 1)),
            "observation": states[:, 2:].copy(),
        },
        actions=actions.copy(),
        rewards=success[1:].astype(np.float64),
        terminated=bool(success[-1]),
        truncated=not success[-1],
        infos={"success": success},
    )


def load(dataset_id: str, steps: int | None = None) -> Recipe:
    """
    :param dataset_id: The id the dataset will have
    :param steps: Steps in all; None is a million
    """
    env, trot = spec(), Trot.load()
    n_steps = 1_000_000 if steps is None else steps
    controller = {
        "recipe": RECIPE,
        "trot": asdict(trot),
        "clock": gait.STEP,
        "noise": NOISE,
        "goal_radius": GOAL_RADIUS,
    }
    return Recipe(
        dataset_id=dataset_id,
        env=env,
        eval_env=env,
        n_steps=n_steps,
        algorithm="waypoint controller and a trot tuned by the cross-entropy method",
        description="An ant walks from one end of the U-maze to the other, led from cell to cell by a waypoint controller; "
        f"Gaussian noise on its actions, whose standard deviation each episode draws between 0 and {NOISE}. The episode ends "
        "at the goal.",
        fingerprint=fingerprint_of(env, env, controller),
        source="zoo/recipes/antmaze.py, zoo/behavior/antmaze",
        ref_min_score=0.0,
        ref_max_score=1.0,
        episodes=lambda seed, n_envs: rollout(env, trot, NOISE, n_steps, (seed,), n_envs),
    )


def measure(trot: Trot, noise: float, n_episodes: int, seed: int = 0) -> dict[str, Any]:
    """
    :param trot: The gait
    :param noise: As in :func:`rollout`
    :param n_episodes: One after another in each of eight copies, so that short ones do not count more often
    :param seed: Of everything
    :return: Success rate, and steps of the successful episodes
    """
    env, share = spec(), -(-n_episodes // 8)
    assert env.max_episode_steps is not None
    runs = (rollout(env, trot, noise, share * env.max_episode_steps, (seed, copy), 1) for copy in range(8))
    episodes = [episode for run in runs for episode in itertools.islice(run, share)]
    steps = [len(episode.rewards) for episode in episodes if episode.terminated]
    return {
        "noise": noise,
        "success_rate": round(len(steps) / len(episodes), 3),
        "n_episodes": len(episodes),
        "mean_steps": round(float(np.mean(steps)), 1) if steps else None,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure how often the ant reaches the goal.")
    parser.add_argument("-n", "--n-episodes", type=int, default=100)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, NOISE])
    arguments = parser.parse_args()
    for amount in arguments.noise:
        print(json.dumps(measure(Trot.load(), amount, arguments.n_episodes)), flush=True)
