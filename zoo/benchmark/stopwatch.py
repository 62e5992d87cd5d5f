"""The time of a training that may have been killed and continued, each update counted once."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.learning import TrainedRun


@dataclass
class Stopwatch:
    """
    Seconds of the parts that a training consists of, up to the checkpoint that the next part goes on from.

    :param total: wall seconds: fits, updates and evaluations on the way
    :param fit: of them, fitting models before the first update
    :param updates: gradient updates that were timed, in ``training`` wall seconds without evaluations and fits
    :param training: see ``updates``
    :param wall: wall seconds that were timed, in which this process took ``cpu`` seconds of processors
    :param cpu: see ``wall``
    :param timesteps: updates at which the clock was read
    :param seconds: what it showed
    """

    total: float = 0.0
    fit: float = 0.0
    updates: int = 0
    training: float = 0.0
    wall: float = 0.0
    cpu: float = 0.0
    timesteps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, trained: TrainedRun, cpu: float) -> None:
        """
        Count a part that came to its end.

        :param trained: what it left behind
        :param cpu: processor seconds it took
        """
        self._read_clocks(trained.run.folder, trained.fit_seconds, trained.model.num_timesteps)
        self.total += trained.seconds
        self.fit += trained.fit_seconds
        self.updates += trained.gradient_steps
        self.training += max(trained.seconds - trained.evaluation_seconds - trained.fit_seconds, 0.0)
        self.wall += trained.seconds
        self.cpu += cpu
        self._note(trained.model.num_timesteps, self.total)

    def add_killed(self, started: float, checkpoint: Path, updates: int) -> None:
        """
        Count a part that was killed, as far as its last checkpoint; what it did later will be done again.

        :param started: when it began, seconds since the epoch
        :param checkpoint: that it left behind
        :param updates: of the checkpoint
        """
        seconds = checkpoint.stat().st_mtime - started
        if seconds <= 0:  # the checkpoint is an earlier part's
            return
        rows = _clock_rows(checkpoint.parent, started)
        policy = max((elapsed for step, elapsed in rows if step <= updates), default=0.0)
        fitted = _has_fits(checkpoint.parent)
        fit = seconds if updates == 0 else max(seconds - policy, 0.0) if fitted else 0.0
        self._read_clocks(checkpoint.parent, fit, updates, started)
        self.total += seconds
        self.fit += fit
        self._note(updates, self.total)

    def at(self, timesteps: Sequence[int] | np.ndarray) -> np.ndarray:
        """Wall seconds of a training, fits included, after the given numbers of updates."""
        return np.interp(np.asarray(timesteps), [0, *self.timesteps], [self.fit, *self.seconds])

    def summary(self, updates: int) -> dict[str, Any]:
        """
        :param updates: of the whole training
        :return: seconds, processor seconds and updates per second
        """
        rate = self.updates / self.training if self.training > 0 else updates / max(self.total - self.fit, 1e-9)
        training = min(updates / rate, self.total - self.fit)
        return {
            "seconds": {
                "total": round(self.total, 2),
                "fit": round(self.fit, 2),
                "training": round(training, 2),
                "evaluation": round(self.total - self.fit - training, 2),
                "cpu": round(self.total * self.cpu / self.wall, 2) if self.wall > 0 else None,
            },
            "updates_per_second": round(rate, 2),
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as a record keeps it."""
        return asdict(self)

    def _read_clocks(self, folder: Path, fit: float, updates: int, since: float = 0.0) -> None:
        for step, elapsed in _clock_rows(folder, since):
            if step < updates:
                self._note(step, self.total + fit + elapsed)

    def _note(self, timesteps: int, seconds: float) -> None:
        if timesteps > (self.timesteps[-1] if self.timesteps else 0):
            self.timesteps.append(timesteps)
            self.seconds.append(round(seconds, 2))


def _clock_rows(folder: Path, since: float) -> list[tuple[int, float]]:
    """(updates, seconds since the first of this part) from the log of the latest part of a run."""
    logs = [path for path in folder.glob("progress*.csv") if path.stat().st_mtime >= since]
    if not logs:
        return []
    rows = []
    with max(logs, key=lambda path: path.stat().st_mtime).open() as file:
        for row in csv.DictReader(file):
            if row.get("time/total_timesteps") and row.get("time/time_elapsed"):
                rows.append((int(float(row["time/total_timesteps"])), float(row["time/time_elapsed"])))
    return rows


def _has_fits(folder: Path) -> bool:
    """Whether models were fitted before the first update of a run."""
    with (folder / "progress.csv").open() as file:
        return any(name.endswith("/n_steps") for name in next(csv.reader(file), []))
