"""
CPED's density of behaviour, and where it lets the actor go.

Without an agent: the two-mode bandit, trained here with the constraint on and off. With ``--dataset`` or ``-i``: a slice of
the action space at one state of a trained agent's data, and with ``--other`` the action of a second agent.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.cped import CPED
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.data.environments import check_compatible
from sb3_genoffline.errors import UserError
from sb3_genoffline.registry import ALGOS, load_agent

from ..collect.lookup import find_dataset
from ..runs.agents import data_of_agent
from ..runs.flags import a_folder, algorithm, count, device, picture_file, positive, real, seed_number
from ..runs.folders import find_run, run_of
from ..runs.provenance import versions
from .density_toy import plot_toy
from .figures import new_figure, plain
from .nll import (
    STYLES,
    density_name,
    draw_contours,
    draw_distributions,
    legend_below,
    nll_of,
    points_style,
    save_with_numbers,
    summarize,
)
from .slices import ActionGrid, make_grid


def label_of(model: AnyAlgorithm) -> str:
    """An agent's name in the legend: its class and, of CPED, what moves α."""
    name = type(model).__name__
    if not isinstance(model, CPED):
        return name
    what = {"dual": "dual α", "schedule": "scheduled α", "fixed": f"α = {model.alpha:g}"}[model.alpha_mode]
    return f"{name}, {what}"


def check_fitted(model: Any, path: str | Path) -> CPED:
    """
    :param model: any agent
    :param path: its file
    :raises UserError: if it has no fitted density; says why
    """
    if not isinstance(model, CPED):
        raise UserError(
            f"{path} is a {type(model).__name__} agent: only CPED has a density of behaviour to draw (another agent's action "
            "can be drawn into it with --other)."
        )
    if not bool(model.policy.fitted):
        why = "was interrupted before it was fitted" if model.constrained else "was trained with alpha=0 (give it as --other)"
        raise UserError(f"{path} has no fitted density: it {why}.")
    return model


def plot_agent(
    model: CPED,
    data: OfflineDataset,
    output: str | Path,
    other: AnyAlgorithm | None = None,
    *,
    row: int | None = None,
    dims: Sequence[int] | None = None,
    n_neighbors: int = 200,
    n_rows: int = 2000,
    seed: int = 0,
    title: str | None = None,
) -> list[Path]:
    """
    Draw the log-density over a slice of the action space beside the data's actions and the agents', and how the NLL of the
    data's, the agents' and random actions is distributed.

    :param model: an agent with a fitted density
    :param data: rows of its task
    :param output: file name; a PNG, an SVG and a JSON file with the numbers are written
    :param other: a second agent, of any algorithm
    :param row: see :func:`~zoo.plot.slices.make_grid`
    :param dims: see there
    :param n_neighbors: see there
    :param n_rows: rows of the distributions
    :param seed: of these
    :param title: of the picture (None: algorithm and dataset)
    :return: the files
    """
    agents: dict[str, AnyAlgorithm] = {"agent": model} if other is None else {"agent": model, "other": other}
    for agent in agents.values():
        check_compatible(data, agent.observation_space, agent.action_space)
    labels = {name: label_of(agent) for name, agent in agents.items()}
    if labels["agent"] == labels.get("other"):
        labels["other"] += " (other)"
    cut = make_grid(data, row, dims, n_neighbors)
    chosen = {name: agent.predict(cut.observation, deterministic=True)[0] for name, agent in agents.items()}
    log_prob = -nll_of(model, cut.observation, cut.points).reshape(cut.shape)
    q99 = model.policy.nll_q99.item()

    generator = np.random.default_rng(seed)
    rows = np.sort(generator.choice(len(data), min(n_rows, len(data)), replace=False))
    observations, space = data.observations[rows], data.action_space
    actions = {
        "data": data.actions[rows],
        **{name: agent.predict(observations, deterministic=True)[0] for name, agent in agents.items()},
        "random": generator.uniform(space.low, space.high, (len(rows), *space.shape)),
    }
    nll = {name: nll_of(model, observations, values) for name, values in actions.items()}

    figure, (left, right) = new_figure(2, 5.6, 4.6)
    if len(cut.dims) == 2:
        draw_slice(figure, left, cut, log_prob, q99, chosen, labels, model.policy.density.joint)
    else:
        draw_curve(left, cut, log_prob, q99, chosen, labels, model.policy.density.joint)
    draw_distributions(right, nll, q99, {"data": "data", **labels, "random": "random actions"})
    right.set_title(f"{len(rows):,} states of the data")
    figure.suptitle(title or f"{type(model).__name__} on {plain(data.id or 'a dataset')}: density of behaviour")
    at_state = {name: -float(nll_of(model, cut.observation, action[None])[0]) for name, action in chosen.items()}
    numbers = {
        "dataset": data.id,
        "gradient_steps": model.num_timesteps,
        "alpha": model.alpha_now().item(),
        "row": cut.row,
        "dims": list(cut.dims),
        "action": cut.action.tolist(),
        "agents": {
            name: {"label": labels[name], "action": action.tolist(), "log_prob": at_state[name]}
            for name, action in chosen.items()
        },
        "log_prob_of_slice": {"min": float(log_prob.min()), "max": float(log_prob.max())},
        "n_rows": len(rows),
        "seed": seed,
        "q99_of_data": q99,
        "actions": summarize(nll, q99),
        "versions": versions(),
    }
    return save_with_numbers(figure, output, numbers)


