"""PointMaze: a ball that a controller steers through umaze, medium and large, sparse and dense, and the stitching task."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from ..behavior.episode import Episode
from ..behavior.pointmaze import GOAL_RADIUS, rollout
from ..behavior.waypoints import NEAR, SPREAD, Itinerary, Routes, Steering
from ..runs.notices import without_adroits_notice
from .recipe import Recipe, fingerprint_of

RECIPE = 1
"""Who changes how the ball is steered, or in which order random numbers are drawn, raises it: sets made before are others."""
EXPERT = Steering()
BEHAVIOR = Steering(noise=0.5, lanes=0.25, rest=50)
TO_GOAL = 0.25
"""Share of the places visited that are the episode's goal."""
ENV_IDS = {"umaze": "PointMaze_UMaze", "medium": "PointMaze_Medium", "large": "PointMaze_Large"}

STITCH_MAP = [
    [1, 1, 1, 1, 1, 1, 1],
    [1, 0, 0, 0, 0, 0, 1],
    [1, 1, 1, 0, 1, 1, 1],
    [1, 1, 1, 0, 0, 0, 1],
    [1, 1, 1, 0, 0, 0, 1],
    [1, 1, 1, 1, 1, 1, 1],
]
"""The way out of A's room forks above B: to C on the right, to a dead end on the left, where a constant push ends as well."""
A, B, C, DEAD_END = (4, 5), (2, 3), (1, 5), (1, 1)
ROOM = ((3, 3), (3, 4), (3, 5), (4, 3), (4, 4), A)
STITCH_LIMIT = 250

REFERENCES: dict[str, tuple[float, float]] = {
    "umaze": (12.35, 248.38),
    "umaze-dense": (64.42, 257.94),
    "medium": (7.95, 495.95),
    "medium-dense": (54.14, 509.15),
    "large": (5.86, 645.52),
    "large-dense": (42.81, 657.93),
    "stitch": (0.0, 1.0),
    "stitch-dense": (17.87, 123.7),
}
"""
Mean return of uniformly random actions, and of the controller without noise that goes straight to the goal, in 200 episodes:
``python -c "from zoo.recipes.pointmaze import measure_references; measure_references()"``
"""


