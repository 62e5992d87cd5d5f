"""A dataset in one picture: returns, ends, actions, observations, rewards, and where in the state space the data are."""

from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.data import OfflineDataset, scale_actions

from ..plot.figures import new_figure, plain, save_figure
from .measures import HISTOGRAM_BINS, SATURATION_MARGIN, histogram, sample_rows
from .report import Report

ROWS_DRAWN = 50_000
"""Rows in the pictures of actions and states; those of episodes and rewards show all."""
MOST_LABELS = 12
"""Dimensions of an action up to which numbers are written beside each."""
_HEADROOM = 1.35
_WIDTH, _HEIGHT = 14.0, 11.0
_BLUE, _RED, _GREEN, _GRAY = "#1f77b4", "#d62728", "#2ca02c", "#7f7f7f"
_ENDS = {"terminated": _RED, "truncated": _BLUE, "both": "#9467bd", "cut, not marked": _GRAY}


def plot_dataset(data: OfflineDataset, report: Report, output: str | Path, seed: int = 0) -> list[Path]:
    """
    :param data: what was inspected
    :param report: of the data
    :param output: file name; a PNG and an SVG are written
    :param seed: of the rows that are drawn where these are many
    :return: the files
    """
    figure = draw_dataset(data, report, seed)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, which takes as long as drawing, and not again for each file
    return save_figure(figure, output)


def draw_dataset(data: OfflineDataset, report: Report, seed: int = 0) -> Any:
    """
    :param data: see :func:`plot_dataset`
    :param report: see there
    :param seed: see there
    :return: the matplotlib figure
    """
    figure, _ = new_figure(1, _WIDTH, _HEIGHT)
    figure.clear()
    panels = figure.subplots(3, 3)
    rows = sample_rows(len(data), ROWS_DRAWN, seed)
    draw_returns(panels[0, 0], report)
    draw_lengths(panels[0, 1], data, report)
    draw_order(panels[0, 2], data)
    draw_actions(panels[1, 0], data, report, rows)
    draw_observations(panels[1, 1], report)
    draw_rewards(panels[1, 2], data, report)
    draw_states(figure, panels[2, :2], data, rows)
    draw_spread(panels[2, 2], report)
    figure.suptitle(f"{plain(report.id or 'a dataset')}: {report.n_transitions:,} transitions, {report.n_episodes:,} episodes")
    return figure


def scores_of(data: OfflineDataset) -> tuple[np.ndarray, str]:
    """(E,) what is shown as the episodes' returns: normalised if that says something; and what it is called."""
    returns, scale = data.episode_returns(), data.score_scale
    if scale is None or scale.kind == "success":
        return returns, "return"
    return scale.of(returns), "normalised score"


def end_kinds(data: OfflineDataset) -> np.ndarray:
    """(E,) how each episode ends, as an index into the kinds."""
    last = data.episode_ends - 1
    terminated, truncated = data.terminations[last], data.truncations[last]
    return np.select([terminated & truncated, terminated, truncated], [2, 0, 1], 3)


def draw_returns(axes: Any, report: Report) -> None:
    """Histogram of the episodes' returns beside what a random policy and the expert return."""
    returns = report.returns
    if returns.references is None:
        shift, factor, label = 0.0, 1.0, "return"
    else:
        low, high = returns.references
        shift, factor, label = low, 100.0 / (high - low), "normalised score (above: return)"
        axes.secondary_xaxis("top", functions=(lambda x: x / factor + shift, lambda x: (x - shift) * factor))
        axes.axvline(0, color=_GRAY, linestyle="--", ymax=1 / _HEADROOM, linewidth=1.2, label="random policy, 0")
        axes.axvline(100, color=_GREEN, linestyle="--", ymax=1 / _HEADROOM, linewidth=1.2, label="expert, 100")
    mean, median = (returns.mean - shift) * factor, (returns.quartiles[2] - shift) * factor
    axes.stairs(returns.counts, (returns.edges - shift) * factor, fill=True, color=_BLUE, alpha=0.5)
    axes.axvline(mean, color="black", ymax=1 / _HEADROOM, linewidth=1.2, label=f"mean, {mean:.1f}")
    axes.axvline(median, color="black", ymax=1 / _HEADROOM, linewidth=1.2, linestyle=":", label=f"median, {median:.1f}")
    axes.set(xlabel=label, ylabel="episodes", title="Returns")
    legend_above(axes)


