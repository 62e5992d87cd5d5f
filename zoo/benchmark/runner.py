"""Run a plan's jobs, several at a time, each as a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from sb3_genoffline.errors import UserError

from ..collect.lookup import find_dataset
from ..runs.places import output_folder
from ..runs.stopping import shielding_children
from ..runs.writing import write_json
from .job import is_end, is_stop
from .plan import Job, Plan, Skipped
from .records import (
    DONE,
    FAILED,
    INTERRUPTED,
    RUNNING,
    WAITING,
    Reader,
    job_run,
    last_lines,
    new_record,
    open_record,
    read_record,
    record_path,
)

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 300.0
"""A job that is asked to stop may be in the middle of an evaluation."""

_LOCK = "benchmark.lock"


class Process(Protocol):
    """A job at work."""

    def poll(self) -> int | None:
        """Exit code, None while it works."""

    def stop(self) -> None:
        """Ask it to save and end."""

    def kill(self) -> None:
        """End it."""


Starter = Callable[[Path], Process]
"""Starts the job of a record."""


class LocalProcess:
    """
    A job on this machine.

    :param record: of the job; its output goes into the ``.log`` beside it
    :param threads: that it may use
    :param nice: how much it yields to other processes
    :param module: that does such jobs
    """

    def __init__(self, record: Path, threads: int, nice: int, module: str = f"{__package__}.job") -> None:
        pinned = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        command = [sys.executable, "-m", module, str(record.resolve())]
        with record.with_suffix(".log").open("ab") as log, shielding_children():
            self._process = subprocess.Popen(
                [*command, "--threads", str(threads), "--nice", str(nice)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **pinned, "PYTHONUNBUFFERED": "1", "PYTHONPATH": _search_path()},
                start_new_session=True,  # Ctrl-C comes to the benchmark alone, which then ends its jobs in order
            )

    def poll(self) -> int | None:
        """Exit code, None while it works."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to save and end."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._process.kill()


def _search_path() -> str:
    """Where a job finds this package, which in a checkout is installed nowhere."""
    package = sys.modules[__name__.partition(".")[0]]
    return os.pathsep.join(filter(None, [str(Path(str(package.__file__)).parents[1]), os.environ.get("PYTHONPATH")]))


@dataclass(frozen=True)
class Event:
    """
    Something happened to a job.

    :param job: the job
    :param state: its state now
    :param record: its record now
    """

    job: Job
    state: str
    record: dict[str, Any]


class Benchmark:
    """
    The jobs of a plan in a folder.

    :param plan: what is to be run
    :param folder: of records (``jobs/``), and of the runs with their checkpoints, in the zoo's layout
    :param retry_failed: also run jobs that failed before; they go on from their last checkpoint if they left one
    """

    def __init__(self, plan: Plan, folder: str | Path, retry_failed: bool = False) -> None:
        self.plan, self.folder, self.retry_failed = plan, Path(folder), retry_failed
        self.skipped: list[Skipped] = list(plan.skipped)
        self.waiting: list[Job] = []
        self.working: dict[Job, Process] = {}

    def run(self, start: Starter, jobs: int, collect: bool = False) -> Generator[Event | None]:
        """
        Run what is not done. Yields an event when a job starts or ends, and None twice a second, for who watches. Closed or
        interrupted in between, it asks the jobs at work to save and end, and waits for them.

        :param start: starts a job
        :param jobs: how many work at a time
        :param collect: make datasets of ours that are not there
        :raises UserError: if another process is running jobs in this folder
        """
        output_folder(str(self.folder))
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder):
            self._prepare(collect)
            try:
                while self.waiting or self.working:
                    while self.waiting and len(self.working) < jobs:
                        job = self.waiting.pop(0)
                        self.working[job] = start(record_path(self.folder, job))
                        yield Event(job, RUNNING, open_record(self.folder, job))
                    for job in [job for job, process in self.working.items() if process.poll() is not None]:
                        yield self._ended(job, self.working.pop(job).poll())
                    yield None
                    time.sleep(POLL_SECONDS)
            finally:
                stop_all(self.working)

    def records(self) -> dict[Job, dict[str, Any]]:
        """What is known of all jobs now."""
        paths = {job: record_path(self.folder, job) for job in self.plan.jobs}
        return {job: read_record(path) if path.is_file() else new_record(job) for job, path in paths.items()}

    def _prepare(self, collect: bool) -> None:
        """Find out what is to be done, and which data there are."""
        fingerprints: dict[tuple[str, str | None], str | UserError] = {}
        for job in self.plan.jobs:
            record = open_record(self.folder, job)
            if record["state"] == FAILED and not self.retry_failed:
                continue
            source = job.dataset, job.config.get("env")
            if source not in fingerprints:
                try:
                    fingerprints[source] = find_dataset(job.dataset, collect=collect, env=source[1]).fingerprint
                except UserError as error:
                    fingerprints[source] = error
            found = fingerprints[source]
            if isinstance(found, UserError):
                if record["state"] != DONE:
                    self.skipped.append(Skipped(job.name, job.dataset, job.seed, str(found)))
                continue
            if record["state"] == DONE and record["data"]["fingerprint"] == found:
                continue
            if record["state"] == DONE:  # of other data that had this id
                write_json(record_path(self.folder, job), new_record(job))
            self.waiting.append(job)

    def _ended(self, job: Job, code: int | None) -> Event:
        record = ended_record(record_path(self.folder, job), code)
        return Event(job, record["state"], record)


