"""
List the datasets that can be collected, with what is on this machine and D4RL's level of the same name.

`python -m zoo datasets -o FILE.md` writes the table as Markdown; rows of datasets that are not on this machine stay.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.data.reading.bounds import check_storage
from sb3_genoffline.data.reading.cache import cached_arrays
from sb3_genoffline.data.reading.columns import add_all
from sb3_genoffline.data.scores import ScoreScale
from sb3_genoffline.errors import UserError
from sb3_genoffline.program import PROGRAM

from .recipes import chosen
from .runs.flags import markdown_file
from .runs.provenance import command_line
from .runs.writing import write_text

_LEVELS = ("random", "medium", "medium-replay", "medium-expert", "expert")
_PUBLISHED = {"hopper": (1, 44, 15, 65, 109), "halfcheetah": (0, 41, 27, 64, 88), "walker2d": (0, 62, 15, 83, 107)}
D4RL = {f"{env}/{level}": score for env, scores in _PUBLISHED.items() for level, score in zip(_LEVELS, scores, strict=True)}
"""Normalised mean episode return of D4RL's v2 datasets, as published in the literature, rounded."""

COLUMNS = ("dataset", "steps", "episodes", "MB", "return", "min", "max", "score", "D4RL", "success", "at bounds")
LEGEND = (
    "Return: mean ± standard deviation of the episodes' undiscounted returns. Score: the mean return, scaled so that a random "
    "policy has 0 and an expert 100; in mazes the success rate. D4RL: the score of D4RL's v2 dataset of the same "
    "environment and level, approx., as published in the literature. Success: episodes that were at the goal at some step, "
    "in %. At bounds: action components that lie exactly at a bound of the action space, in %: clipped noise, in mazes a "
    "controller at full force. "
    "–: not collected yet, or there is no such number."
)
NOTHING = "–"


@dataclass(frozen=True, eq=False)
class Contents:
    """
    What a dataset on this machine holds.

    :param size: Bytes on disk
    :param n_steps: Steps in all
    :param returns: ``(n_episodes,)`` undiscounted returns
    :param successes: ``(n_episodes,)`` whether the episode was at its goal at some step; None if the data do not say
    :param references: Mean returns of a random policy and of an expert, if known
    :param at_bounds: Share of the action components that lie exactly at a bound of the action space
    """

    size: int
    n_steps: int
    returns: np.ndarray
    successes: np.ndarray | None
    references: tuple[float, float] | None
    at_bounds: float

    @property
    def score(self) -> float | None:
        """Normalised mean return; the success rate of a maze, in %."""
        low, high = self.references or (None, None)
        scale = ScoreScale.known(low=low, high=high) if self.successes is None else ScoreScale("success")
        return None if scale is None else float(scale.of(self.returns, self.successes).mean())


def read_contents(dataset_id: str) -> Contents | None:
    """
    Read a dataset's returns, and how many of its actions lie at a bound; both are cached.

    :param dataset_id: One of ours, stored as HDF5
    :return: None if it is not on this machine
    :raises UserError: If its files are damaged
    """
    from minari.storage.datasets_root_dir import get_dataset_path

    folder = Path(get_dataset_path(dataset_id)) / "data"
    if not folder.exists():
        return None
    files, path = [file for file in folder.iterdir() if file.is_file()], folder / "main_data.hdf5"
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
        bounds = _bounds_of(metadata)
        arrays = cached_arrays(dataset_id, files, lambda columns: add_all(columns, _read(path, bounds)), variant="contents")
        references = metadata.get("ref_min_score"), metadata.get("ref_max_score")
        return Contents(
            size=sum(file.stat().st_size for file in files),
            n_steps=metadata["total_steps"],
            returns=arrays["returns"],
            successes=arrays.get("successes"),
            references=None if None in references else references,
            at_bounds=float(arrays["at_bounds"].sum() / arrays["components"].sum()),
        )
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"the files of {dataset_id} at {folder} are damaged ({error}); `{PROGRAM} collect {dataset_id} --overwrite` "
            "makes them again"
        ) from error


