"""QDQ's uncertainty H over the actions of one state, and whether it tells the data's actions from others."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.errors import UserError
from sb3_genoffline.qdq import QDQ
from sb3_genoffline.qdq.diagnostics import detection_auc, share_above_quantile
from sb3_genoffline.registry import ALGOS, load_agent

from ..collect.lookup import find_dataset
from ..runs.agents import data_of_agent
from ..runs.flags import a_folder, algorithm, count, device, picture_file, positive, seed_number
from ..runs.folders import find_run, run_of
from ..runs.provenance import versions
from ..runs.writing import write_json
from .figures import new_figure, plain, save_figure
from .slices import ActionGrid, make_grid

QUANTILE = 0.95
_SLICE_SAMPLES = 256
_COLORS = {"data": "#1f77b4", "policy": "#d62728", "random": "#7f7f7f"}


@dataclass(frozen=True, eq=False)
class ActionSlice(ActionGrid):
    """
    H over one or two dimensions of the action space, at one state.

    :param h: H on the grid, of its shape
    :param policy_action: (A,) of the policy at that state
    :param policy_h: H there
    """

    h: np.ndarray
    policy_action: np.ndarray
    policy_h: float


def make_slice(
    model: QDQ, data: OfflineDataset, row: int | None = None, dims: Sequence[int] | None = None, n_neighbors: int = 200
) -> ActionSlice:
    """
    :param model: an agent whose consistency model is fitted
    :param data: rows of its task
    :param row: see :func:`~zoo.plot.slices.make_grid`
    :param dims: see there
    :param n_neighbors: see there
    """
    grid = make_grid(data, row, dims, n_neighbors)
    policy_action, _ = model.predict(grid.observation, deterministic=True)
    h = smooth_uncertainty(model, grid.observation, np.vstack([grid.points, policy_action]))
    return ActionSlice(**vars(grid), h=h[:-1].reshape(grid.shape), policy_action=policy_action, policy_h=float(h[-1]))


@th.no_grad()
def smooth_uncertainty(model: QDQ, observation: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """
    H without the noise of its estimate: all actions share their samples' noise, the quantiles of a normal distribution.

    :param model: the agent
    :param observation: (S,)
    :param actions: (B, A)
    :return: (B,)
    """
    policy = model.policy
    state = policy.normalize_observations(th.as_tensor(observation[None].copy(), device=policy.device))
    scaled = th.as_tensor(policy.scale_action(actions.astype(np.float32)), device=policy.device)
    levels = (th.arange(_SLICE_SAMPLES, device=policy.device, dtype=state.dtype) + 0.5) / _SLICE_SAMPLES
    noise = th.special.ndtri(levels).expand(len(actions), -1)
    return policy.q_sampler.uncertainty(state.expand(len(actions), -1), scaled, noise).cpu().numpy()


def check_fitted(model: Any, path: str | Path) -> QDQ:
    """
    :param model: any agent
    :param path: its file
    :raises UserError: if it has no fitted consistency model; says why
    """
    if not isinstance(model, QDQ):
        raise UserError(
            f"{path} is a {type(model).__name__} agent: only QDQ has a consistency model whose uncertainty to draw."
        )
    if not bool(model.policy.q_sampler.fitted):
        why = "was trained with penalty='none'" if model.penalty == "none" else "was interrupted before it was fitted"
        raise UserError(f"{path} has no fitted consistency model: it {why}. There is no uncertainty to draw.")
    return model


def plot_uncertainty(
    model: QDQ,
    data: OfflineDataset,
    output: str | Path,
    *,
    row: int | None = None,
    dims: Sequence[int] | None = None,
    n_neighbors: int = 200,
    n_rows: int = 2000,
    seed: int = 0,
    title: str | None = None,
) -> list[Path]:
    """
    Draw H over a slice of the action space beside the data's actions, and the distribution of H for the data's, the policy's
    and random actions.

    :param model: an agent whose consistency model is fitted
    :param data: rows of its task; they become the agent's
    :param output: file name; a PNG, an SVG and a JSON file with the numbers are written
    :param row: see :func:`make_slice`
    :param dims: see :func:`make_slice`
    :param n_neighbors: see :func:`make_slice`
    :param n_rows: rows of the distributions
    :param seed: of these
    :param title: of the picture (None: algorithm and dataset)
    :return: the files
    """
    cut = make_slice(model, data, row, dims, n_neighbors)
    model.set_dataset(data)
    samples = {name: h.cpu() for name, h in model.uncertainty_samples(n_rows, seed).items()}
    threshold = th.quantile(samples["data"], QUANTILE).item()
    detection = {
        name: {
            "mean": samples[name].mean().item(),
            "auc": detection_auc(samples["data"], samples[name]),
            "above_q95": share_above_quantile(samples["data"], samples[name], QUANTILE),
        }
        for name in _COLORS
    }
    figure, (left, right) = new_figure(2, 5.4, 4.4)
    (draw_map if len(cut.dims) == 2 else draw_curve)(figure, left, cut)
    draw_distributions(right, {name: h.numpy() for name, h in samples.items()}, detection, threshold)
    figure.suptitle(
        title or f"{type(model).__name__} on {plain(data.id or 'a dataset')}: spread H of the return that actions lead to"
    )
    files = save_figure(figure, output)
    numbers = files[0].with_suffix(".json")
    write_json(
        numbers,
        {
            "dataset": data.id,
            "gradient_steps": model.num_timesteps,
            "row": cut.row,
            "dims": list(cut.dims),
            "action": cut.action.tolist(),
            "policy_action": cut.policy_action.tolist(),
            "h_of_policy_action": cut.policy_h,
            "h_of_slice": {"min": float(cut.h.min()), "median": float(np.median(cut.h)), "max": float(cut.h.max())},
            "n_rows": n_rows,
            "n_q_samples": model.n_q_samples,
            "seed": seed,
            "q95_of_data": threshold,
            "actions": detection,
            "versions": versions(),
        },
    )
    return [*files, numbers]


def draw_map(figure: Any, axes: Any, cut: ActionSlice) -> None:
    """H over two dimensions as colours."""
    x, y = cut.dims
    image = axes.pcolormesh(*cut.axes, cut.h, cmap="viridis", shading="gouraud", rasterized=True)
    axes.contour(*cut.axes, cut.h, 6, colors="white", linewidths=0.5, alpha=0.5)
    label = f"data, {len(cut.neighbors)} nearest states"
    common = {"edgecolors": "white", "zorder": 3}
    axes.scatter(*cut.neighbors[:, [x, y]].T, s=12, c="black", linewidths=0.4, label=label, **common)
    axes.scatter(*cut.action[[x, y]], s=90, c="orange", marker="D", linewidths=1.2, label="data, this state", **common)
    axes.scatter(*cut.policy_action[[x, y]], s=190, c=_COLORS["policy"], marker="*", linewidths=1.2, label="policy", **common)
    axes.set(xlabel=f"action {x}", ylabel=f"action {y}", title=cut.title, box_aspect=1)
    margin = [0.03 * (axis[-1] - axis[0]) for axis in cut.axes]  # points on the border stay whole
    axes.set_xlim(cut.axes[0][0] - margin[0], cut.axes[0][-1] + margin[0])
    axes.set_ylim(cut.axes[1][0] - margin[1], cut.axes[1][-1] + margin[1])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize="small", frameon=False, handletextpad=0.2)
    figure.colorbar(image, ax=axes, label="H", shrink=0.8)


def draw_curve(figure: Any, axes: Any, cut: ActionSlice) -> None:
    """H over one dimension, the actions as marks on its curve and below it."""
    (dim,), (coordinates,) = cut.dims, cut.axes
    axes.plot(coordinates, cut.h, color="black", linewidth=1.5)
    label = f"data, {len(cut.neighbors)} nearest states"
    floor = np.zeros(len(cut.neighbors))
    axes.scatter(cut.neighbors[:, dim], floor, s=60, c="black", marker="|", linewidths=0.6, label=label)
    action = float(cut.action[dim])
    at = {
        "data, this state": (action, float(np.interp(action, coordinates, cut.h))),
        "policy": (cut.policy_action[dim], cut.policy_h),
    }
    for (name, point), (color, marker, size) in zip(
        at.items(), [("orange", "D", 70), (_COLORS["policy"], "*", 170)], strict=True
    ):
        axes.scatter(*point, s=size, c=color, marker=marker, edgecolors="white", linewidths=1.0, label=name, zorder=3)
    axes.set(xlabel=f"action {dim}", ylabel="H", title=cut.title)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize="small", frameon=False, handletextpad=0.2)


def draw_distributions(
    axes: Any, samples: dict[str, np.ndarray], detection: dict[str, dict[str, float]], threshold: float
) -> None:
    """
    :param axes: to draw on
    :param samples: H of each kind of action
    :param detection: AUC and share above the quantile of each kind
    :param threshold: the quantile of the data's H
    """
    everything = np.concatenate(list(samples.values()))
    bins = np.linspace(0.0, max(np.quantile(everything, 0.998), threshold), 50)
    for name, h in samples.items():
        against = (
            ""
            if name == "data"
            else f": AUC {detection[name]['auc']:.2f}, {100 * detection[name]['above_q95']:.0f}% above q95"
        )
        filled = name == "data"
        axes.hist(
            np.minimum(h, bins[-1]),
            bins,
            density=True,
            histtype="stepfilled" if filled else "step",
            color=_COLORS[name],
            alpha=0.35 if filled else 1.0,
            linewidth=1.5,
            label=f"{name} actions{against}",
        )
    axes.axvline(
        threshold,
        ymax=0.7,
        color="black",
        linestyle="--",
        linewidth=1,
        label=f"q95, the data's 95% quantile: {threshold:.3g}",
    )
    axes.set(xlabel="H", ylabel="density", title=f"{len(everything) // len(samples):,} states of the data", xlim=(0, bins[-1]))
    axes.grid(alpha=0.3)
    axes.set_ylim(top=1.4 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper right", fontsize="small", frameon=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo plot uncertainty``"""
    add = parser.add_argument
    add("--algo", type=algorithm, default="qdq", help=f"algorithm: {', '.join(ALGOS)}")
    add("--dataset", help="dataset that the agent was trained on (with -i: default, the agent's)")
    add("-f", "--folder", "--log-folder", type=a_folder, default="logs", help="root of the logs")
    add("--exp-id", type=count, default=0, help="number of the run (0: the latest)")
    add("-i", "--trained-agent", "--model", metavar="ZIP", help="an agent's file, instead of --algo and --exp-id")
    add("--row", type=count, help="row of the data whose state is looked at (default: nearest to the states' median)")
    add("--dims", type=count, nargs="+", help="one or two dimensions of the action (default: the first two)")
    add("--neighbors", type=positive, default=200, help="data's actions that are drawn: those of the nearest states")
    add("-n", "--n-rows", type=positive, default=2000, help="rows of the distributions")
    add("--seed", type=seed_number, default=0, help="of the rows and samples of the distributions")
    add("--device", type=device, default="auto", help="cpu, cuda or auto")
    add("-o", "--output", type=picture_file, default="uncertainty.png", help="file to write, as PNG, SVG and JSON")
    add("--title", help="default: algorithm and dataset")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    path = args.trained_agent
    if path is None:
        if args.dataset is None:
            raise UserError("Which agent? Give --dataset (and -f, --exp-id), or -i with the agent's file.")
        path = find_run(args.folder, args.algo, args.dataset, args.exp_id).checkpoint()
    model = check_fitted(load_agent(path, device=args.device), path)
    counts = {"n_neighbors": args.neighbors, "n_rows": args.n_rows, "seed": args.seed}
    data = data_of_agent(model, run_of(path), args.dataset, find_dataset)
    for file in plot_uncertainty(model, data, args.output, row=args.row, dims=args.dims, title=args.title, **counts):
        print(f"wrote {file}")
