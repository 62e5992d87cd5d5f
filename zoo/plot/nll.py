"""What the pictures of a density share: the NLL of actions, its contours and its histograms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch as th

from sb3_genoffline.cped import CPED

from ..runs.writing import write_json
from .figures import save_figure

BINS = 60
_BELOW = (-64.0, -32.0, -16.0, -8.0, -4.0)  # nats from the data's q99 on down, where contours are drawn
_BANDS_ABOVE = 6
STYLES: dict[str, dict[str, Any]] = {
    "data": {"color": "#222222", "marker": "o"},
    "agent": {"color": "#009E73", "marker": "*"},
    "other": {"color": "#D55E00", "marker": "X"},
    "random": {"color": "#CC79A7"},
}


@th.no_grad()
def nll_of(model: CPED, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """
    :param model: an agent with a fitted density
    :param observations: (B, S) raw, or (S,) for all actions
    :param actions: (B, A) in the units of the action space
    :return: (B,) −log p(a | s) in nats, of actions scaled to [−1, 1]
    """
    states = np.broadcast_to(observations, (len(actions), observations.shape[-1])).astype(np.float32)
    scaled = np.asarray(model.policy.scale_action(actions.astype(np.float32)), dtype=np.float32)
    tensors = (th.as_tensor(values.copy(), device=model.device) for values in (states, scaled))
    return model.policy.nll_of_rows(*tensors).cpu().numpy()


def summarize(nll: Mapping[str, np.ndarray], q99: float) -> dict[str, dict[str, float]]:
    """
    :param nll: of each kind of action
    :param q99: the data's 99% quantile
    :return: by kind, the mean and the share beyond the quantile
    """
    return {name: {"nll": float(values.mean()), "beyond_q99": float((values > q99).mean())} for name, values in nll.items()}


def points_style(name: str, size: float, **kwargs: Any) -> dict[str, Any]:
    """Style of a scatter of one kind of action."""
    style = STYLES[name]
    big = size > 50
    common = {"s": size, "c": style["color"], "marker": style["marker"], "edgecolors": "white", "zorder": 4 if big else 3}
    return {**common, "linewidths": 1.2 if big else 0.3, "clip_on": not big, **kwargs}


def legend_below(axes: Any, ncols: int) -> None:
    """A frameless legend under the panel."""
    style = {"fontsize": "small", "frameon": False, "handletextpad": 0.3, "columnspacing": 1.2}
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=ncols, **style)


def draw_contours(
    figure: Any,
    axes: Any,
    x: np.ndarray,
    y: np.ndarray,
    log_prob: np.ndarray,
    q99: float,
    colorbar: bool = True,
    joint: bool = False,
) -> None:
    """
    Filled contours of log p. Where it falls below the data's 99% quantile, a dashed line, they grow farther apart.

    :param figure: takes the colour bar
    :param axes: to draw on
    :param x: coordinates of the last index of ``log_prob``
    :param y: of the first
    :param log_prob: (len(y), len(x))
    :param q99: the data's 99% quantile of −log p
    :param colorbar: add one
    :param joint: the density is p(s, a)
    """
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm, ListedColormap

    lowest, top, border = float(np.nanmin(log_prob)), float(np.nanmax(log_prob)), -q99
    reached = lowest < border < top
    below = [border + depth for depth in _BELOW if border + depth > lowest] if reached else []
    levels = np.array([*below, *np.linspace(border if reached else lowest, max(top, lowest + 1e-3), _BANDS_ABOVE + 1)])
    colors = ListedColormap(colormaps["Blues"](np.linspace(0.0, 0.75, len(levels) - (not reached))))
    extend: Literal["min", "neither"] = "min" if reached else "neither"
    norm = BoundaryNorm(levels, colors.N, extend=extend)
    filled = axes.contourf(x, y, log_prob, levels, cmap=colors, norm=norm, extend=extend)
    axes.contour(x, y, log_prob, levels, colors="white", linestyles="solid", linewidths=0.4)
    dashed = {"color": "black", "linestyle": "dashed", "linewidth": 1.2}
    if reached:
        axes.contour(x, y, log_prob, [border], colors="black", linestyles="dashed", linewidths=1.2)
        axes.plot([], [], label="q99 of the data", **dashed)
    if colorbar:
        bar = figure.colorbar(filled, ax=axes, label=density_name(joint) + ", nats", shrink=0.75)
        bar.set_ticks(levels.tolist(), labels=[f"{round(level, 1) + 0.0:.1f}".replace("-", "−") for level in levels])
        if reached:
            bar.ax.axhline(border, **dashed)


def density_name(joint: bool) -> str:
    """What a density is the density of."""
    return "log p(s, a)" if joint else "log p(a | s)"


def draw_distributions(axes: Any, nll: Mapping[str, np.ndarray], q99: float, labels: Mapping[str, str]) -> None:
    """
    Histograms of the NLL, with the share beyond the data's 99% quantile in the legend; what is off the scale lies in the last
    bin.

    :param axes: to draw on
    :param nll: of each kind of action
    :param q99: the data's 99% quantile
    :param labels: of each kind
    """
    everything, shares = np.concatenate(list(nll.values())), summarize(nll, q99)
    low, spread = float(everything.min()), q99 - float(everything.min())
    high = min(float(everything.max()), q99 + 3 * spread)
    bins = np.linspace(low, max(high, q99 + 0.1 * spread), BINS)
    for name, values in nll.items():
        filled = name == "data"
        share = f"{100 * shares[name]['beyond_q99']:.3g}% beyond q99"
        axes.hist(
            np.minimum(values, bins[-1]),
            bins,
            weights=np.full(len(values), 100 / len(values)),
            histtype="stepfilled" if filled else "step",
            color=STYLES[name]["color"],
            alpha=0.35 if filled else 1.0,
            linewidth=1.6,
            label=f"{labels[name]}: {share}",
        )
    axes.axvline(q99, color="black", linestyle="dashed", linewidth=1.2, label=f"q99 of the data: {q99:.2f}".replace("-", "−"))
    beyond = " (last bin: this or more)" if everything.max() > bins[-1] else ""
    axes.set(xlabel=f"−log p, nats{beyond}", ylabel="% of the actions", xlim=(bins[0], bins[-1]))
    axes.grid(alpha=0.3)
    axes.set_ylim(top=1.45 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper right", fontsize="small", frameon=False)


def save_with_numbers(figure: Any, output: str | Path, numbers: dict[str, Any]) -> list[Path]:
    """
    :param figure: written as PNG and SVG
    :param output: file name
    :param numbers: written beside them as JSON
    :return: the three files
    """
    files = save_figure(figure, output)
    beside = files[0].with_suffix(".json")
    write_json(beside, numbers)
    return [*files, beside]
