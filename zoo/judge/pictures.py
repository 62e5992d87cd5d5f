"""Estimates of all policies in one picture, and beside the truth."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sb3_genoffline.ope import OfflineReport

from ..plot.figures import new_figure, plain, save_figure
from .truth import ESTIMATORS, Truth, estimates_of, figures_of


def plot_report(report: OfflineReport, output: Path) -> list[Path]:
    """
    :param report: of judged policies
    :param output: file name; a PNG and an SVG are written
    :return: the files
    """
    ranked = sorted(report.judgements, key=lambda name: report.judgements[name].fqe.value)
    figure, (axes,) = new_figure(1, 11.0, 1.8 + 0.3 * len(ranked))
    for row, name in enumerate(ranked):
        found = report.judgements[name]
        axes.plot(found.fqe.interval, (row, row), color="#1f77b4", lw=1.5)
        axes.plot(found.fqe.value, row, "o", color="#1f77b4", fillstyle="none" if found.doubts else "full")
        if found.wdr is not None:
            axes.plot(found.wdr, row, "x", color="#ff7f0e")
        doubts = plain("; ".join(doubt.short for doubt in found.doubts))
        axes.annotate(
            doubts, (1.01, row), xycoords=("axes fraction", "data"), fontsize="x-small", va="center", color="#d62728"
        )
    axes.axvline(report.data_value, color="#7f7f7f", ls="--")
    axes.set_yticks(range(len(ranked)), [plain(name) for name in ranked])
    lines = ["FQE with intervals (×: weighted doubly robust; hollow: with a warning; dashed: the data)", *report.warnings]
    axes.set(title="\n".join(lines), xlabel=f"discounted return, γ = {report.gamma:g}")
    axes.title.set_fontsize("small")
    return save_figure(figure, output)


def plot_truth(
    report: OfflineReport, truth: Mapping[str, Truth], output: Path, others: Mapping[str, Mapping[str, float]] | None = None
) -> list[Path]:
    """
    A panel for each estimator: its estimates against the truth.

    :param report: of judged policies
    :param truth: by name
    :param output: file name; a PNG and an SVG are written
    :param others: further estimates by name of the estimator, then of the policy
    :return: the files
    """
    estimates = estimates_of(report, others)
    figure, panels = new_figure(len(estimates), 4.2, 4.2)
    for axes, (kind, values) in zip(panels, estimates.items(), strict=True):
        names = [*values]
        y, x = np.array([values[name] for name in names]), np.array([truth[name].value for name in names])
        if kind == "fqe":
            bounds = np.array([report.judgements[name].fqe.interval for name in names])
            axes.vlines(x, *bounds.T, color="#1f77b4", alpha=0.3, lw=1)
        axes.plot(x, y, "o", ms=4, color="#1f77b4")
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        axes.plot(ends, ends, color="#7f7f7f", lw=0.8, ls="--")
        found = figures_of(y, x)
        axes.set_title(
            f"{ESTIMATORS[kind]}: ρ {found['rank_correlation']:.2f}, regret@1 {found['regret_at_1']:.2f}, @3 "
            f"{found['regret_at_3']:.2f}",
            fontsize="small",
        )
        axes.set(xlabel="discounted return in the simulator", ylabel="estimate")
    return save_figure(figure, output)