def to_the_goal(routes: Routes, start: np.ndarray, goal: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """The expert's itinerary: to the goal, and stay."""
    return itertools.repeat(goal)


def wander(routes: Routes, start: np.ndarray, goal: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """From one random place to the next, some of which are the goal."""
    while True:
        yield goal if generator.random() < TO_GOAL else routes.draw(generator)


def stitch(routes: Routes, start: np.ndarray, goal: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Rest at B, then go to the goal, which is C, if the episode started at B, else into the dead end."""
    b = routes.numbers[B]
    started_at_b = routes.cells_of(start[None])[0] == b
    yield routes.draw(generator, [b])
    while True:
        yield goal if started_at_b else routes.draw(generator, [routes.numbers[DEAD_END]])


def maze_spec(name: str, dense: bool) -> EnvSpec:
    """
    :param name: a key of :data:`ENV_IDS`
    :param dense: reward exp(-distance) instead of 1 within the goal's radius
    :return: the environment as gymnasium-robotics registers it: random start and goal, no termination
    """
    without_adroits_notice()
    import gymnasium_robotics

    gym.register_envs(gymnasium_robotics)
    return gym.spec(f"{ENV_IDS[name]}{'Dense' if dense else ''}-v3")


def stitch_spec(starts: tuple[tuple[int, int], ...], dense: bool) -> EnvSpec:
    """
    :param starts: cells in which episodes start
    :param dense: reward exp(-distance) and no termination (which would punish arriving), instead of 1 and the end of the
        episode on arrival
    :return: an environment whose goal is C
    """
    spec = copy.deepcopy(maze_spec("umaze", dense))
    maze_map: list[list[Any]] = copy.deepcopy(STITCH_MAP)
    for i, j in starts:
        maze_map[i][j] = "r"
    maze_map[C[0]][C[1]] = "g"
    spec.kwargs.update(maze_map=maze_map, continuing_task=dense)
    return EnvSpec(
        id="PointMaze_Stitch-v3",  # an id that is not registered: it cannot be taken for the plain maze
        entry_point=spec.entry_point,
        max_episode_steps=STITCH_LIMIT,
        kwargs=spec.kwargs,
    )


def names() -> list[str]:
    """All datasets: ``umaze``, ``umaze-dense``, …"""
    return [f"{name}{suffix}" for name in (*ENV_IDS, "stitch") for suffix in ("", "-dense")]


def environments(name: str) -> tuple[EnvSpec, EnvSpec]:
    """
    :param name: one of :func:`names`
    :return: where the data come from, and where agents are evaluated
    """
    maze, dense = name.removesuffix("-dense"), name.endswith("-dense")
    if maze == "stitch":
        return stitch_spec((*ROOM, B), dense), stitch_spec((A,), dense)
    return maze_spec(maze, dense), maze_spec(maze, dense)


def load(name: str, dataset_id: str, steps: int | None = None) -> Recipe:
    """
    :param name: one of :func:`names`
    :param dataset_id: the id the dataset will have
    :param steps: steps in all; None is a million, 100,000 of the stitching sets
    """
    stitching = name.startswith("stitch")
    env, eval_env = environments(name)
    if stitching:
        itinerary, n_steps = stitch, 100_000
        description = (
            "Six of seven episodes go from A's room to B and on to a dead end, one of seven goes from B to the goal, C; their "
            "ways fork behind B. The task is to go from A to C, which no episode does."
        )
    else:
        itinerary, n_steps = wander, 1_000_000
        description = (
            "The goal stays for the whole episode, which lasts until the time limit. The controller wanders between random "
            f"places, of which {TO_GOAL:.0%} are the goal, and rests a while at each."
        )
    n_steps = n_steps if steps is None else steps
    controller = {
        "recipe": RECIPE,
        "itinerary": itinerary.__name__,
        "steering": asdict(BEHAVIOR),
        "near": NEAR,
        "spread": SPREAD,
        "goal_radius": GOAL_RADIUS,
        "places": [B, DEAD_END] if stitching else TO_GOAL,
    }

    def episodes(seed: int, n_envs: int) -> Iterator[Episode]:
        return rollout(env, itinerary, BEHAVIOR, n_steps, (seed,), n_envs)

    low, high = REFERENCES[name]
    return Recipe(
        dataset_id=dataset_id,
        env=env,
        eval_env=eval_env,
        n_steps=n_steps,
        algorithm="waypoint controller (breadth-first search, PD, noise)",
        description=description,
        fingerprint=fingerprint_of(env, eval_env, controller),
        source="zoo/recipes/pointmaze.py",
        ref_min_score=low,
        ref_max_score=high,
        episodes=episodes,
    )


def returns(spec: EnvSpec, itinerary: Itinerary | None, n_episodes: int, seed: int = 0) -> np.ndarray:
    """
    :param spec: the environment
    :param itinerary: of the controller without noise; None acts uniformly at random
    :param n_episodes: one after another in one copy, so that short ones do not count more often
    :return: ``(n_episodes,)`` undiscounted returns
    """
    assert spec.max_episode_steps is not None
    episodes = rollout(spec, itinerary, EXPERT, n_episodes * spec.max_episode_steps, (seed,), n_envs=1)
    return np.array([episode.rewards.sum() for episode in itertools.islice(episodes, n_episodes)])


def measure_references(n_episodes: int = 200) -> None:
    """Print what :data:`REFERENCES` holds."""
    for name in names():
        low, high = (returns(environments(name)[1], who, n_episodes).mean() for who in (None, to_the_goal))
        print(f'    "{name}": ({low:.2f}, {high:.2f}),', flush=True)