def draw_slice(
    figure: Any,
    axes: Any,
    cut: ActionGrid,
    log_prob: np.ndarray,
    q99: float,
    chosen: Mapping[str, np.ndarray],
    labels: Mapping[str, str],
    joint: bool,
) -> None:
    """
    :param figure: takes the colour bar
    :param axes: to draw on
    :param cut: over two dimensions
    :param log_prob: on its grid
    :param q99: the data's 99% quantile of −log p
    :param chosen: the agents' actions
    :param labels: of the agents
    :param joint: the density is p(s, a)
    """
    (x, y), (across, up) = cut.dims, cut.axes
    draw_contours(figure, axes, across, up, log_prob, q99, joint=joint)
    axes.scatter(*cut.neighbors[:, [x, y]].T, **points_style("data", 14), label=f"data, {len(cut.neighbors)} nearest states")
    axes.scatter(*cut.action[[x, y]], **points_style("data", 80, c="#F0E442", marker="D"), label="data, this state")
    for name, action in chosen.items():
        axes.scatter(*action[[x, y]], **points_style(name, 320 if name == "agent" else 90), label=labels[name])
    margins = [0.03 * (axis[-1] - axis[0]) for axis in cut.axes]  # points on the border stay whole
    (left, right), (low, high) = ((axis[0] - m, axis[-1] + m) for axis, m in zip(cut.axes, margins, strict=True))
    axes.set(xlabel=f"action {x}", ylabel=f"action {y}", title=cut.title, box_aspect=1)
    axes.set(xlim=(left, right), ylim=(low, high))
    legend_below(axes, ncols=2)


