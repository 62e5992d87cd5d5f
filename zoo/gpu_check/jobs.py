"""Jobs that may fail or hang: each in a process that is ended when it is late, or when CUDA has failed in it."""

import contextlib
import itertools
import multiprocessing
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

NO_TIME_LEFT = "no time was left"
_LEAST = 3.0  # seconds below which no job is begun


@dataclass(frozen=True)
class Job:
    """
    :param name: of it, unique
    :param function: at the top of a module, so that another process finds it
    :param arguments: of the function
    :param seconds: after which it is ended
    """

    name: str
    function: Callable[..., dict[str, Any]]
    arguments: dict[str, Any]
    seconds: float


def attempt(function: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> dict[str, Any]:
    """What a job returns, and the seconds it took; of one that fails, what went wrong. Standard output stays clean."""
    begun = time.perf_counter()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = function(**arguments)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        result = {"error": f"{type(error).__name__}: {error}", "where": f"{last.filename}:{last.lineno} in {last.name}"}
    return result | {"seconds": round(time.perf_counter() - begun, 2)}


class Runner(Protocol):
    """Runs jobs."""

    def run(self, jobs: Sequence[Job], until: float, at_once: int = 1) -> dict[str, dict[str, Any]]:
        """
        :param jobs: begun in this order
        :param until: ``time.monotonic()`` at which all is ended
        :param at_once: how many run beside each other
        :return: what each returned, by name; with ``"error"`` or ``"skipped"`` where it did not
        """


class Inline:
    """
    Runs jobs here, one after the other, on a CPU whose graphs are tapes.

    :param tell: is told of each job that has ended
    """

    def __init__(self, tell: Callable[[str, dict[str, Any]], None]) -> None:
        self.tell = tell

    def run(self, jobs: Sequence[Job], until: float, at_once: int = 1) -> dict[str, dict[str, Any]]:
        """See :class:`Runner`."""
        from .tape import graphs_on_cpu  # with it comes torch, which a process that does one job need not wait for

        results: dict[str, dict[str, Any]] = {}
        with graphs_on_cpu():
            for job in jobs:
                has_time = time.monotonic() < until
                results[job.name] = attempt(job.function, job.arguments) if has_time else {"skipped": NO_TIME_LEFT}
                self.tell(job.name, results[job.name])
        return results


class Processes:
    """
    Runs jobs in processes.

    :param tell: is told of each job that has ended
    """

    def __init__(self, tell: Callable[[str, dict[str, Any]], None]) -> None:
        self.tell = tell

    def run(self, jobs: Sequence[Job], until: float, at_once: int = 1) -> dict[str, dict[str, Any]]:
        """See :class:`Runner`."""
        waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        for job in itertools.chain(jobs, itertools.repeat(None, at_once)):
            waiting.put(job)
        results: dict[str, dict[str, Any]] = {}

        def work() -> None:
            worker = Worker()
            try:
                while (job := waiting.get()) is not None:
                    left = until - time.monotonic()
                    result = {"skipped": NO_TIME_LEFT} if left < _LEAST else worker.do(job, min(job.seconds, left))
                    results[job.name] = result
                    self.tell(job.name, result)
            finally:
                worker.end()

        threads = [threading.Thread(target=work) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {job.name: results[job.name] for job in jobs}


class Worker:
    """A process that does one job after the other."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Any = None

    def do(self, job: Job, seconds: float) -> dict[str, Any]:
        """
        :param job: to be done
        :param seconds: until it is ended
        :return: see :func:`attempt`
        """
        if self._process is None:
            context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._pipe.send((job.function, job.arguments))
            found: dict[str, Any] = (
                self._pipe.recv() if self._pipe.poll(seconds) else {"error": f"ended after {seconds:.0f} s"}
            )
        except (EOFError, OSError):
            self._process.join(1)
            found = {"error": f"its process died (exit code {self._process.exitcode})"}
        if "error" in found:
            self.end()  # what it has left on the device is not to be trusted
        return found

    def end(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = None


def _serve(pipe: Any) -> None:
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(function, arguments))


def failures(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are not as they should be: failed, not run, or not passed."""
    return [result for result in results if "error" in result or "skipped" in result or not result.get("passed", True)]