def ended_record(path: Path, code: int | None, read: Reader = read_record) -> dict[str, Any]:
    """
    The record of a job whose process has ended, with what the process could not write any more.

    :param path: of the record
    :param code: exit code of the process
    :param read: reads a record of its kind
    """
    record = read(path)
    if is_stop(code) and record["state"] in (WAITING, RUNNING):  # asked to end before it began
        record["state"] = INTERRUPTED
        write_json(path, record)
    elif not is_end(code, record["state"]):
        log = path.with_suffix(".log")
        text = log.read_text(errors="replace") if log.is_file() else ""
        how = f"ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        record |= {"state": FAILED, "error": last_lines(f"{text.rstrip()}\n{how}")}
        write_json(path, record)
    return record


def stop_all(working: MutableMapping[Any, Process]) -> None:
    """
    End jobs, with what they have done in their checkpoints; at once at a second signal.

    :param working: processes, none of which is left in it afterwards
    """
    processes = list(working.values())
    try:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.stop()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
        working.clear()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """
    Hold the folder's lock, which ends with the process, however it ends.

    :param folder: of a benchmark, or of the trials of ``python -m zoo tune``
    :raises UserError: if another process has it
    """
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"Another process is running jobs in {folder}: wait for it, or use another folder.") from None
    try:
        yield
    finally:
        lock.release()


def is_running(folder: Path) -> bool:
    """Whether a process runs jobs in a folder."""
    if not (folder / _LOCK).is_file():
        return False
    try:
        with alone(folder):
            return False
    except UserError:
        return True


def progress_of(folder: Path, record: dict[str, Any]) -> tuple[str, int]:
    """
    How far a job's training is: the name of the fit that goes on (empty: the policy's updates), and its steps.

    :param folder: of the benchmark
    :param record: of the job
    """
    run = job_run(folder, record)
    if run is None:
        return "", 0
    logs: list[Path] = sorted(run.folder.glob("progress*.csv"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return "", 0
    with logs[-1].open() as file:
        names, last = file.readline().rstrip("\n").split(","), ""
        for line in file:
            last = line if line.endswith("\n") else last  # it is being written
    row = {name: value for name, value in zip(names, last.rstrip("\n").split(","), strict=False) if value}
    if "time/total_timesteps" in row:
        return "", int(float(row["time/total_timesteps"]))
    fit = next((name for name in row if name.endswith("/n_steps")), None)
    return ("", 0) if fit is None else (fit.removesuffix("/n_steps"), int(float(row[fit])))
