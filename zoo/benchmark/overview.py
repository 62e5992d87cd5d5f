"""What runs, what is done, what failed, and how long the rest will take."""

import re
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sb3_genoffline.errors import printable, printable_lines

from .plan import Job
from .records import DONE, FAILED, INTERRUPTED, RUNNING, WAITING
from .results import final_score
from .runner import Benchmark, Event, progress_of

REFRESH_SECONDS = 2.0
LINE_SECONDS = 600.0
SKIPPED = "skipped"
_MARKS = {DONE: "●", FAILED: "✗", RUNNING: "◐", INTERRUPTED: "◌", WAITING: "·", SKIPPED: "–"}


def span(seconds: float | None) -> str:
    """``95`` -> ``1 min``; ``None`` -> ``?``."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def score_text(record: Mapping[str, Any]) -> str:
    """The final score of a job that is done."""
    last = record.get("last")
    if last is None:
        return "no score"
    return f"{'return' if last['normalized_score'] is None else 'score'} {final_score(record):.1f}"


class Overview:
    """
    :param benchmark: to look at
    :param active: whether its jobs are run now: a record that says so may be a killed benchmark's
    :param parallel: how many jobs work at a time
    """

    def __init__(self, benchmark: Benchmark, active: bool, parallel: int = 1) -> None:
        self.benchmark, self.active, self.parallel = benchmark, active, parallel
        self.update()

    def update(self) -> None:
        """Read the records."""
        self.records = self.benchmark.records()
        self.states = {
            job: INTERRUPTED if record["state"] == RUNNING and not self.active else record["state"]
            for job, record in self.records.items()
        }
        places = {(skip.name, skip.dataset, skip.seed) for skip in self.benchmark.skipped}
        self.states |= {job: SKIPPED for job in self.states if (job.name, job.dataset, job.seed) in places}
        self.states |= dict.fromkeys(self.benchmark.working, RUNNING)
        running = [job for job, state in self.states.items() if state == RUNNING]
        self.progress = {job: progress_of(self.benchmark.folder, self.records[job]) for job in running}

    def counts(self) -> str:
        """``3 of 10 runs done, 1 failed, 2 running, 4 waiting, about 12 min left``."""
        number = {state: list(self.states.values()).count(state) for state in _MARKS}
        parts = [f"{number[DONE]} of {len(self.states) + len(self.benchmark.plan.skipped)} runs done"]
        parts += [f"{number[state]} {state}" for state in (FAILED, RUNNING, INTERRUPTED, WAITING) if number[state]]
        if self.benchmark.skipped:
            parts.append(f"{len(self.benchmark.skipped)} skipped")
        left = self.seconds_left()
        if left:
            parts.append(f"about {span(left)} left")
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """
        Wall seconds until all is done, or None if nothing can be said yet.
        """
        expected = {job: self._expected(job) for job, state in self.states.items() if state in (WAITING, RUNNING, INTERRUPTED)}
        if any(seconds is None for seconds in expected.values()):
            return None
        left = [max((seconds or 0.0) - self._spent(job), 0.0) for job, seconds in expected.items()]
        return max(sum(left) / max(self.parallel, 1), max(left, default=0.0))

    def _expected(self, job: Job) -> float | None:
        """Wall seconds of a job: as finished ones of its algorithm, else by its own progress, else as all finished ones."""
        took = [(other.name, record["seconds"]["total"]) for other, record in self.records.items() if record["state"] == DONE]
        own = [seconds for name, seconds in took if name == job.name]
        fit, steps = self.progress.get(job, ("", 0))
        if not own and not fit and steps:
            return self._spent(job) * job.updates / steps
        return statistics.mean(own or [seconds for _, seconds in took]) if took else None

    def _spent(self, job: Job) -> float:
        """Wall seconds that a job has been at work, all its parts together."""
        record = self.records[job]
        begun = record.get("attempt") if self.states[job] == RUNNING else None
        return record.get("clock", {}).get("total", 0.0) + (time.time() - begun if begun else 0.0)

    def working(self) -> list[tuple[str, str, str, str]]:
        """(label, progress, time so far, time left) of the jobs at work."""
        rows = []
        for job, (fit, steps) in self.progress.items():
            progress = f"{printable(fit)} {steps:,}" if fit else f"{steps:,} of {job.updates:,} updates"
            spent, expected = self._spent(job), self._expected(job)
            left = None if expected is None else max(expected - spent, 0.0)
            rows.append((f"{job.name} on {job.dataset}, seed {job.seed}", progress, span(spent), span(left)))
        return rows

    def failures(self) -> list[tuple[Job, str]]:
        """Jobs that failed, with the end of what they wrote."""
        return [(job, printable_lines(self.records[job]["error"])) for job, state in self.states.items() if state == FAILED]

    def cells(self) -> dict[tuple[str, str], str]:
        """A mark per seed, and the mean score of those that are done, by algorithm and dataset."""
        result: dict[tuple[str, str], str] = {}
        for place in dict.fromkeys((job.name, job.dataset) for job in self.states):
            jobs = [job for job in self.states if (job.name, job.dataset) == place]
            marks = "".join(_MARKS[self.states[job]] for job in jobs)
            done = [self.records[job] for job in jobs if self.states[job] == DONE and self.records[job].get("last")]
            scores = [final_score(record) for record in done if record["last"]["normalized_score"] is not None]
            result[place] = f"{marks} {statistics.mean(scores):.1f}" if scores else marks
        return result | {(skip.name, skip.dataset): SKIPPED for skip in self.benchmark.plan.skipped}

    def table(self) -> Any:
        """Everything, for a terminal."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        plan, cells = self.benchmark.plan, self.cells()
        results = Table()
        results.add_column("")
        for dataset in plan.datasets:
            short = re.sub(r"-v\d+$", "", dataset.removeprefix("genoffline/"))
            results.add_column(Text(short.replace("/", "\n")), overflow="fold")
        for name in plan.algorithms:
            results.add_row(Text(name), *(cells.get((name, dataset), "") for dataset in plan.datasets))
        title = Text(f"{printable(plan.title)}: {self.counts()}", style="bold")
        legend = Text("● done  ◐ running  ◌ interrupted  · waiting  ✗ failed  – skipped; mean normalised score")
        parts: list[Any] = [title, results, legend]
        rows = self.working()
        if rows:
            running = Table("running", "progress", "at work", "left")
            for row in rows:
                running.add_row(*map(Text, row))
            parts.append(running)
        return Group(*parts)


