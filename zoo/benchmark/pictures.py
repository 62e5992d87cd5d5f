"""The pictures of a benchmark's report."""

from pathlib import Path
from typing import Any

import numpy as np

from ..plot.figures import new_figure, plain, save_figure
from .results import Results, spread, title
from .statistics import improvement, interquartile_mean, interval

_COLORS = (
    *("#9c9c9c", "#c49c94", "#1f77b4", "#17becf", "#bcbd22", "#8c564b", "#ff7f0e", "#d62728", "#2ca02c", "#9467bd"),
    *("#e377c2", "#aec7e8", "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#dbdb8d", "#9edae5", "#393b79", "#637939"),
    *("#843c39", "#7b4173", "#5254a3", "#8ca252", "#bd9e39", "#ad494a"),
)


def draw_dataset(results: Results, dataset: str, output: Path) -> list[Path]:
    """
    Learning curves against updates and against minutes, and the final score of each seed.

    :param results: of the benchmark
    :param dataset: to draw
    :param output: file name without suffix
    """
    figure, (by_updates, by_minutes, final) = new_figure(3, 4.6, 4.2)
    names = [name for name in results.algorithms if results.records(name, dataset)]
    for name in names:
        color, curve = color_of(results, name), results.curve(name, dataset)
        if curve is None:
            continue
        for axes, x in ((by_updates, curve.timesteps / 1000), (by_minutes, curve.seconds / 60)):
            label = f"{_label(name)} ({curve.seeds})" if axes is by_updates else None
            axes.plot(x, curve.mean, color=color, label=label, linewidth=1.6, marker="o", markersize=2.5)
            if curve.std is not None:
                axes.fill_between(x, curve.mean - curve.std, curve.mean + curve.std, color=color, alpha=0.13, linewidth=0)
    for index, name in enumerate(names):
        values, color = results.scores(name, dataset), color_of(results, name)
        deviation = spread(values)
        final.bar(index, values.mean(), color=color, alpha=0.45, yerr=deviation, error_kw={"ecolor": "#444444", "capsize": 3})
        offsets = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(1)
        final.scatter(index + offsets, values, color=color, edgecolor="black", linewidth=0.6, s=20, zorder=3)
    final.set_xticks(range(len(names)), list(map(_label, names)), rotation=60, ha="right")
    by_updates.set_xlabel("gradient updates / 1000")
    by_minutes.set_xlabel("wall minutes, fits and evaluations included")
    by_minutes.set_xlim(left=0)
    unit = "normalised score" if results.normalized(dataset) else "return"
    by_updates.set_ylabel(unit)
    for axes, what in ((by_updates, "on the way, by updates"), (by_minutes, "on the way, by time"), (final, "final score")):
        _draw_level(results, dataset, axes)
        axes.set_title(what, fontsize="medium")
        axes.grid(alpha=0.3)
    figure.suptitle(plain(dataset))
    figure.legend(*by_updates.get_legend_handles_labels(), loc="outside right center", fontsize="small", title="(seeds)")
    return save_figure(figure, output)


def draw_algorithm(results: Results, name: str, beside: str, output: Path) -> list[Path]:
    """
    An algorithm's learning curves, a panel for each dataset on which it has a result: evaluations on the way, averaged over
    the seeds, and at the end the final score with its spread over the seeds.

    :param results: of the benchmark
    :param name: of the algorithm in the plan
    :param beside: another one for comparison, such as imitation
    :param output: file name without suffix
    """
    datasets = [dataset for dataset in results.datasets if results.records(name, dataset)]
    figure, panels = new_figure(len(datasets), 4.4, 3.4)
    for axes, dataset in zip(panels, datasets, strict=True):
        for other, color in ((beside, "#9c9c9c"), (name, "#1f77b4")):
            curve, scores = results.curve(other, dataset), results.scores(other, dataset)
            if curve is None:
                continue
            deviation = spread(scores)
            final = f"{scores.mean():.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")
            axes.plot(curve.timesteps / 1000, curve.mean, color=color, marker="o", markersize=2.5, linewidth=1.6)
            if curve.std is not None:
                low, high = curve.mean - curve.std, curve.mean + curve.std
                axes.fill_between(curve.timesteps / 1000, low, high, color=color, alpha=0.15, linewidth=0)
            end = curve.timesteps[-1] / 1000 * 1.05
            label = f"{_label(other)} {final} ({curve.seeds})"
            axes.errorbar(end, scores.mean(), deviation, fmt="D", color=color, capsize=3, markersize=5, label=label)
        _draw_level(results, dataset, axes)
        axes.set_title(plain(dataset), fontsize="small")
        axes.set_xlabel("gradient updates / 1000")
        axes.set_ylabel("normalised score" if results.normalized(dataset) else "return")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small", title="final score (seeds)", title_fontsize="x-small")
    return save_figure(figure, output)


