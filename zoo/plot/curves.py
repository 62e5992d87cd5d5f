"""Learning curves of the runs on a dataset, with the score of the data as a line."""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.program import PROGRAM
from sb3_genoffline.registry import ALGOS

from ..runs.evaluations import read_run
from ..runs.flags import a_folder, algorithm, picture_file, positive
from ..runs.folders import Run, find_run, list_runs, run_number
from ..runs.scoring import recorded_scale
from .figures import new_figure, plain, save_figure


@dataclass(frozen=True, eq=False)
class Curve:
    """
    :param label: of the legend
    :param steps: (E,) gradient updates
    :param mean: (E,) mean return over runs
    :param band: (E,) half width of the band
    :param baseline: runs with the algorithm's idea switched off
    """

    label: str
    steps: np.ndarray
    mean: np.ndarray
    band: np.ndarray
    baseline: bool


def baseline_of(algo: str, hyperparameters: Mapping[str, Any]) -> str:
    """What to call a run whose algorithm has its idea switched off; empty for others, and for algorithms that are not here."""
    for label, values in ALGOS[algo].baselines.items() if algo in ALGOS else ():
        if all(hyperparameters.get(name) == value for name, value in values.items()):
            return label
    return ""


def make_curve(label: str, runs: Sequence[tuple[np.ndarray, np.ndarray]], baseline: bool = False) -> Curve:
    """
    Average runs at the updates at which all of them were evaluated.

    :param label: of the legend, to which the number of seeds and the meaning of the band are added
    :param runs: (timesteps, returns) of each
    :param baseline: drawn in the second style
    """
    common = runs[0][0]
    for steps, _ in runs[1:]:
        common = np.intersect1d(common, steps)
    if len(common) == 0:
        raise UserError(f"The runs of {label} were never evaluated at the same update; draw them alone with --exp-id.")
    means = np.stack([returns[np.isin(steps, common)].mean(axis=1) for steps, returns in runs])
    if len(runs) > 1:
        return Curve(f"{label} ({len(runs)} seeds, ± std)", common, means.mean(0), means.std(0), baseline)
    returns = runs[0][1]
    error = returns.std(axis=1) / np.sqrt(returns.shape[1])
    return Curve(f"{label} (1 seed, ± s.e. of {returns.shape[1]} episodes)", common, means[0], error, baseline)


def plot_curves(runs: Sequence[Run], output: str | Path, title: str | None = None) -> list[Path]:
    """
    :param runs: of one dataset; those of the same algorithm are averaged, with and without its idea apart
    :param output: file name; a PNG and an SVG are written
    :param title: of the picture (None: the dataset's id)
    :return: the files
    """
    if not runs:
        raise NotFoundError("There is no run to draw.")
    groups: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    data: dict[str, Any] = {}
    for run in runs:
        config, steps, returns = read_run(run)
        data = config["dataset"]
        groups.setdefault((config["algo"], baseline_of(config["algo"], config["hyperparameters"])), []).append(
            (steps, returns)
        )
    scale = recorded_scale(data)
    level = data["success_rate"] if scale is not None and scale.kind == "success" else data["mean_return"]

    def shown(values: Any) -> Any:
        return values if scale is None else scale.of(values, values)

    figure, (axes,) = new_figure(1, 6.4, 4.0)
    colors = itertools.cycle(["#1f77b4", "#d62728", "#2ca02c", "#9467bd"])
    grays = itertools.cycle(["#7f7f7f", "#bcbcbc", "#4d4d4d"])
    for (algo, baseline), members in sorted(groups.items(), key=lambda item: bool(item[0][1])):
        name = ALGOS[algo].__name__ if algo in ALGOS else plain(algo)
        curve = make_curve(f"{name}, {baseline}" if baseline else name, members, bool(baseline))
        low, mean, high = (shown(values) for values in (curve.mean - curve.band, curve.mean, curve.mean + curve.band))
        color = next(grays if baseline else colors)
        axes.plot(curve.steps, mean, color=color, label=curve.label, marker="o" if len(mean) == 1 else None)
        axes.fill_between(curve.steps, low, high, color=color, alpha=0.2, linewidth=0)
    axes.axhline(float(shown(level)), color="black", linestyle="--", linewidth=1, label="mean of the data")
    axes.set_xlabel("gradient updates")
    axes.set_ylabel("return" if scale is None else "normalised score")
    axes.set_title(title or plain(data.get("id") or runs[0].name))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return save_figure(figure, output)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo plot curves``"""
    add = parser.add_argument
    add("--algo", type=algorithm, nargs="+", default=["dac"], help=f"algorithms: {', '.join(ALGOS)}")
    add("--dataset", required=True, help="dataset of the runs")
    add("-f", "--folder", "--log-folder", type=a_folder, default="logs", help="root of the logs")
    add("--exp-id", type=positive, nargs="+", help="numbers of the runs (default: all)")
    add("-o", "--output", type=picture_file, default="curve.png", help="file to write, as PNG and SVG")
    add("--title", help="default: the dataset's id")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    runs = [run for algo in args.algo for run in list_runs(args.folder, algo, args.dataset)]
    if args.exp_id is not None:
        runs = [run for run in runs if run_number(run) in args.exp_id]
    missing = sorted(set(args.exp_id or ()) - {run_number(run) for run in runs})
    if missing or not runs:
        find_run(args.folder, args.algo[0], args.dataset, *missing[:1])  # names those that there are
    evaluated = [run for run in runs if run.evaluations_path.is_file()]
    if not evaluated:
        raise NotFoundError(
            f"There is no evaluated run of {', '.join(args.algo)} on {args.dataset} below {args.folder}: train one with "
            f"`{PROGRAM} train --algo {args.algo[0]} --dataset {args.dataset} -f {args.folder}`."
        )
    for file in plot_curves(evaluated, args.output, args.title):
        print(f"wrote {file}")