class _Lines:
    """A line for each thing that happens, and the counts now and then: for logs."""

    def __init__(self, overview: Overview) -> None:
        self.overview, self._last = overview, time.monotonic()

    def show(self, event: Event | None) -> None:
        if event is not None:
            job, text = event.job, event.state
            if text == DONE:
                text = f"done, {score_text(event.record)}, {span(event.record['seconds']['total'])}"
            elif text == FAILED:
                text = f"failed: {printable(event.record['error'].splitlines()[-1])}"
            self._print(f"{job.name} on {job.dataset}, seed {job.seed}: {text}")
        due = time.monotonic() - self._last > LINE_SECONDS
        if due or (event is not None and event.state != RUNNING):
            self._last = time.monotonic()
            self.overview.update()
            self._print(self.overview.counts())

    def _print(self, text: str) -> None:
        print(f"{datetime.now():%H:%M:%S} {text}", flush=True)


class _Live:
    """A table that is renewed: for terminals."""

    def __init__(self, overview: Overview, live: Any) -> None:
        self.overview, self.live, self._last = overview, live, 0.0

    def show(self, event: Event | None) -> None:
        from rich.console import Group
        from rich.text import Text

        if event is not None or time.monotonic() - self._last > REFRESH_SECONDS:
            self._last = time.monotonic()
            self.overview.update()
            failures = [Text(f"✗ {job.label}: {error.splitlines()[-1]}") for job, error in self.overview.failures()]
            self.live.update(Group(self.overview.table(), *failures), refresh=True)


@contextmanager
def shown(overview: Overview) -> Iterator[Any]:
    """
    :return: something whose ``show`` takes what :meth:`Benchmark.run` yields
    """
    if not sys.stdout.isatty():
        yield _Lines(overview)
        return
    from rich.live import Live

    with Live(overview.table(), auto_refresh=False) as live:
        yield _Live(overview, live)


def print_overview(overview: Overview) -> None:
    """The table, once."""
    from rich.console import Console

    Console().print(overview.table())


def last_words(overview: Overview, folder: Path) -> str:
    """What failed, was interrupted or was skipped, with reasons; empty if nothing was."""
    lines = []
    for job, error in overview.failures():
        lines += [f"{job.label} failed:", *(f"    {line}" for line in error.splitlines())]
        lines.append(f"    (log: {folder / 'jobs' / job.label}.log; --retry-failed tries again)")
    interrupted = list(overview.states.values()).count(INTERRUPTED)
    if interrupted:
        lines.append(f"{interrupted} run{'s were' if interrupted > 1 else ' was'} interrupted: the same command resumes")
    reasons: dict[str, list[str]] = {}
    for skip in overview.benchmark.skipped:
        reasons.setdefault(skip.reason, []).append(f"{skip.name} on {skip.dataset}, seed {skip.seed}")
    for reason, places in reasons.items():
        lines += [f"skipped {', '.join(places)}:", f"    {reason}"]
    return "\n".join(lines)