def draw_curve(
    axes: Any,
    cut: ActionGrid,
    log_prob: np.ndarray,
    q99: float,
    chosen: Mapping[str, np.ndarray],
    labels: Mapping[str, str],
    joint: bool,
) -> None:
    """As :func:`draw_slice`, over one dimension: the agents' actions as marks on the curve, the data's below it."""
    (dim,), (line,) = cut.dims, cut.axes
    axes.plot(line, log_prob, color="#0072B2", linewidth=1.8)
    axes.axhline(-q99, color="black", linestyle="dashed", linewidth=1.2, label="q99 of the data")
    floor = np.full(len(cut.neighbors), log_prob.min())
    style = {"s": 60, "c": STYLES["data"]["color"], "marker": "|", "linewidths": 0.6}
    axes.scatter(cut.neighbors[:, dim], floor, label=f"data, {len(cut.neighbors)} nearest states", **style)
    for name, action in {"data": cut.action, **chosen}.items():
        marks = {"c": "#F0E442", "marker": "D"} if name == "data" else {}
        label = labels.get(name, "data, this state")
        axes.scatter(action[dim], np.interp(action[dim], line, log_prob), **points_style(name, 120, **marks), label=label)
    axes.set(xlabel=f"action {dim}", ylabel=density_name(joint) + ", nats", title=cut.title)
    axes.grid(alpha=0.3)
    legend_below(axes, ncols=2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo plot density``"""
    add = parser.add_argument
    add("-o", "--output", type=picture_file, default="density.png", help="file to write, as PNG, SVG and JSON")
    add("--seed", type=seed_number, default=0, help="of the bandit and its agents, or of the rows of the distributions")
    bandit = parser.add_argument_group("the bandit, drawn when no agent is named").add_argument
    bandit("--steps", type=positive, help="updates of each actor (default: 1500)")
    bandit("--flow-steps", type=positive, help="steps of the density, at most (default: 1500)")
    bandit("--state", type=real, help="the state of the first panel (default: 0.35)")
    agent = parser.add_argument_group("a trained agent").add_argument
    agent("--algo", type=algorithm, default="cped", help=f"algorithm: {', '.join(ALGOS)}")
    agent("--dataset", help="dataset that the agent was trained on (with -i: default, the agent's)")
    agent("-f", "--folder", "--log-folder", type=a_folder, default="logs", help="root of the logs")
    agent("--exp-id", type=count, default=0, help="number of the run (0: the latest)")
    agent("-i", "--trained-agent", "--model", metavar="ZIP", help="an agent's file, instead of --algo and --exp-id")
    agent("--other", metavar="ZIP", help="a second agent, e.g. one trained with -params alpha_mode:fixed alpha:0")
    agent("--row", type=count, help="row of the data whose state is looked at (default: nearest to the states' median)")
    agent("--dims", type=count, nargs="+", help="one or two dimensions of the action (default: the first two)")
    agent(
        "--neighbors",
        type=positive,
        help="data's actions that are drawn: those of the nearest states (default: 200)",
    )
    agent("-n", "--n-rows", type=positive, help="rows of the distributions (default: 2000)")
    agent("--device", type=device, default="auto", help="cpu, cuda or auto")
    agent("--title", help="default: algorithm and dataset")


_TOY_FLAGS = {"steps": "--steps", "flow_steps": "--flow-steps", "state": "--state"}
_AGENT_FLAGS = {
    "other": "--other",
    "row": "--row",
    "dims": "--dims",
    "neighbors": "--neighbors",
    "n_rows": "--n-rows",
    "title": "--title",
}


def given(args: argparse.Namespace, names: Mapping[str, str]) -> dict[str, Any]:
    """Those of the flags that were given, by name."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    bandit, agent = given(args, _TOY_FLAGS), given(args, _AGENT_FLAGS)
    if args.trained_agent is None and args.dataset is None:
        if agent:
            flags = ", ".join(_AGENT_FLAGS[name] for name in agent)
            raise UserError(f"Which agent? {flags} needs --dataset (and -f, --exp-id), or -i with the agent's file.")
        th.set_num_threads(1)  # the nets are too small for more
        files = plot_toy(args.output, seed=args.seed, **bandit)
    else:
        if bandit:
            flags = ", ".join(_TOY_FLAGS[name] for name in bandit)
            raise UserError(f"{flags}: of the bandit, which is drawn when no agent is named; leave out --dataset and -i.")
        path = args.trained_agent or find_run(args.folder, args.algo, args.dataset, args.exp_id).checkpoint()
        model = check_fitted(load_agent(path, device=args.device), path)
        data = data_of_agent(model, run_of(path), args.dataset, find_dataset)
        other = agent.pop("other", None)
        if "neighbors" in agent:
            agent["n_neighbors"] = agent.pop("neighbors")
        second = None if other is None else load_agent(other, device=args.device)
        files = plot_agent(model, data, args.output, second, seed=args.seed, **agent)
    for file in files:
        print(f"wrote {file}")
