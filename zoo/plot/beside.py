"""Curves of score and mean Q of two implementations, side by side, from one JSON file of numbers."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.errors import UserError, printable
from sb3_genoffline.files.untrusted import conforms

from ..runs.flags import picture_file
from ..runs.reading import read_json
from .figures import new_figure, plain, save_figure

_COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
_PANELS = {"score": "normalised score", "q": "mean Q of the batch's actions"}
_LAYOUT = '{"title": ..., "runs": {"a name": [{"steps": [...], "score": [...], "q": [...]}, ...one for each seed], ...}}'


def read_beside(path: str | Path) -> dict[str, Any]:
    """
    :param path: of a JSON file with a ``title`` and, by name of the implementation, ``runs``: of each seed the ``steps`` at
        which it was looked at, and ``score`` and ``q`` there
    :return: its content
    :raises UserError: if it is no such file; says which run is wrong
    """
    found = read_json(Path(path), "record of runs side by side")
    runs: Any = found.get("runs")
    if not conforms(runs, dict[str, list[dict[str, list[float]]]]) or not 1 <= len(runs) <= len(_COLORS):
        raise UserError(f"{path} has no 'runs' of one to {len(_COLORS)} implementations; it must look like {_LAYOUT}.")
    for name, seeds in runs.items():
        for number, run in enumerate(seeds, start=1):
            lengths = {len(run.get(key, [])) for key in ("steps", *_PANELS)}
            if len(lengths) != 1 or lengths == {0}:
                raise UserError(
                    f"{path}: run {number} of {printable(name)} needs steps, score and q, of equal lengths; it must look like "
                    f"{_LAYOUT}."
                )
    return found


def plot_beside(found: dict[str, Any], output: str | Path) -> list[Path]:
    """
    Draw each seed thin, and the mean of an implementation's seeds where all were looked at the same steps.

    :param found: of :func:`read_beside`
    :param output: file name; a PNG and an SVG are written
    :return: the files
    """
    figure, panels = new_figure(len(_PANELS), 5.4, 3.8)
    for axes, (key, label) in zip(panels, _PANELS.items(), strict=True):
        for color, (name, seeds) in zip(_COLORS, found["runs"].items(), strict=False):
            for run in seeds:
                axes.plot(run["steps"], run[key], color=color, alpha=0.35, linewidth=1)
            if all(run["steps"] == seeds[0]["steps"] for run in seeds):
                mean = np.mean([run[key] for run in seeds], axis=0)
                axes.plot(seeds[0]["steps"], mean, color=color, label=f"{plain(name)} (mean of {len(seeds)})")
        axes.set(xlabel="gradient updates", ylabel=label)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.suptitle(plain(found.get("title") or ""), fontsize="medium")
    return save_figure(figure, output)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo plot beside``"""
    parser.add_argument("record", metavar="JSON", help=f"file of numbers: {_LAYOUT.replace('%', '%%')}")
    parser.add_argument("-o", "--output", type=picture_file, default="beside.png", help="file to write, as PNG and SVG")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    for file in plot_beside(read_beside(args.record), args.output):
        print(f"wrote {file}")
