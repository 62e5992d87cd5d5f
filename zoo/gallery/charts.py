"""
Charts as SVG inside the page, by matplotlib: no script, the page's own font, and colours that follow its light and dark.
"""

import io
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup

from ..benchmark.results import Results, title
from ..plot.figures import new_figure, plain

SERIES = 12
"""Colours; the next as many series have them again, dashed."""
LINE = 44
"""Characters of a label that fit under a chart."""
_TEXT, _LINES = "#010203", "#040506"
_NAMED = {_TEXT: "currentColor", _LINES: "var(--line)"} | {f"#5e00{i:02x}": f"var(--s{i})" for i in range(SERIES)}
"""What is drawn in a colour that nobody would choose gets one that the page's style knows."""
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_STYLE: Any = {
    **{"svg.fonttype": "none", "svg.hashsalt": "sb3-genoffline", "font.size": 11, "axes.linewidth": 0.8},
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _TEXT),
    **{"axes.edgecolor": _LINES, "grid.color": _LINES, "axes.spines.top": False, "axes.spines.right": False},
}


@dataclass(frozen=True)
class Chart:
    """
    :param svg: of the picture, with a group ``data-series`` for each series
    :param label: what is to be seen, in words
    """

    svg: Markup
    label: str


@dataclass(frozen=True)
class Charts:
    """
    Charts side by side under one legend.

    :param charts: the pictures
    :param legend: (number, name) of each series
    """

    charts: list[Chart]
    legend: list[tuple[int, str]]


def dataset_charts(results: Results, dataset: str, name: str) -> Charts:
    """
    Learning curves by updates and by minutes, and the final score of each seed.

    :param results: of a benchmark
    :param dataset: to draw
    :param name: of the group of charts, unique on its page
    """
    names = [algorithm for algorithm in results.algorithms if results.records(algorithm, dataset)]
    unit = "normalised score" if results.normalized(dataset) else "return"
    shown = [(results.algorithms.index(algorithm), algorithm) for algorithm in names]
    finals = {algorithm: results.scores(algorithm, dataset) for algorithm in names}
    reached = ", ".join(f"{title(algorithm)} {values.mean():.1f}" for algorithm, values in finals.items())
    by: dict[str, Callable[[Any], np.ndarray]] = {
        "gradient updates / 1000": lambda curve: curve.timesteps / 1000,
        "wall minutes, fits and evaluations included": lambda curve: curve.seconds / 60,
    }
    charts: list[Chart] = []
    for axis, read in by.items():
        with _figure() as (figure, axes):
            for index, algorithm in shown:
                curve = results.curve(algorithm, dataset)
                if curve is None:
                    continue
                x, look = read(curve), _look(index)
                (line,) = axes.plot(x, curve.mean, **look, linewidth=1.8, marker="o", markersize=2.5)
                line.set_gid(f"series-{index}")
                if curve.std is not None:
                    band = axes.fill_between(
                        x, curve.mean - curve.std, curve.mean + curve.std, color=look["color"], linewidth=0
                    )
                    band.set(alpha=0.12, gid=f"series-{index}")
            _level(results, dataset, axes)
            axes.set(xlabel=axis, ylabel=unit)
            axes.set_xlim(left=0)
        label = f"Learning curves on {dataset}, {unit} against {axis}"
        charts.append(Chart(_inline(figure, f"{name}-{len(charts)}", label), label))
    with _figure() as (figure, axes):
        for row, (index, algorithm) in enumerate(reversed(shown)):
            axes.plot(
                finals[algorithm],
                np.full(len(finals[algorithm]), row),
                "o",
                color=_look(index)["color"],
                gid=f"series-{index}",
            )
            axes.plot([finals[algorithm].mean()] * 2, [row - 0.28, row + 0.28], color=_look(index)["color"], linewidth=3)
        axes.set_yticks(range(len(names)), [plain(title(algorithm)) for algorithm in reversed(names)])
        _level(results, dataset, axes, upright=True)
        axes.set(xlabel=f"final {unit}: a dot is a seed, the bar their mean")
    label = f"Final {unit} on {dataset}: {reached}"
    charts.append(Chart(_inline(figure, f"{name}-{len(charts)}", label), label))
    return Charts(charts, [(index, title(algorithm)) for index, algorithm in shown])


def comparison_chart(results: Results, aggregate: Iterable[dict[str, Any]], name: str) -> Chart:
    """
    Interquartile means with their intervals, the highest first.

    :param results: of a benchmark
    :param aggregate: rows of its table of that name
    :param name: of the chart, unique on its page
    """
    rows = sorted(aggregate, key=lambda row: row["iqm"])
    with _figure(0.6 + 0.34 * len(rows)) as (figure, axes):
        for place, row in enumerate(rows):
            color = _look(results.algorithms.index(row["algorithm"]))["color"]
            if row["low"] is not None:
                axes.barh(place, row["high"] - row["low"], left=row["low"], height=0.62, color=color, alpha=0.35)
            axes.plot([row["iqm"]] * 2, [place - 0.31, place + 0.31], color=color, linewidth=3)
            axes.annotate(
                f" {row['iqm']:.1f}",
                (row["high"] or row["iqm"], place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_yticks(range(len(rows)), [plain(title(row["algorithm"])) for row in rows])
        axes.set(xlabel="interquartile mean of the normalised score, 95% interval")
        axes.margins(x=0.1)
    label = "Interquartile means: " + ", ".join(f"{title(row['algorithm'])} {row['iqm']:.1f}" for row in reversed(rows))
    return Chart(_inline(figure, name, label), label)


def _look(index: int) -> dict[str, Any]:
    return {"color": list(_NAMED)[2 + index % SERIES], "linestyle": "--" if index // SERIES % 2 else "-"}


def _level(results: Results, dataset: str, axes: Any, upright: bool = False) -> None:
    """A line at the mean of the data."""
    data = results.data(dataset)
    if data is not None:
        level = data["normalized_score"] if results.normalized(dataset) else data["mean_return"]
        (axes.axvline if upright else axes.axhline)(level, color=_TEXT, linestyle=":", linewidth=1.2)


@contextmanager
def _figure(height: float = 3.4) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, in the style of the site while they are drawn."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        figure, (axes,) = new_figure(1, 4.7, height)
        axes.grid(alpha=0.6, linewidth=0.6)
        axes.set_axisbelow(True)
        yield figure, axes


def _inline(figure: Any, name: str, label: str) -> Markup:
    """
    :param figure: of matplotlib
    :param name: that all its identifiers start with, since a page has several
    :param label: for who does not see it
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
        axes.set_xlabel(textwrap.fill(axes.get_xlabel(), LINE))
    file = io.StringIO()
    with rc_context(_STYLE):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    root = ElementTree.fromstring(file.getvalue())
    for child in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(child)
    for element in root.iter():
        _rename(element, name)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-label": label}
    svg = ElementTree.tostring(root, encoding="unicode")
    for color, variable in _NAMED.items():
        svg = svg.replace(color, variable)
    return Markup(svg)  # ElementTree has escaped it


def _rename(element: Any, name: str) -> None:
    for key, value in list(element.attrib.items()):
        if key == "id":
            if value.startswith("series-"):
                element.set("data-series", value.removeprefix("series-"))
                del element.attrib[key]  # of a line and of its band
            else:
                element.set(key, f"{name}-{value}")
        elif key == f"{{{_LINK}}}href" and value.startswith("#"):
            element.set(key, f"#{name}-{value[1:]}")
        elif "url(#" in value:
            element.set(key, value.replace("url(#", f"url(#{name}-"))