def _bounds_of(metadata: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of the action space."""
    space = json.loads(metadata["action_space"])
    return np.array(space["low"], np.float32), np.array(space["high"], np.float32)


def _read(path: Path, bounds: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    import h5py

    check_storage([path])
    with h5py.File(path, "r") as file:
        episodes = [file[f"episode_{i}"] for i in range(len(file))]
        at_bounds = [(actions <= bounds[0]) | (actions >= bounds[1]) for actions in (e["actions"][()] for e in episodes)]
        arrays = {
            "returns": np.array([episode["rewards"][()].sum() for episode in episodes], dtype=np.float64),
            "at_bounds": np.array([part.sum() for part in at_bounds]),
            "components": np.array([part.size for part in at_bounds]),
        }
        if "infos/success" in episodes[0]:
            arrays["successes"] = np.array([episode["infos/success"][()].any() for episode in episodes])
    return arrays


def row(dataset_id: str, contents: Contents | None) -> list[str]:
    """
    :param dataset_id: ``genoffline/hopper/medium-v1``
    :param contents: What it holds, if it is on this machine
    :return: Its cell in each of :data:`COLUMNS`
    """
    level = dataset_id.partition("/")[2].rpartition("-v")[0]
    d4rl = str(D4RL.get(level, NOTHING))
    if contents is None:
        return [dataset_id, *[NOTHING] * 7, d4rl, *[NOTHING] * 2]
    returns, digits = contents.returns, 0 if np.abs(contents.returns).max() >= 100 else 2
    megabytes = contents.size / 1e6
    return [
        dataset_id,
        f"{contents.n_steps:,}",
        f"{len(returns):,}",
        f"{megabytes:,.0f}" if megabytes >= 10 else f"{megabytes:.1f}",
        f"{returns.mean():,.{digits}f} ± {returns.std():,.{digits}f}",
        f"{returns.min():,.{digits}f}",
        f"{returns.max():,.{digits}f}",
        NOTHING if contents.score is None else f"{contents.score:z.1f}",
        d4rl,
        NOTHING if contents.successes is None else f"{100 * contents.successes.mean():.0f}",
        f"{100 * contents.at_bounds:.2g}",
    ]


def with_known_rows(rows: Sequence[list[str]], page: Path) -> list[list[str]]:
    """
    :param rows: Of :func:`row`
    :param page: That :func:`markdown` wrote before; need not exist
    :return: The rows; where a dataset is not on this machine, the page's own row of it
    """
    lines = page.read_text().splitlines() if page.is_file() else []
    before = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    known = {cells[0].strip("`"): cells[1:] + [NOTHING] * (len(COLUMNS) - len(cells)) for cells in before}
    return [[cells[0], *known[cells[0]]] if cells[1] == NOTHING and cells[0] in known else cells for cells in rows]


def text(rows: Sequence[Sequence[str]]) -> str:
    """Columns for a terminal; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    lines = []
    for name, *cells in (COLUMNS, *rows):
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *numbers]))
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]], command: str) -> str:
    """A page with the table and the command that wrote it."""
    table = [COLUMNS, [":--", *["--:"] * (len(COLUMNS) - 1)], *([f"`{cells[0]}`", *cells[1:]] for cells in rows)]
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    return "\n".join([f"<!-- Written by `{command}`; do not edit. -->", "# Datasets", "", *lines, "", LEGEND, ""])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: Takes the flags of ``python -m zoo datasets``
    """
    parser.add_argument("datasets", nargs="*", default=["all"], metavar="dataset", help="ids or patterns (default: all)")
    parser.add_argument("-o", "--output", type=markdown_file, default=None, help="write the table to this Markdown file too")


def main(args: argparse.Namespace) -> None:
    """
    :param args: As parsed with :func:`add_arguments`
    """
    rows, problems = [], []
    for dataset_id in chosen(args.datasets):
        try:
            contents = read_contents(dataset_id)
        except ValueError as error:
            contents = None
            problems.append(f"{PROGRAM} datasets: {error}")
        rows.append(row(dataset_id, contents))
    print(text(rows))
    if any(cells[1] == NOTHING for cells in rows):
        print(f"Without a size: not on this machine; `{PROGRAM} collect <dataset>` makes it.")
    if args.output is not None:
        output = Path(args.output)
        write_text(output, markdown(with_known_rows(rows, output), command_line()))
        print(f"wrote {args.output}")
    if problems:
        sys.exit("\n".join(problems))
