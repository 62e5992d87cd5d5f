"""
Run the page of the example and write down what it prints: ``python -m zoo.glucose.record``, in a checkout.

The page's own blocks are run, one after another in one namespace; what a block of Python prints replaces the block of text
below it. The outputs, versions and processor time go into ``zoo/figures``, and so does the picture.
"""

import contextlib
import io
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..plot.figures import save_figure
from ..runs.provenance import versions
from ..runs.writing import write_json, write_text
from .log import write_log

HERE = Path(__file__).parent
PAGE, FIGURE = HERE / "README.md", HERE.parent / "figures" / "glucose.png"
RECORD = FIGURE.with_suffix(".json")
BLOCK = re.compile(r"```(python|sh|text)\n(.*?)```", re.DOTALL)


def run_page(page: str, shell: Callable[[str], None], shorten: Callable[[str], str] = str) -> tuple[dict[str, Any], list[str]]:
    """
    :param page: its text
    :param shell: runs a line of a block of sh
    :param shorten: makes a block of Python cheaper
    :return: the names that the page leaves, and what each block of Python printed
    """
    names: dict[str, Any] = {"__name__": "page"}
    outputs = []
    for language, code in BLOCK.findall(page):
        if language == "sh":
            for line in code.splitlines():
                shell(line)
        if language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(shorten(code), str(PAGE), "exec"), names)
            outputs.append(printed.getvalue())
    return names, outputs


def with_outputs(page: str, outputs: list[str]) -> str:
    """The page with each block of text replaced by what the block of Python before it printed."""
    printed = iter(outputs)
    last = ""

    def replaced(match: re.Match[str]) -> str:
        nonlocal last
        if match[1] == "python":
            last = next(printed)
        return f"```text\n{last}```" if match[1] == "text" else match[0]

    return BLOCK.sub(replaced, page)


def _shell(line: str) -> None:
    if line.startswith("python -m zoo glucose"):
        write_log("glucose.csv")


def main() -> None:
    """Run, and write page, record and picture."""
    started, page = time.process_time(), PAGE.read_text()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        names, outputs = run_page(page, _shell)
    write_text(PAGE, with_outputs(page, outputs))
    minutes = round((time.process_time() - started) / 60, 1)
    write_json(RECORD, {"outputs": outputs, "cpu_minutes": minutes, "cpus": os.cpu_count(), "versions": versions()})
    for file in [RECORD, PAGE, *save_figure(names["figure"], FIGURE)]:
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
