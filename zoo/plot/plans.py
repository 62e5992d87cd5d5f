"""What a Diffuser means to do in a maze: plans from states of an episode of its own, without its guide and with it."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.diffuser import Diffuser
from sb3_genoffline.errors import UserError
from sb3_genoffline.registry import load_agent

from ..collect.lookup import find_dataset
from ..runs.agents import add_trust_argument
from ..runs.envs import Recorded, env_factory
from ..runs.flags import device, not_negative, picture_file, positive, seed_number
from ..runs.provenance import versions
from ..runs.scoring import EVAL_SEED
from ..runs.sweeping import each_value
from ..runs.writing import finite, write_json
from .figures import new_figure, plain, save_figure
from .maze import HEIGHT, Ground, agent_file, draw_legend, draw_lines, draw_map, ground_of, walk


@dataclass(frozen=True, eq=False)
class PlansAhead:
    """
    k plans from each of n states.

    :param paths: ``(n, k, H, 2)`` xy
    :param values: ``(n, k)``, the return that is expected of each
    """

    paths: np.ndarray
    values: np.ndarray


def plans_from(model: Diffuser, observations: np.ndarray, n_plans: int, seed: int = 0) -> PlansAhead:
    """
    :param model: plans as it is set
    :param observations: ``(n, S)``, which begin with the position
    :param n_plans: k, from each
    :param seed: of what they are denoised from: the same noise with another guide shows what the guide does
    """
    rows = th.as_tensor(np.repeat(observations, n_plans, axis=0), device=model.device, dtype=model.policy.obs_mean.dtype)
    model.policy.seed_acting(seed)
    with th.no_grad():
        plans = model.policy.plan(rows, 1)
    n = len(observations)
    paths = plans.observations[..., :2].reshape(n, n_plans, -1, 2)
    return PlansAhead(paths.cpu().numpy(), plans.values.reshape(n, n_plans).cpu().numpy())


def plot_plans(
    model: Any,
    data: OfflineDataset,
    output: str | Path,
    *,
    n_places: int = 5,
    n_plans: int = 32,
    n_episodes: int = 200,
    seed: int = 0,
    title: str | None = None,
    trust_env: bool = False,
) -> list[Path]:
    """
    Let a Diffuser play an episode, and draw what it plans at states of it: from the same noise without its guide and with it.

    :param model: a Diffuser
    :param data: of a maze of gymnasium-robotics, with its environment
    :param output: file name; a PNG, an SVG and a JSON file with the numbers are written
    :param n_places: states of its episode, from the first to the last but one step evenly
    :param n_plans: from each
    :param n_episodes: of the data, drawn pale
    :param seed: of the plans, and draws the data's episodes
    :param title: of the picture (None: algorithm and dataset)
    :param trust_env: make the environment that the data record, whatever code it names
    :return: the files
    :raises UserError: if the agent is no Diffuser, or the data are of no maze
    """
    if not isinstance(model, Diffuser):
        raise UserError(f"The agent is a {type(model).__name__}: only a Diffuser has plans to draw.")
    make = env_factory(data, recorded=Recorded(trusted=trust_env))
    ground = ground_of(data, make, n_episodes, seed)
    (episode,) = walk(model, make, 1)
    steps = np.linspace(0, len(episode.path) - 2, n_places).round().astype(int)
    scales = (0.0, model.guide_scale)
    kinds = [plans_from(model, episode.observations[steps], n_plans, seed) for _ in each_value(model, "guide_scale", scales)]
    bounds = [min(kind.values.min() for kind in kinds), max(kind.values.max() for kind in kinds)]
    figure, panels = new_figure(len(kinds), ground.width + 0.3, HEIGHT)
    numbers = []
    for axes, kind, scale in zip(panels, kinds, scales, strict=True):
        lines = draw_plans(axes, ground, episode.path + ground.origin, steps, kind, bounds)
        name = f"with the guide, scale {scale:g}" if scale else "without the guide"
        axes.set_title(f"{name}: expected {kind.values.mean():.2f} on average", fontsize="medium")
        places = [{"step": int(step), "mean_value": float(row.mean())} for step, row in zip(steps, kind.values, strict=True)]
        numbers.append({"guide_scale": scale, "mean_value": float(kind.values.mean()), "places": places})
    figure.colorbar(lines, ax=panels, label="expected return", shrink=0.7).solids.set(alpha=1.0)
    about = f"{n_plans} plans of {model.horizon} steps from each of {n_places} states of an episode"
    name = plain(f"Diffuser on {data.id or 'a dataset'}")
    figure.suptitle(title or f"{name}\n{about}", fontsize="medium")
    files = save_figure(figure, output)
    report = files[0].with_suffix(".json")
    protocol = {"episode_seed": EVAL_SEED, "arrives": episode.success, "n_plans": n_plans, "seed": seed}
    about_agent = {"dataset": data.id, "gradient_steps": model.num_timesteps, "horizon": model.horizon}
    write_json(report, finite(about_agent | protocol | {"plans": numbers, "versions": versions()}))
    return [*files, report]


def draw_plans(axes: Any, ground: Ground, path: np.ndarray, steps: np.ndarray, plans: PlansAhead, bounds: list[float]) -> Any:
    """
    :param axes: to draw on
    :param ground: what they are drawn on
    :param path: of the episode ``(T + 1, 2)``, on the map
    :param steps: ``(n,)`` of it, where the plans begin
    :param plans: n times k
    :param bounds: of the colors
    :return: the plans' lines, for a scale of their colors
    """
    draw_map(axes, ground.maze)
    draw_lines(axes, ground.paths, colors="#b8bec6", linewidths=0.5, alpha=0.25)
    axes.plot(*path.T, color="black", linewidth=1.0, linestyle=":", zorder=3, label="its episode")
    order = np.argsort(plans.values.ravel(), kind="stable")  # what is expected to be best lies on top
    paths = plans.paths.reshape(-1, *plans.paths.shape[2:])[order] + ground.origin
    lines = draw_lines(axes, paths, array=plans.values.ravel()[order], cmap="viridis", linewidths=0.9, alpha=0.6, zorder=3)
    lines.set_clim(*bounds)
    axes.scatter(*path[steps].T, s=30, c="black", edgecolors="white", linewidths=0.8, zorder=4, label="plans begin")
    draw_legend(axes)
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo plot plans``"""
    add = parser.add_argument
    add("--dataset", required=True, help="dataset of a PointMaze or AntMaze")
    add("--agent", required=True, metavar="ZIP", help="a Diffuser's file or run folder")
    add("--guide-scale", type=not_negative, help="of the guide, in the episode too (default: the agent's)")
    add("--n-places", type=positive, default=5, help="states of its episode from which plans are drawn")
    add("--n-plans", type=positive, default=32, help="plans from each")
    add("-n", "--n-episodes", type=positive, default=200, help="episodes of the data, drawn pale")
    add("--seed", type=seed_number, default=0, help="of the plans, and draws the data's episodes")
    add("--device", type=device, default="auto", help="cpu, cuda or auto")
    add("-o", "--output", type=picture_file, default="plans.png", help="file to write, as PNG, SVG and JSON")
    add("--title", help="default: algorithm and dataset")
    add("--env", help="the maze, if not the one that the data record")
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    changes = {} if args.guide_scale is None else {"guide_scale": args.guide_scale}
    model = load_agent(agent_file(args.agent), device=args.device, **changes)
    data = find_dataset(args.dataset, env=args.env)
    names = ("n_places", "n_plans", "n_episodes", "seed", "title", "trust_env")
    for file in plot_plans(model, data, args.output, **{name: getattr(args, name) for name in names}):
        print(f"wrote {file}")
