"""Scores before and after going online, in one picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.registry import ALGOS

from ..plot.figures import new_figure, save_figure
from .plan import SCRATCH, WAYS

_COLORS = {"kept": "#1f77b4", "half": "#2ca02c", "dropped": "#d62728"}
_BEGIN, _LATE = 20_000, 3


def draw(records: Sequence[dict[str, Any]], output: Path) -> list[Path]:
    """
    A panel for each algorithm: the end of its training on the data, each way to go on, and SAC from scratch.

    :param records: of runs
    :param output: file name; a PNG and an SVG are written
    """
    algorithms = list(dict.fromkeys(record["algorithm"] for record in records if record["algorithm"] != SCRATCH))
    scratch = [record for record in records if record["algorithm"] == SCRATCH]
    figure, panels = new_figure(max(1, len(algorithms)), 4.4, 4.0)
    for axes, algo in zip(panels, algorithms or [SCRATCH], strict=True):
        for record in scratch:
            _line(axes, record, "SAC from scratch", color="#7f7f7f", ls=":")
        ours = [record for record in records if record["algorithm"] == algo != SCRATCH]
        for record in ours:
            _line(axes, record, WAYS[record["way"]], color=_COLORS[record["way"]])
        if ours:
            before = ours[0]["offline"]["curve"]
            x = (np.array(before["updates"]) - before["updates"][-1]) / 1000
            axes.plot(x, before["mean"], color="black", lw=1.2, label="on the data (updates)")
            axes.set_title(ALGOS[algo].__name__)
        axes.axvline(0, color="#cccccc", lw=0.8, zorder=0)
        axes.set_xlabel("updates, then environment steps (thousands)")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("normalised score")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return save_figure(figure, output)


def _line(axes: Any, record: dict[str, Any], label: str, **style: Any) -> None:
    steps, mean, std = (np.array(record["curve"][name]) for name in ("steps", "mean", "std"))
    axes.plot(steps / 1000, mean, marker="o", ms=3, lw=1.5, label=label, **style)
    axes.fill_between(steps / 1000, mean - std, mean + std, color=style["color"], alpha=0.1, lw=0)


def in_numbers(record: dict[str, Any]) -> dict[str, float]:
    """
    :param record: of a run
    :return: its score at the ``start``, the ``lowest`` of the first 20,000 steps, and at the ``end`` the mean of three
    """
    steps, mean = np.array(record["curve"]["steps"]), np.array(record["curve"]["mean"])
    early = mean[(steps > 0) & (steps <= _BEGIN)]
    lowest = early.min() if len(early) else mean[0]
    return {"start": float(mean[0]), "lowest": float(lowest), "end": round(float(mean[-_LATE:].mean()), 2)}