def draw_lengths(axes: Any, data: OfflineDataset, report: Report) -> None:
    """Histogram of the episodes' lengths by how they end."""
    lengths, kinds = data.episode_lengths(), end_kinds(data)
    _, edges = histogram(lengths, HISTOGRAM_BINS)
    present = [i for i in range(len(_ENDS)) if (kinds == i).any()]
    names = list(_ENDS)
    axes.hist(
        [lengths[kinds == i] for i in present],
        edges,
        stacked=True,
        color=[_ENDS[names[i]] for i in present],
        alpha=0.6,
        label=[f"{names[i]}, {int((kinds == i).sum()):,}" for i in present],
    )
    if report.episodes.step_limit is not None:
        label = f"step limit, {report.episodes.step_limit:,}" + (" (inferred)" if report.episodes.limit_inferred else "")
        axes.axvline(report.episodes.step_limit, color="black", linestyle="--", ymax=1 / _HEADROOM, linewidth=1.2, label=label)
    axes.set(xlabel="steps", ylabel="episodes", title="Lengths and ends", xlim=(0, None))
    legend_above(axes)


def legend_above(axes: Any) -> None:
    """A legend in two columns over what is drawn."""
    axes.set_ylim(top=_HEADROOM * axes.get_ylim()[1])
    axes.legend(fontsize="small", loc="upper center", ncols=2, frameon=False, columnspacing=1.2)


