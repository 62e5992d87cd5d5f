"""Report what you should know about a dataset before training on it: what needs attention, and a picture."""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.errors import NotFoundError, UserError, printable

from ..collect.lookup import find_dataset
from ..runs.agents import add_trust_argument
from ..runs.flags import discount, json_file, picture_file, seed_number
from ..runs.folders import dataset_name
from ..runs.writing import write_json
from .report import Report, inspect_dataset

WIDTH, LABEL = 112, 14
MOST_ROWS = 30
"""Rows of a table that are printed; the JSON file has them all."""
BARS = "▁▂▃▄▅▆▇█"


def text(report: Report) -> str:
    """
    :param report: of a dataset
    :return: lines for a terminal
    """
    parts = (
        _lines_of_contents,
        _lines_of_episodes,
        _lines_of_rewards,
        _lines_of_spaces,
        _lines_of_coverage,
        _lines_of_findings,
    )
    return "\n".join(line for part in parts for line in part(report))


def _lines_of_contents(report: Report) -> Iterator[str]:
    yield printable(report.id or "dataset without an id")
    yield _line("contents", f"{report.n_transitions:,} transitions in {report.n_episodes:,} episodes")
    yield _line("fingerprint", report.fingerprint)
    limit = report.episodes.step_limit
    where = printable(report.env_id or "not known")
    if limit is not None:
        where += f", {'by the lengths' if report.episodes.limit_inferred else 'at most'} {limit:,} steps"
    yield _line("environment", where)
    yield _line("observations", f"{report.observation_bounds.shape[1]} columns, {_bounds(report.observation_bounds)}")
    yield _line("actions", f"{report.action_bounds.shape[1]} dimensions, {_bounds(report.action_bounds)}")


def _lines_of_episodes(report: Report) -> Iterator[str]:
    ends, returns = report.episodes, report.returns
    shortest, median, longest = ends.lengths
    yield ""
    yield _line("lengths", f"{shortest:,} to {longest:,} steps, median {median:,.0f}")
    both = f", {ends.both:,} marked as both" if ends.both else ""
    yield _line("ends", f"{ends.terminated:,} terminated, {ends.truncated:,} truncated{both}, {ends.cut:,} cut without a mark")
    if ends.step_limit is not None:
        marked = f", {ends.terminated_at_limit:,} of them marked as terminations" if ends.at_limit else ""
        yield _line("step limit", f"{ends.at_limit:,} episodes reach it{marked}")
    yield _line(
        "continuity",
        f"{ends.gaps:,} rows inside episodes whose next observation is not the following row's"
        + (f"; {ends.flags_inside:,} ends marked inside episodes" if ends.flags_inside else ""),
    )
    rows = [["returns", *(f"{value:.1f}" for value in (returns.mean, returns.std, *returns.quartiles))]]
    if returns.score_mean is not None and returns.score_std is not None and returns.score_quartiles is not None:
        scores = (returns.score_mean, returns.score_std, *returns.score_quartiles)
        rows.append(["normalised", *(f"{value:.1f}" for value in scores)])
    yield ""
    yield from _table(["", "mean", "std", "min", "25%", "median", "75%", "max"], rows)
    if returns.success_rate is not None:
        yield _line("score", f"{returns.score_mean:.1f}, of a maze: the share of episodes that reach the goal, in %")
    elif returns.references is None:
        yield _line(
            "normalised", "unknown: no reference returns (dataset.replace(ref_min_score=…, ref_max_score=…) gives them)"
        )
    low, high = returns.edges[[0, -1]]
    yield _line("histogram", f"{low:.1f} {_bars(returns.counts)} {high:.1f}")


def _lines_of_rewards(report: Report) -> Iterator[str]:
    rewards = report.rewards
    kind = "constant" if rewards.n_values == 1 else "sparse" if rewards.sparse else "dense"
    yield ""
    yield _line(
        "rewards",
        f"{rewards.low:.4g} to {rewards.high:.4g}, mean {rewards.mean:.4g}, std {rewards.std:.4g}, {_percent(rewards.zeros)} "
        f"zeros: {kind}, {rewards.n_values:,} different values",
    )
    low, high = rewards.attained
    yield _line(
        "discounted",
        f"returns {low:.4g} to {high:.4g} at gamma {rewards.gamma:g}; bound max|r|/(1 − gamma) = {rewards.bound:.4g}",
    )
    yield _line("repeats", f"{report.repeats.rows:,} rows and {report.repeats.episodes:,} episodes are exact copies")


def _lines_of_spaces(report: Report) -> Iterator[str]:
    actions, columns = report.actions, report.observations
    yield ""
    yield "actions, scaled to [−1, 1] (at bound: within 0.001 of it; spread: standard deviation at nearly equal states)"
    spread = report.coverage.action_spread
    values = [actions.mean, actions.std, actions.low, actions.high, actions.at_low, actions.at_high]
    rows = [
        [f"{i}", *(f"{v[i]:.3f}" for v in values[:4]), *(_percent(v[i]) for v in values[4:]), *_cell(spread, i)]
        for i in range(len(actions.mean))
    ]
    yield from _table(["dimension", "mean", "std", "min", "max", "at low", "at high", "spread"], rows)
    yield f"{_percent(actions.any_saturated)} of the rows have a dimension at a bound"
    yield ""
    yield "observations (farthest: largest distance from the mean, in standard deviations; outside: of the space's bounds)"
    values = [columns.mean, columns.std, columns.low, columns.high, columns.outlier]
    bounded = np.isfinite(report.observation_bounds).any(axis=0)
    rows = [
        [f"{i}", *(f"{v[i]:.4g}" for v in values), _percent(columns.outside[i]) if bounded[i] else "–"]
        for i in range(len(columns.mean))
    ]
    yield from _table(["column", "mean", "std", "min", "max", "farthest", "outside"], rows)


