"""Estimates of all policies in one picture."""

from pathlib import Path

from sb3_genoffline.ope import OfflineReport

from ..plot.figures import new_figure, plain, save_figure


def plot_report(report: OfflineReport, output: Path) -> list[Path]:
    """
    :param report: of judged policies
    :param output: file name; a PNG and an SVG are written
    :return: the files
    """
    ranked = sorted(report.judgements, key=lambda name: report.judgements[name].fqe.value)
    figure, (axes,) = new_figure(1, 8.0, 1.6 + 0.3 * len(ranked))
    for row, name in enumerate(ranked):
        found = report.judgements[name]
        axes.plot(found.fqe.interval, (row, row), color="#1f77b4", lw=1.5)
        axes.plot(found.fqe.value, row, "o", color="#1f77b4", fillstyle="none" if found.warnings else "full")
        if found.wdr is not None:
            axes.plot(found.wdr, row, "x", color="#ff7f0e")
    axes.axvline(report.data_value, color="#7f7f7f", ls="--")
    axes.set_yticks(range(len(ranked)), [plain(name) for name in ranked])
    axes.set(
        title="FQE with intervals (×: weighted doubly robust; hollow: with a warning; dashed: the data)",
        xlabel=f"discounted return, γ = {report.gamma:g}",
    )
    axes.title.set_fontsize("small")
    return save_figure(figure, output)
