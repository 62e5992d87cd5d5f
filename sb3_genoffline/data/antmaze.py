"""
AntMaze: D4RL's files, the environments to evaluate in today, and success rates.

D4RL's files hold 29 observations (place, then the 27 of gymnasium's ant), no goal, and flags with traps. What is done with
them (:func:`mark_cuts`, then :func:`~sb3_genoffline.data.reading.arrays.from_arrays`):

1. ``terminals`` is set in every row in which the ant is at the goal, although the log goes on: it walks about there until the
   time-out. Such a row is a termination (not bootstrapped from) and ends an episode; the rows after it are kept, as in the
   papers, so episodes of one row with reward 1 are usual. :func:`success_rate` puts the pieces together again.
2. ``timeouts`` of the v0 sets do not sit where the episodes end. Wherever the ant is more than 1 m away in the next row (it
   walks less than half of that), the row is treated as a time-out too, with a warning: it has no next observation, so it is
   dropped. A termination needs none and stays. A flag in the middle of an episode costs the row it is in. A file without the
   flags is cut at the jumps and terminations alone.
3. Rewards stay as logged, 1 at the goal and else 0; ``reward_transform`` changes them.

Minari's sets (``D4RL/antmaze/…-v1``) come from gymnasium-robotics: Dict observations with the goal in them, flattened to
(achieved_goal, desired_goal, observation), 31 numbers. They are taken as logged; where the task goes on at the goal, no row is
a termination there, and the reward comes in every step.
"""

import importlib.util
import re
import warnings
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from sb3_genoffline.data.success import AT_GOAL, JUMP, far_apart, success_rate
from sb3_genoffline.data.validation import flag_rows

__all__ = ["AT_GOAL", "JUMP", "LAYOUTS", "canonical_id", "eval_spec", "mark_cuts", "register_envs", "success_rate"]

OBSERVATIONS = 29
TERMINALS = ("terminations", "terminals", "dones")  # the names terminations may come under
BODIES = {"d4rl": 0.1, "gymnasium": 0.05}  # seconds of a step


class Layout(NamedTuple):
    """
    :param env_id: Of the environment to evaluate in
    :param limit: Steps of an episode
    :param goal: (row, column) of the goal's cell; the start is at (1, 1)
    """

    env_id: str
    limit: int
    goal: tuple[int, int]


LAYOUTS = {
    "umaze": Layout("genoffline/AntMaze_UMaze-v0", 700, (3, 1)),
    "medium": Layout("genoffline/AntMaze_Medium-v0", 1000, (6, 6)),
    "large": Layout("genoffline/AntMaze_Large-v0", 1000, (7, 9)),
}
_ID = re.compile(r"antmaze-(?P<maze>umaze|medium|large)(-(diverse|play))?-v\d+")
_SERVER = re.compile(
    r"ant-maze-(?P<maze>u-maze|big-maze|hardest-maze)-noisy-multistart-(true|false)-multigoal-(?P<many>true|false)-sparse"
    r"(?P<fixed>-fixed)?"
)
_SERVER_MAZES = {"u-maze": "umaze", "big-maze": "medium", "hardest-maze": "large"}


def canonical_id(stem: str) -> str | None:
    """
    :param stem: Name of a file without its suffix: D4RL's id (``antmaze-umaze-v2``), or what its server calls the file
        (``Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed``)
    :return: D4RL's id, or None if it is not an AntMaze set of D4RL's
    """
    name = stem.lower().replace("_", "-")
    if _ID.fullmatch(name):
        return name
    match = _SERVER.fullmatch(name)
    if match is None:
        return None
    maze = _SERVER_MAZES[match["maze"]]
    kind = "-diverse" if match["many"] == "true" else "" if maze == "umaze" else "-play"
    return f"antmaze-{maze}{kind}-v{2 if match['fixed'] else 0}"


def mark_cuts(arrays: dict[str, Any], name: str) -> dict[str, Any]:
    """
    :param arrays: Of a D4RL AntMaze file: ``observations`` ``(N, 29)`` and the rest, by D4RL's names
    :param name: What to call the file in the warning
    :return: The arrays, with ``timeouts`` wherever the next row is another episode's and the row itself no termination
    """
    jumps = np.zeros(len(arrays["observations"]), dtype=np.bool_)
    jumps[:-1] = far_apart(arrays["observations"][:-1], arrays["observations"][1:])
    given = {name: flag_rows(name, arrays[name]) for name in ("timeouts", *TERMINALS) if name in arrays}
    if any(flags.shape != jumps.shape for flags in given.values()):
        return arrays  # refused, with the numbers, by whoever reads on
    flags = given.pop("timeouts", None)
    for terminals in given.values():
        jumps &= ~terminals
    if flags is None:
        return arrays | {"timeouts": jumps}
    unmarked = np.flatnonzero(jumps & ~flags)
    if len(unmarked):
        warnings.warn(
            f"In {name} the ant is more than {JUMP:g} m away one row later in {len(unmarked)} rows that are not time-outs, "
            f"first in row {unmarked[0]}: wrong flags, as D4RL's v0 sets have. Episodes are cut there.",
            stacklevel=2,
        )
    return arrays | {"timeouts": flags | jumps}


def eval_spec(dataset_id: str, observations: np.ndarray) -> EnvSpec:
    """
    The environment for data in D4RL's layout. Whether D4RL's ant (0.1 s a step) walks in them or gymnasium's (0.05 s) is read
    off the data, by comparing places with velocities; D4RL's if nothing moves.

    :param dataset_id: From :func:`canonical_id`
    :param observations: ``(N, 29)`` in the order of the log
    """
    match = _ID.fullmatch(dataset_id)
    assert match is not None
    seconds = _step_seconds(observations)
    bodies = sorted(BODIES, key=lambda body: abs(np.log(BODIES[body] / seconds))) if seconds else ["d4rl"]
    return _spec(match["maze"], bodies[0])


def _step_seconds(observations: np.ndarray) -> float | None:
    """Least squares of displacement against mean velocity; None if the ant stands still."""
    head = observations[:10_000].astype(np.float64)
    velocity = (head[1:, 15:17] + head[:-1, 15:17]) / 2
    velocity[far_apart(head[:-1], head[1:])] = 0
    moved = float((velocity * velocity).sum())
    seconds = float(((head[1:, :2] - head[:-1, :2]) * velocity).sum()) / moved if moved > 1e-6 else 0.0
    return seconds if seconds > 0 else None


def _spec(maze: str, body: str) -> EnvSpec:
    return EnvSpec(
        LAYOUTS[maze].env_id,
        entry_point="sb3_genoffline.data.antmaze_env:FlatAntMaze",
        max_episode_steps=LAYOUTS[maze].limit,
        kwargs={"maze": maze, "body": body},
    )


def register_envs() -> None:
    """Register the environments with gymnasium, if gymnasium-robotics is installed (it is not imported)."""
    if importlib.util.find_spec("gymnasium_robotics") is None:
        return
    for maze, layout in LAYOUTS.items():
        if layout.env_id not in gym.registry:
            spec = _spec(maze, "d4rl")
            gym.register(spec.id, spec.entry_point, max_episode_steps=spec.max_episode_steps, kwargs=spec.kwargs)


register_envs()
