"""Trajectories of a dataset over the walls of its maze, and agents' episodes beside them."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_genoffline.common.envs import check_agent_spaces
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.data.antmaze_env import FlatAntMaze
from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.registry import load_agent

from ..collect.lookup import find_dataset
from ..runs.agents import add_trust_argument
from ..runs.envs import EnvFactory, Recorded, env_factory
from ..runs.flags import device, picture_file, positive, seed_number
from ..runs.folders import run_of
from ..runs.provenance import versions
from ..runs.scoring import EVAL_SEED
from ..runs.sweeping import each_value
from ..runs.writing import write_json
from .curves import baseline_of
from .figures import new_figure, plain, save_figure

COLORS = ["#ff7f0e", "#1f77b4", "#9467bd", "#17becf", "#8c564b", "#e377c2", "#bcbd22"]
WALL, SUCCESS, FAILURE, MARK = "#4d5661", "#2ca02c", "#d62728", "#ffd92f"
HEIGHT = 4.6
"""Of a panel, inches."""


@dataclass(frozen=True, eq=False)
class Walk:
    """
    :param observations: ``(T + 1, S)``
    :param path: ``(T + 1, 2)`` xy
    :param total: undiscounted return
    :param success: whether the environment spoke of success at some step
    """

    observations: np.ndarray
    path: np.ndarray
    total: float
    success: bool


def map_of(env: gym.Env) -> tuple[Any, np.ndarray] | None:
    """
    :param env: any
    :return: gymnasium-robotics' ``Maze``, and the observations' origin on it ``(2,)``; None if the environment has no map
    """
    plain: Any = env.unwrapped
    if isinstance(plain, FlatAntMaze):
        return plain.marked_map, plain.origin
    maze = getattr(plain, "maze", None)
    return None if maze is None else (maze, np.zeros(2))


def episode_paths(data: OfflineDataset, indices: np.ndarray) -> list[np.ndarray]:
    """
    :param data: of a maze; its observations begin with the position (flattened goal observations do: the achieved goal comes
        first in the alphabet)
    :param indices: ``(n,)`` of episodes
    :return: ``(T + 1, 2)`` xy of each
    """
    starts, lengths = data.episode_starts, data.episode_lengths()
    paths = []
    for i in indices:
        rows = slice(starts[i], starts[i] + lengths[i])
        paths.append(np.concatenate([data.observations[rows][:, :2], data.next_observations[rows][-1:, :2]]))
    return paths


def walk(model: AnyAlgorithm, make: EnvFactory, n_episodes: int, seed: int = EVAL_SEED) -> list[Walk]:
    """
    :param model: acts deterministically, see its policy
    :param make: makes its environment
    :param n_episodes: one in each of so many copies; copy i is seeded with ``seed + i``
    :param seed: of the environments and of the policy's sampling
    """
    envs = [make() for _ in range(n_episodes)]
    env = envs[0]
    check_agent_spaces((model.observation_space, model.action_space), (env.observation_space, env.action_space))
    observations = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(envs)])
    model.policy.seed_acting(seed)
    seen = [[observation.copy()] for observation in observations]
    totals, successes = np.zeros(n_episodes), np.zeros(n_episodes, dtype=bool)
    running, state = list(range(n_episodes)), None
    while running:
        actions, state = model.predict(observations[running], state, deterministic=True)
        still = []
        for place, (i, action) in enumerate(zip(running, actions, strict=True)):
            observations[i], reward, terminated, truncated, info = envs[i].step(action)
            seen[i].append(observations[i].copy())
            totals[i] += float(reward)
            model.policy.observe_rewards(state, float(reward), place)
            successes[i] |= bool(info.get("success", False))
            if not (terminated or truncated):
                still.append(place)
        running = [running[place] for place in still]
        state = None if state is None else tuple(part[still] for part in state)
    for env in envs:
        env.close()
    parts = zip(map(np.array, seen), totals, successes, strict=True)
    return [Walk(states, states[:, :2], float(total), bool(success)) for states, total, success in parts]


def plot_maze(
    data: OfflineDataset,
    output: str | Path,
    agents: Mapping[str, AnyAlgorithm] | None = None,
    color: str = "return",
    n_episodes: int = 200,
    n_walks: int = 20,
    seed: int = 0,
    title: str | None = None,
    trust_env: bool = False,
    sweep: tuple[str, Sequence[Any]] | None = None,
) -> list[Path]:
    """
    Draw the data, and each agent's episodes in a panel of its own. Successes are those of which the environment's infos speak.

    :param data: of a maze of gymnasium-robotics, with its environment
    :param output: file name; a PNG, an SVG and a JSON file with the numbers are written
    :param agents: name to agent
    :param color: of the data's trajectories: by their ``"return"`` or by the cell of their ``"start"``
    :param n_episodes: of the data, drawn at random
    :param n_walks: episodes of each agent
    :param seed: draws the data's episodes
    :param title: of the picture (None: the dataset's id)
    :param trust_env: make the environment that the data record, whatever code it names
    :param sweep: a setting of acting and values of it, each of which gets a panel for each agent
    :return: the files
    :raises UserError: if the data are of no maze, or there is nothing to draw, or the setting or a value is wrong
    """
    for flag, number in (("n_episodes", n_episodes), ("n_walks", n_walks)):
        if number < 1:
            raise UserError(f"{flag} is {number}; draw at least 1.")
    make = env_factory(data, recorded=Recorded(trusted=trust_env))
    ground = ground_of(data, make, n_episodes, seed)
    walked = list(_walks_of(agents or {}, make, n_walks, sweep))
    figure, panels = new_figure(1 + len(walked), ground.width, HEIGHT)
    draw_data(figure, panels[0], ground.maze, ground.paths, data.episode_returns()[ground.chosen], color)
    panels[0].set_title(f"{len(ground.chosen)} of {ground.n_episodes} episodes of the data", fontsize="medium")
    numbers = {}
    for axes, (name, agent, walks) in zip(panels[1:], walked, strict=True):
        draw_walks(axes, ground.maze, ground.paths, [replace(one, path=one.path + ground.origin) for one in walks])
        numbers[name] = {
            "episodes": n_walks,
            "seed": EVAL_SEED,
            "success": float(np.mean([one.success for one in walks])),
            "mean_reward": float(np.mean([one.total for one in walks])),
            "gradient_steps": agent.num_timesteps,
        }
        arrived = sum(one.success for one in walks)
        axes.set_title(f"{name}: {arrived} of {n_walks} arrive", fontsize="medium")
    figure.suptitle(title or plain(data.id or ""))
    files = save_figure(figure, output)
    report = files[0].with_suffix(".json")
    write_json(report, {"dataset": data.id, "episodes_drawn": len(ground.chosen), "agents": numbers, "versions": versions()})
    return [*files, report]


def _walks_of(
    agents: Mapping[str, AnyAlgorithm], make: EnvFactory, n_walks: int, sweep: tuple[str, Sequence[Any]] | None
) -> Iterator[tuple[str, AnyAlgorithm, list[Walk]]]:
    """What each panel is called, who walks in it, and how."""
    for name, agent in agents.items():
        if sweep is None:
            yield name, agent, walk(agent, make, n_walks)
            continue
        setting, values = sweep
        for value in each_value(agent, setting, values):
            yield f"{name}, {setting} {value}", agent, walk(agent, make, n_walks)


@dataclass(frozen=True, eq=False)
class Ground:
    """
    What walks are drawn on.

    :param maze: gymnasium-robotics' ``Maze``
    :param origin: of the observations on it ``(2,)``
    :param n_episodes: of the data that walk
    :param chosen: indices of those that are drawn
    :param paths: of these, on the map
    """

    maze: Any
    origin: np.ndarray
    n_episodes: int
    chosen: np.ndarray
    paths: list[np.ndarray]

    @property
    def width(self) -> float:
        """Of a panel, inches."""
        return float(0.3 + 3.2 * self.maze.map_width / self.maze.map_length)


def ground_of(data: OfflineDataset, make: EnvFactory, n_episodes: int, seed: int = 0) -> Ground:
    """
    :param data: of a maze
    :param make: makes its environment
    :param n_episodes: of the data, drawn at random
    :param seed: draws them
    :raises UserError: if the data are of no maze
    """
    env = make()
    known = map_of(env)
    flat = isinstance(env.unwrapped, FlatAntMaze)
    env.close()
    if known is None:
        raise UserError(
            f"{data.id or 'The dataset'} is not of a maze of gymnasium-robotics: its environment has no map to draw."
        )
    maze, origin = known
    walked = data.episode_lengths() > int(flat)  # in D4RL's data each further row at the goal is an episode
    chosen = np.flatnonzero(walked)
    if len(chosen) > n_episodes:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, n_episodes, replace=False))
    return Ground(maze, origin, int(walked.sum()), chosen, [path + origin for path in episode_paths(data, chosen)])


def draw_map(axes: Any, maze: Any) -> None:
    """Walls as blocks; a disc and a star where the environment has fixed starts and goals."""
    walls = np.array([[cell == 1 for cell in row] for row in maze.maze_map])
    x, y = maze.x_map_center, maze.y_map_center
    shades = np.where(walls[..., None], [int(WALL[i : i + 2], 16) for i in (1, 3, 5)], 255).astype(np.uint8)
    axes.imshow(shades, extent=(-x, x, -y, y), interpolation="nearest", zorder=0)
    axes.set(xlim=(-x, x), ylim=(-y, y), aspect="equal", xticks=[], yticks=[])
    for name, letters, marker, area in (("start of the task", "rc", "o", 130), ("goal of the task", "gc", "*", 260)):
        cells = [(i, j) for i, row in enumerate(maze.maze_map) for j, cell in enumerate(row) if str(cell) in letters]
        if cells:
            places = np.array([maze.cell_rowcol_to_xy(np.array(cell)) for cell in cells])
            axes.scatter(*places.T, s=area, marker=marker, c=MARK, edgecolors="black", zorder=5, label=name)


def draw_lines(axes: Any, paths: Sequence[np.ndarray], **style: Any) -> Any:
    from matplotlib.collections import LineCollection

    lines = LineCollection(list(paths), rasterized=True, capstyle="round", **style)
    axes.add_collection(lines)
    return lines


def draw_legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2, fontsize="small", frameon=False)


def draw_data(
    figure: Any, axes: Any, maze: Any, paths: Sequence[np.ndarray], returns: np.ndarray, color: str = "return"
) -> None:
    """
    :param figure: of the axes
    :param axes: to draw on
    :param maze: gymnasium-robotics' ``Maze``
    :param paths: ``(T + 1, 2)`` xy of each episode
    :param returns: of each
    :param color: see :func:`plot_maze`
    :raises UserError: for colors by start if there are too many starts to tell apart
    """
    draw_map(axes, maze)
    kinds = returns[:, None] if color == "return" else np.array([maze.cell_xy_to_rowcol(path[0]) for path in paths])
    groups, members = np.unique(kinds, axis=0, return_inverse=True)
    members = members.ravel()
    if len(groups) <= len(COLORS):
        draw_lines(axes, paths, colors=[COLORS[i] for i in members], linewidths=0.7, alpha=0.35)
        for i, group in enumerate(groups):
            what = f"return {group[0]:g}" if color == "return" else f"start in cell ({group[0]}, {group[1]})"
            axes.plot([], [], color=COLORS[i], label=f"{int((members == i).sum())} with {what}")
    elif color == "return":
        order = np.argsort(returns, kind="stable")
        lines = draw_lines(axes, [paths[i] for i in order], array=returns[order], cmap="viridis", linewidths=0.7, alpha=0.5)
        figure.colorbar(lines, ax=axes, label="return", shrink=0.7).solids.set(alpha=1.0)
    else:
        raise UserError(f"The data start in {len(groups)} cells, too many colors to tell apart: use --color return.")
    draw_legend(axes)


def draw_walks(axes: Any, maze: Any, paths: Sequence[np.ndarray], walks: Sequence[Walk]) -> None:
    """
    :param axes: to draw on
    :param maze: gymnasium-robotics' ``Maze``
    :param paths: of the data, drawn pale
    :param walks: an agent's episodes
    """
    draw_map(axes, maze)
    draw_lines(axes, paths, colors="#b8bec6", linewidths=0.5, alpha=0.25)
    for success, color, label in ((False, FAILURE, "does not arrive"), (True, SUCCESS, "arrives")):
        draw_lines(
            axes, [one.path for one in walks if one.success == success], colors=color, linewidths=1.1, alpha=0.7, zorder=3
        )
        ends = [one.path[-1] for one in walks if one.success == success]
        if ends:
            axes.scatter(*np.transpose(ends), s=14, c=color, edgecolors="white", linewidths=0.4, zorder=4)
        axes.plot([], [], color=color, label=label)
    draw_legend(axes)


def agent_name(path: str | Path, model: AnyAlgorithm) -> str:
    """What to call an agent: its class, and what its run leaves out."""
    run = run_of(path)
    baseline = baseline_of(model.name, run.config()["hyperparameters"]) if run is not None else ""
    return f"{type(model).__name__}, {baseline}" if baseline else type(model).__name__


def agent_file(path: str | Path) -> Path:
    """
    :param path: an agent's file, or the folder of a run
    :return: the agent's file
    :raises NotFoundError: if the folder has no run
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for settings in sorted(path.glob("*/config.yml")):
        return path / f"{settings.parent.name}.zip"
    raise NotFoundError(f"{path} is not a run of the zoo: there is no {path / '<dataset>' / 'config.yml'}.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo plot maze``"""
    add = parser.add_argument
    add("--dataset", required=True, help="dataset of a PointMaze or AntMaze")
    add("--agent", nargs="+", default=[], metavar="ZIP", help="agents' files or run folders, each drawn in a panel of its own")
    add("--color", choices=["return", "start"], default="return", help="what the colors of the data's trajectories tell")
    add("-n", "--n-episodes", type=positive, default=200, help="episodes of the data")
    add("--n-walks", type=positive, default=20, help="episodes of each agent")
    add("--seed", type=seed_number, default=0, help="draws the data's episodes")
    add("--sweep", nargs="+", metavar=("NAME", "VALUE"), help="draw agents with each value of a setting of acting")
    add("--device", type=device, default="auto", help="cpu, cuda or auto")
    add("-o", "--output", type=picture_file, default="maze.png", help="file to write, as PNG, SVG and JSON")
    add("--title", help="default: the dataset's id")
    add("--env", help="the maze, if not the one that the data record")
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    setting, *values = args.sweep or [None]
    if setting and not (values and args.agent):
        raise UserError(f"--sweep {setting} needs an --agent and values: --sweep {setting} 0 0.5 1.")
    agents: dict[str, AnyAlgorithm] = {}
    for path in map(agent_file, args.agent):
        model = load_agent(path, device=args.device)
        name = agent_name(path, model)
        agents[name if name not in agents else f"{name} ({len(agents) + 1})"] = model
    counts = {"n_episodes": args.n_episodes, "n_walks": args.n_walks, "seed": args.seed}
    data, more = find_dataset(args.dataset, env=args.env), {"title": args.title, "trust_env": args.trust_env}
    more["sweep"] = (setting, values) if setting else None
    for file in plot_maze(data, args.output, agents, args.color, **more, **counts):
        print(f"wrote {file}")