def _lines_of_coverage(report: Report) -> Iterator[str]:
    coverage, n_columns = report.coverage, report.observation_bounds.shape[1]
    yield ""
    yield _line(
        "state space",
        f"{coverage.effective_dims:.1f} effective dimensions of {n_columns} (participation ratio of the correlations)",
    )
    if coverage.nearest is None or coverage.unexplained is None:
        yield _line("neighbours", f"fewer than {coverage.neighbors} states of other episodes to compare with")
    else:
        low, median, high = coverage.nearest
        yield _line(
            "neighbours",
            f"nearest state of another episode at {median:.2f} (5%: {low:.2f}, 95%: {high:.2f}) standard deviations per "
            "dimension",
        )
        free = ", ".join(f"{100 * share:.0f}%" for share in coverage.unexplained[:MOST_ROWS])
        yield _line(
            "actions vary",
            f"by {free} of their variance at nearly equal states (a function of the state would have 0%, chance 100%)",
        )
    yield _line(
        "",
        f"(estimates: {coverage.n_queries:,} states against {coverage.n_pool:,} random rows, seed {coverage.seed}; "
        "everything else is from all rows)",
    )


def _lines_of_findings(report: Report) -> Iterator[str]:
    yield ""
    yield "findings" if report.findings else "findings: none"
    for number, finding in enumerate(report.findings, start=1):
        yield _numbered(number, finding.text)


def _numbered(number: int, message: str) -> str:
    return textwrap.fill(message, WIDTH, initial_indent=f"{number:3}. ", subsequent_indent=" " * 5)


def _line(label: str, content: str) -> str:
    return textwrap.fill(content, WIDTH, initial_indent=f"{label:{LABEL}}", subsequent_indent=" " * LABEL)


def _bounds(bounds: np.ndarray) -> str:
    """Of a space: the common ones, or how many there are."""
    low, high = bounds
    if np.isinf(bounds).all():
        return "no bounds"
    if (low == low[0]).all() and (high == high[0]).all():
        return f"each in [{low[0]:g}, {high[0]:g}]".replace("-", "−")
    pairs = [f"[{a:g}, {b:g}]" for a, b in zip(low, high, strict=True)]
    more = f", … ({len(pairs) - MOST_ROWS} more)" if len(pairs) > MOST_ROWS else ""
    return f"in {', '.join(pairs[:MOST_ROWS])}{more}".replace("-", "−")


def _bars(counts: np.ndarray) -> str:
    """A histogram of one line; what is not empty is seen."""
    levels = np.ceil(counts / counts.max() * len(BARS)).astype(int)
    return "".join(" " if level == 0 else BARS[level - 1] for level in levels)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _cell(values: np.ndarray | None, index: int) -> list[str]:
    return ["–" if values is None else f"{values[index]:.3f}"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Right-aligned columns; of many rows the first ones."""
    shown = [head, *rows[:MOST_ROWS]]
    widths = [max(len(row[i]) for row in shown) for i in range(len(head))]
    for row in shown:
        yield "  " + "   ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    if len(rows) > MOST_ROWS:
        yield f"  … and {len(rows) - MOST_ROWS} more (--json has them)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo inspect``"""
    add = parser.add_argument
    add("dataset", help="Minari id, or a file: .hdf5 in D4RL's layout, .npz")
    add("--env", help="environment whose spaces the data have, for files without spaces")
    add("--download", action="store_true", help="download a Minari dataset if it is missing")
    add_trust_argument(parser)
    add("--gamma", type=discount, default=0.99, help="discount of the returns a critic would learn")
    add("--seed", type=seed_number, default=0, help="seed for choosing the rows that estimates use")
    add("--json", type=json_file, metavar="FILE", help="write everything to this file")
    add("-o", "--output", type=picture_file, help="picture to write, as PNG and SVG (default: logs/inspect/<dataset>.png)")
    add("--no-picture", action="store_true", help="only print")


def main(args: argparse.Namespace) -> None:
    """
    A source that cannot be loaded is itself a finding, printed and written like others; the exit status is 1 then.

    :param args: as parsed with :func:`add_arguments`
    """
    try:
        data = find_dataset(args.dataset, args.download, env=args.env, trust_env=args.trust_env)
    except NotFoundError:
        raise
    except UserError as error:
        message = str(error)
        print(f"{args.dataset}\n\nfindings\n{_numbered(1, f'It cannot be loaded: {message}')}")
        _write(args.json, {"id": args.dataset, "findings": [{"name": "unreadable", "text": message}]})
        sys.exit(1)
    report = inspect_dataset(data, args.gamma, args.seed)
    print(text(report))
    _write(args.json, report.as_dict())
    if not args.no_picture:
        from .pictures import plot_dataset

        output = Path(args.output) if args.output else Path("logs") / "inspect" / f"{dataset_name(args.dataset)}.png"
        for file in plot_dataset(data, report, output):
            print(f"wrote {file}")


def _write(file: str | None, content: dict[str, Any]) -> None:
    if file is not None:
        write_json(Path(file), content)
        print(f"wrote {file}")