def draw_aggregate(results: Results, output: Path) -> list[Path]:
    """
    Interquartile means with intervals, and the probabilities of improvement.

    :param results: of the benchmark
    :param output: file name without suffix
    """
    figure, (means, grid) = new_figure(2, 5.4, 4.6)
    strata = {name: results.strata(name) for name in results.compared[0]}
    names = sorted(strata, key=lambda name: interquartile_mean(strata[name]))
    for row, name in enumerate(names):
        value, bounds, color = (
            interquartile_mean(strata[name]),
            interval("interquartile_mean", strata[name]),
            color_of(results, name),
        )
        if bounds is not None:
            means.barh(row, bounds[1] - bounds[0], left=bounds[0], height=0.6, color=color, alpha=0.4)
        means.plot([value, value], [row - 0.3, row + 0.3], color=color, linewidth=3)
        means.annotate(f"{value:.1f}", (value, row + 0.32), ha="center", va="bottom", fontsize="x-small")
    means.set_yticks(range(len(names)), list(map(_label, names)))
    means.use_sticky_edges = False
    means.margins(x=0.06)
    means.set_ylim(-0.6, len(names) - 0.2)
    means.set_xlabel("interquartile mean of the normalised score, 95% interval")
    means.grid(alpha=0.3, axis="x")
    down = names[::-1]
    share = np.array([[np.nan if a == b else improvement(strata[a], strata[b]) for b in down] for a in down])
    grid.imshow(share, cmap="RdBu", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(share):
        if np.isfinite(value):
            color = "white" if abs(value - 0.5) > 0.35 else "black"
            grid.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize="x-small", color=color)
    labels = list(map(_label, down))
    grid.set_xticks(range(len(down)), labels, rotation=60, ha="right")
    grid.set_yticks(range(len(down)), labels)
    grid.set_title("P(row > column), %", fontsize="medium")
    return save_figure(figure, output)


def draw_minutes(results: Results, output: Path) -> list[Path]:
    """
    The mean score on the way against processor minutes: what a minute buys.

    :param results: of the benchmark
    :param output: file name without suffix
    """
    figure, (axes,) = new_figure(1, 7.6, 4.8)
    for name in results.compared[0]:
        course = results.course(name, np.linspace(0.1, 1.0, 10))
        if course is None:
            continue
        minutes, scores = course
        axes.plot(
            minutes, scores, color=color_of(results, name), linewidth=1.4, marker="o", markersize=2.5, label=_label(name)
        )
        axes.annotate(_label(name), (minutes[-1], scores[-1]), xytext=(3, 0), textcoords="offset points", fontsize="xx-small")
    axes.set_xscale("log")
    axes.set_xlabel("processor minutes, fits and evaluations included")
    axes.set_ylabel("mean normalised score on the way")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize="x-small")
    return save_figure(figure, output)


def _label(name: str) -> str:
    return plain(title(name))


def color_of(results: Results, name: str) -> str:
    """An algorithm's colour, the same in all pictures of a report."""
    return _COLORS[results.algorithms.index(name) % len(_COLORS)]


def _draw_level(results: Results, dataset: str, axes: Any) -> None:
    data = results.data(dataset)
    if data is not None:
        level = data["normalized_score"] if results.normalized(dataset) else data["mean_return"]
        axes.axhline(level, color="black", linestyle="--", linewidth=1, label="mean of the data")
