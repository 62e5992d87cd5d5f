"""AntMaze as D4RL's data have it, on the simulator of today."""

from typing import Any

import gymnasium as gym
import numpy as np

from sb3_genoffline.data.antmaze import LAYOUTS, OBSERVATIONS
from sb3_genoffline.errors import MissingPackageError, UserError

AT_START = (1, 1)
SUCCESS = 0.5  # m
GOAL_NOISE = 1.0  # m


class FlatAntMaze(gym.Env):
    """
    gymnasium-robotics' AntMaze v4 with D4RL's observations and evaluation: 29 numbers (place, then positions and velocities;
    the goal is not among them), origin at the start, one far goal, reward 1 within 0.5 m of it, which ends the episode.

    The start is the origin with the ant's usual noise (0.1). The goal is drawn at each reset, uniformly in the square of 1 m
    that begins at the centre of its cell; D4RL draws it once a process. Nothing but reaching it ends an episode (besides the
    step limit of the registered ids): an ant on its back stays there.

    D4RL's ant has weaker motors and takes longer steps than gymnasium's: ``body="d4rl"`` sets gear 30 and 5 × 0.02 s
    instead of gear 150 and 5 × 0.01 s. The rest of the body and its contacts are gymnasium's, as is the simulator's version:
    scores are near those of D4RL's own environment at best.

    :param maze: ``"umaze"``, ``"medium"`` or ``"large"``
    :param body: ``"d4rl"`` or ``"gymnasium"``
    :param render_mode: As usual
    :param kwargs: Passed on to the simulation (``width``, ``camera_name``, …)
    :raises MissingPackageError: Without gymnasium-robotics
    :raises UserError: For another maze or body
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array", "depth_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, maze: str = "umaze", body: str = "d4rl", render_mode: str | None = None, **kwargs: Any) -> None:
        try:
            from gymnasium_robotics.envs.maze import maps
            from gymnasium_robotics.envs.maze.ant_maze_v4 import AntMazeEnv
        except ImportError as error:
            raise MissingPackageError(f"AntMaze needs gymnasium-robotics ({error}): pip install gymnasium-robotics") from error
        if maze not in LAYOUTS:
            raise UserError(f"maze={maze!r} is not known; use one of {', '.join(LAYOUTS)}.")
        if body not in ("d4rl", "gymnasium"):
            raise UserError(f"body={body!r} is not known; use 'd4rl' or 'gymnasium'.")
        layout = {"umaze": maps.U_MAZE, "medium": maps.MEDIUM_MAZE, "large": maps.LARGE_MAZE}[maze]
        flipped = layout[::-1]  # D4RL's y grows with the row, gymnasium-robotics' falls
        self._maze: Any = AntMazeEnv(render_mode=render_mode, maze_map=flipped, continuing_task=False, **kwargs)
        self._maze.position_noise_range = 0.0
        self._cells = {
            "reset_cell": np.array([len(layout) - 1 - AT_START[0], AT_START[1]]),
            "goal_cell": np.array([len(layout) - 1 - LAYOUTS[maze].goal[0], LAYOUTS[maze].goal[1]]),
        }
        self.origin: np.ndarray = self._maze.maze.cell_rowcol_to_xy(self._cells["reset_cell"])
        if body == "d4rl":
            self._maze.model.actuator_gear[:, 0] = 30.0
            self._maze.model.opt.timestep = 0.02
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (OBSERVATIONS,), np.float64)
        self.action_space = self._maze.action_space

    @property
    def goal(self) -> np.ndarray:
        """Where the ant shall go, in the coordinates of the observation, ``(2,)``."""
        return np.asarray(self._maze.goal - self.origin)

    @property
    def marked_map(self) -> Any:
        """gymnasium-robotics' ``Maze`` with start and goal in it; the observations' zero is at ``origin`` ``(2,)`` on it."""
        plain = self._maze.maze
        rows = [list(row) for row in plain.maze_map]
        for name, letter in (("reset_cell", "r"), ("goal_cell", "g")):
            row, column = self._cells[name]
            rows[row][column] = letter
        return type(plain)(rows, plain.maze_size_scaling, plain.maze_height)

    @property
    def model(self) -> Any:
        """MuJoCo's model."""
        return self._maze.model

    @property
    def data(self) -> Any:
        """MuJoCo's data."""
        return self._maze.data

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a new episode, with another goal."""
        super().reset(seed=seed)
        self._maze.reset(seed=seed, options=self._cells)
        self._maze.goal = self._maze.goal + self.np_random.uniform(0.0, GOAL_NOISE, 2)
        self._maze.update_target_site_pos()
        data = self._maze.data
        self._maze.ant_env.set_state(
            data.qpos + self.np_random.uniform(-0.1, 0.1, data.qpos.shape),
            data.qvel + 0.1 * self.np_random.standard_normal(data.qvel.shape),
        )
        observation = self._observation()
        return observation, {"success": self._reached(observation)}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step; the episode ends at the goal."""
        self._maze.step(action)
        observation = self._observation()
        reached = self._reached(observation)
        return observation, float(reached), reached, False, {"success": reached}

    def _observation(self) -> np.ndarray:
        observation = np.concatenate([self._maze.data.qpos, self._maze.data.qvel])
        observation[:2] -= self.origin
        return observation

    def _reached(self, observation: np.ndarray) -> bool:
        return bool(np.linalg.norm(observation[:2] - self.goal) <= SUCCESS)

    def render(self) -> Any:
        """A picture, as ``render_mode`` says."""
        return self._maze.render()

    def close(self) -> None:
        """Free the simulator."""
        self._maze.close()