def draw_order(axes: Any, data: OfflineDataset) -> None:
    """The returns in the order of the log, coloured by how the episodes end: whether the behaviour changed on the way."""
    scores, label = scores_of(data)
    first_rows, width = data.episode_starts, max(5, len(scores) // 20)
    colors = np.array(list(_ENDS.values()))[end_kinds(data)]
    axes.scatter(first_rows, scores, s=8, c=colors, alpha=0.5, linewidths=0, rasterized=True)
    if len(scores) >= 2 * width:
        middle = np.convolve(scores, np.ones(width) / width, mode="valid")
        axes.plot(
            first_rows[width // 2 :][: len(middle)], middle, color="black", linewidth=1.2, label=f"mean of {width} episodes"
        )
        axes.legend(fontsize="small", framealpha=0.9, edgecolor="white", loc="upper left")
    axes.set(xlabel="row where the episode starts", ylabel=label, title="Returns in the order of the log")
    axes.grid(alpha=0.3)


def draw_actions(axes: Any, data: OfflineDataset, report: Report, rows: np.ndarray) -> None:
    """Each dimension, scaled to [−1, 1]: a mirrored histogram of what is off the bounds, and bars for the shares at them."""
    actions = scale_actions(data.actions[rows], data.action_space)
    edges = np.linspace(-1, 1, HISTOGRAM_BINS + 1)
    for dim, column in enumerate(actions.T):
        counts, _ = np.histogram(column[np.abs(column) < 1 - SATURATION_MARGIN], edges)
        half = 0.4 * counts / max(1, counts.max())
        axes.stairs(dim + half, edges, baseline=dim - half, orientation="horizontal", fill=True, color=_BLUE, alpha=0.5)
        for bound, share, side in ((1.0, report.actions.at_high[dim], "bottom"), (-1.0, report.actions.at_low[dim], "top")):
            axes.barh(bound, 0.8 * share, height=0.05, left=dim - 0.4 * share, color=_RED)
            if actions.shape[1] <= MOST_LABELS:
                note = f"{100 * share:.0f}%"
                axes.text(dim, 1.05 * bound, note, ha="center", va=side, fontsize="small", color=_RED)
    axes.errorbar(
        np.arange(actions.shape[1]), report.actions.mean, report.actions.std, fmt="o", color="black", markersize=4, linewidth=1
    )
    axes.set(
        xlabel="dimension",
        ylabel="action, scaled",
        title="Actions: mean ± std, share at a bound",
        ylim=(-1.2, 1.2),
        xlim=(-0.6, actions.shape[1] - 0.4),
    )
    axes.xaxis.get_major_locator().set_params(integer=True)


def draw_observations(axes: Any, report: Report) -> None:
    """Mean ± standard deviation of each column, and its range."""
    columns = report.observations
    x = np.arange(len(columns.mean))
    constant = columns.std == 0
    thick = 240 / max(20, len(x))  # points
    axes.vlines(x, columns.low, columns.high, color=_BLUE, alpha=0.35, linewidth=thick / 3, label="smallest to largest")
    axes.vlines(x, columns.mean - columns.std, columns.mean + columns.std, color=_BLUE, linewidth=thick, label="mean ± std")
    if constant.any():
        axes.scatter(x[constant], columns.mean[constant], color=_RED, marker="x", s=30, label="constant", zorder=3)
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set(xlabel="column", ylabel="value (linear within ± 1)", title="Observations", xlim=(-0.6, len(x) - 0.4))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", framealpha=0.9, edgecolor="white", loc="upper left")


def draw_rewards(axes: Any, data: OfflineDataset, report: Report) -> None:
    """Histogram of single rewards on a logarithmic scale."""
    rewards = report.rewards
    counts, edges = histogram(data.rewards, HISTOGRAM_BINS)
    axes.stairs(counts, edges, fill=True, color=_BLUE, alpha=0.5)
    axes.set_yscale("log")
    kind = "sparse" if rewards.sparse else "dense"
    axes.set(xlabel="reward", ylabel="rows", title=f"Rewards: {kind}, {100 * rewards.zeros:.0f}% zeros")
    low, high = rewards.attained
    note = f"discounted returns (γ = {rewards.gamma:g})\nattained: {low:.3g} to {high:.3g}\nbound: ± {rewards.bound:.3g}"
    axes.text(0.97, 0.96, note, ha="right", va="top", transform=axes.transAxes, fontsize="small")
    axes.set_ylim(0.7, 40 * axes.get_ylim()[1])  # room for the note


def draw_states(figure: Any, panels: Any, data: OfflineDataset, rows: np.ndarray) -> None:
    """Where the data are, in two coordinates: how many, and the mean return of the episodes that pass."""
    (x, x_label), (y, y_label) = coordinates(data, rows)
    scores, label = scores_of(data)
    per_row = scores[np.searchsorted(data.episode_ends, rows, side="right")]
    density, colored = panels
    common = {"gridsize": int(np.clip(np.sqrt(len(rows)) / 3, 12, 45)), "mincnt": 1, "linewidths": 0.2}
    image = density.hexbin(x, y, bins="log", cmap="viridis", **common)
    figure.colorbar(image, ax=density, label=f"rows of {len(rows):,}")
    image = colored.hexbin(x, y, C=per_row, reduce_C_function=np.mean, cmap="plasma", **common)
    image.set_clim(*np.quantile(image.get_array().compressed(), [0.02, 0.98]))
    figure.colorbar(image, ax=colored, label=f"{label}, mean", extend="both")
    density.set(xlabel=x_label, ylabel=y_label, title="Where the data are")
    colored.set(xlabel=x_label, ylabel=y_label, title="Mean return of the episodes there")


def coordinates(data: OfflineDataset, rows: np.ndarray) -> list[tuple[np.ndarray, str]]:
    """
    The first two principal components of the standardised states. Where states vary in fewer directions, dimensions of the
    action fill up.

    :param data: any
    :param rows: that are wanted
    :return: two pairs of values and label
    """
    states = data.observations[rows].astype(np.float64)
    spread = states.std(axis=0)
    states = (states - states.mean(axis=0)) / np.where(np.ptp(states, axis=0) > 0, spread, 1.0)
    variances, directions = np.linalg.eigh(states.T @ states / len(states))
    found: list[tuple[np.ndarray, str]] = []
    for i in np.argsort(-variances)[:2]:
        if variances[i] > 1e-9:
            share = 100 * variances[i] / variances.sum()
            found.append((states @ directions[:, i], f"principal component {len(found) + 1} ({share:.0f}% of variance)"))
    found += [(column, f"action {dim}") for dim, column in enumerate(data.actions[rows].T)]
    return [*found, (np.zeros(len(rows)), "")][:2]


def draw_spread(axes: Any, report: Report) -> None:
    """How much of the actions' spread is left when the state is known."""
    coverage, total = report.coverage, report.actions.std
    x = np.arange(len(total))
    axes.set(
        title="Actions: variance not due to the state",
        xlabel="dimension",
        ylabel="standard deviation, scaled",
        xlim=(-0.6, len(x) - 0.4),
    )
    if coverage.action_spread is None or coverage.unexplained is None or coverage.nearest is None:
        axes.text(0.5, 0.5, "no other episodes\nto compare with", ha="center", va="center", transform=axes.transAxes)
        return
    axes.bar(x, total, width=0.8, color=_BLUE, alpha=0.3, label="all rows")
    axes.bar(x, coverage.action_spread, width=0.5, color=_BLUE, label=f"{coverage.neighbors} nearest states of other episodes")
    if len(x) <= MOST_LABELS:
        for dim, share in enumerate(coverage.unexplained):
            axes.text(dim, total[dim], f"{100 * share:.0f}%", ha="center", va="bottom", fontsize="small")
    axes.set_ylim(0, 1.4 * max(total.max(), coverage.action_spread.max(), 1e-3))  # room for the legend
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize="small", framealpha=0.9, edgecolor="white", loc="upper left")
