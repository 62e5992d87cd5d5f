"""
How a command ends when it is asked to: by Ctrl-C (SIGINT), by docker stop, Slurm, systemd or kill (SIGTERM), or by a terminal
that is closed (SIGHUP).

The signal becomes a :class:`Stopped`, so that everything is tidied up on the way out, and the exit code is 128 + the signal's
number. A training notes the first signal only, ends after the update it is in and saves (:meth:`StopSignals.later`); a second
signal ends it at once.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sb3_genoffline.program import PROGRAM

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SAME_REQUEST_SECONDS = 1.0
"""Signals that come so close together are one request: `timeout` signals its child, and then the whole group once more."""


class Stopped(KeyboardInterrupt):
    """
    The process was asked to end.

    :param number: of the signal
    :param advice: what is left, and how to go on; shown to the user
    """

    def __init__(self, number: int, advice: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{advice and '; '}{advice}")
        self.number, self.advice = number, advice

    @property
    def code(self) -> int:
        """The exit code that shells, Slurm and systemd know it by: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


def advised(stop: KeyboardInterrupt, advice: str) -> Stopped:
    """The same, with advice, unless it has some."""
    return Stopped(getattr(stop, "number", signal.SIGINT), getattr(stop, "advice", "") or advice)


class StopSignals:
    """
    What the signals of this process have asked for.

    :param child: whether a parent of ours passes the signals on, which came here by themselves too if they were sent to the
        whole group: then all of them are one request, and the parent kills whom it cannot wait for
    :ivar number: of the first signal; None if there was none
    """

    def __init__(self, child: bool = False) -> None:
        self.child, self.pid = child, os.getpid()
        self.number: int | None = None
        self._asked = 0.0
        self._later, self._ended = False, False

    def handle(self, number: int, frame: Any = None) -> None:
        """
        :param number: of a signal that came
        :param frame: unused
        :raises Stopped: unless it is to be noted only
        """
        first = self.number is None
        if first:
            self.number, self._asked = number, time.monotonic()
        elif self.child or time.monotonic() - self._asked < SAME_REQUEST_SECONDS:
            return
        if self._ended and not first:
            os._exit(Stopped(number).code)
        if not self._ended and not (first and self._later):
            raise Stopped(number)

    def end(self) -> None:
        """The process has done its work, and ends by itself unless it is asked twice."""
        self._ended = True

    @contextmanager
    def later(self) -> Iterator[None]:
        """Who is inside looks at ``number`` and ends by itself: the first signal raises nothing."""
        before, self._later = self._later, True
        try:
            yield
        finally:
            self._later = before


_active: StopSignals | None = None


@contextmanager
def stoppable(child: bool = False, to_the_end: bool = False) -> Iterator[StopSignals]:
    """
    Take the signals for the time of a block, and give them back; a block inside another one shares the outer one's. Signals
    that are ignored (nohup, a shell's background) stay so.

    :param child: see :class:`StopSignals`; unblocks the signals, see :func:`shielding_children`
    :param to_the_end: the process ends after the block: keep the signals, so that one that comes twice does not kill it then
    """
    global _active
    if _active is not None and _active.pid == os.getpid():
        yield _active
        return
    outer, _active = _active, StopSignals(child)
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, _active.handle)
        if child and hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        yield _active
    finally:
        if to_the_end:
            _active.end()
        else:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)
            _active = outer


@contextmanager
def shielding_children() -> Iterator[None]:
    """Signals do not reach the processes that are started inside, unless these take them by ``stoppable(child=True)``."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def be_terminable() -> None:
    """In a shielded process that has nothing to save: SIGTERM ends it, other signals are its parent's."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


@contextmanager
def ending_in_order(name: str, to_the_end: bool = False) -> Iterator[None]:
    """
    The program ends as it is asked to: with a line on stderr, and the signal's exit code.

    :param name: of the command
    :param to_the_end: see :func:`stoppable`
    """
    try:
        with stoppable(to_the_end=to_the_end):
            yield
    except KeyboardInterrupt as error:
        stop = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        print(f"\n{PROGRAM} {name}: {stop}", file=sys.stderr, flush=True)
        sys.exit(stop.code)
