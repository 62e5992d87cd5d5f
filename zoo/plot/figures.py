"""What all pictures share."""

import math
from pathlib import Path
from typing import Any

from sb3_genoffline.errors import UserError, printable
from sb3_genoffline.files.writing import replaced

DPI = 150
_LONGEST_TEXT = 80


def new_figure(n_panels: int, width: float, height: float, most_columns: int = 4) -> tuple[Any, list[Any]]:
    """
    :param n_panels: panels side by side
    :param width: of one panel, inches
    :param height: of one panel, inches
    :param most_columns: more panels than these are laid in rows of equal length
    :return: a matplotlib figure that needs no display, and its axes
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("Drawing needs matplotlib: pip install matplotlib.") from error
    n_rows = math.ceil(n_panels / most_columns)
    n_columns = math.ceil(n_panels / n_rows)
    figure = Figure(figsize=(width * n_columns, height * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for unused in panels[n_panels:]:
        unused.set_axis_off()
    return figure, panels[:n_panels]


def plain(text: object) -> str:
    """
    What somebody else wrote, as text of a picture: no formula comes of it, and no error of what looks like a broken one; of
    what is too long for a picture the start and the end.
    """
    words = printable(text)
    if len(words) > _LONGEST_TEXT:
        words = f"{words[: _LONGEST_TEXT // 2]}…{words[-_LONGEST_TEXT // 2 + 1 :]}"
    return words.replace("$", r"\$")


def save_figure(figure: Any, output: str | Path) -> list[Path]:
    """
    Write a PNG and an SVG side by side; the same figure gives the same bytes again.

    :param figure: what to write
    :param output: file name; its suffix does not matter
    :return: the files
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    output = Path(output)
    stem = output.with_suffix("") if output.suffix.lower() in (".png", ".svg") else output
    files = [stem.with_name(stem.name + suffix) for suffix in (".png", ".svg")]
    png, svg = files
    # savefig would lay the figure out and draw it twice for each of the files
    figure.set_dpi(DPI)
    with replaced(png) as file:
        write_png(figure, file)
    figure.set_layout_engine("none")
    with rc_context({"svg.hashsalt": "sb3-genoffline"}), replaced(svg) as file:
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    return files


def write_png(figure: Any, file: Any) -> None:
    """
    :param figure: what to draw
    :param file: open for writing bytes
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).print_png(file)
