"""What an agent reaches with each value of a setting of acting, found by `python -m zoo evaluate --sweep NAME VALUE ...`."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.errors import UserError, printable
from sb3_genoffline.files.untrusted import conforms
from sb3_genoffline.program import PROGRAM

from ..runs.flags import picture_file
from ..runs.reading import read_json
from .figures import new_figure, plain, save_figure

_COLOR, _ASKED, _DATA = "#1f77b4", "#d62728", "#7f7f7f"
_MOST_VALUES = 1000
_FACTS = {"mean_reward": float, "mean_reward_ci95": list[float], "returns": list[float]}


def read_sweep(path: str | Path) -> dict[str, Any]:
    """
    :param path: of a file that ``python -m zoo evaluate --sweep`` wrote
    :return: as :func:`~zoo.runs.sweeping.sweep` returns it
    :raises UserError: if it is none; says which part is wrong
    """
    found = read_json(Path(path), "sweep of a setting")
    name, results = found.get("setting"), found.get("results") or []
    if not isinstance(name, str) or not conforms(results, list[dict[str, Any]]) or not 1 <= len(results) <= _MOST_VALUES:
        raise UserError(f"{path} is not a sweep: it has no 'setting' with 'results'. `{PROGRAM} evaluate --sweep` writes one.")
    for number, result in enumerate(results, start=1):
        wrong = [key for key, hint in _FACTS.items() if not conforms(result.get(key), hint)]
        wrong += [] if len(result.get("mean_reward_ci95") or ()) == 2 else ["mean_reward_ci95"]
        wrong += [] if isinstance(result.get(name), int | float | str | None) else [name]
        if wrong:
            raise UserError(f"{path}: result {number} of the sweep has no right {printable(wrong[0])}.")
    return found


def plot_sweep(found: dict[str, Any], output: str | Path, title: str | None = None) -> list[Path]:
    """
    Draw the mean return of each value with its interval, the returns of its episodes behind it, and the data's mean return. A
    target return is drawn against what it asks for.

    :param found: of :func:`read_sweep`
    :param output: file name; a PNG and an SVG are written
    :param title: of the picture (None: algorithm and dataset)
    :return: the files
    """
    name, results = found["setting"], found["results"]
    values = [result.get(name) for result in results]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = np.array(values if numbers else range(len(values)), dtype=float)
    figure, (axes,) = new_figure(1, 5.4, 4.2)
    for place, result in zip(places, results, strict=True):
        axes.scatter([place] * len(result["returns"]), result["returns"], s=12, c=_COLOR, alpha=0.25, linewidths=0)
    means = np.array([result["mean_reward"] for result in results])
    bounds = np.array([result["mean_reward_ci95"] for result in results])
    errors = np.abs(bounds.T - means)
    axes.errorbar(places, means, errors, fmt="o-", color=_COLOR, capsize=4, label="reached: mean, 95% of it, and episodes")
    if numbers and name == "target_return":
        axes.plot(np.sort(places), np.sort(places), "--", color=_ASKED, label="asked for")
    behavior = results[0].get("behavior_mean_reward")
    if isinstance(behavior, int | float):
        axes.axhline(behavior, linestyle=":", color=_DATA, label="the data's mean")
    if not numbers:
        axes.set_xticks(places, [plain(value) for value in values])
    axes.set(xlabel=plain(name), ylabel="return")
    axes.legend(fontsize="small")
    about = f"{plain(results[0].get('algo') or 'an agent')} on {plain(results[0].get('dataset') or 'a dataset')}"
    figure.suptitle(plain(title) if title else about, fontsize="medium")
    return save_figure(figure, output)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo plot sweep``"""
    add = parser.add_argument
    add("sweep", metavar="JSON", help="file that `python -m zoo evaluate --sweep` wrote")
    add("-o", "--output", type=picture_file, default="sweep.png", help="file to write, as PNG and SVG")
    add("--title", help="default: algorithm and dataset")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    for file in plot_sweep(read_sweep(args.sweep), args.output, args.title):
        print(f"wrote {file}")
