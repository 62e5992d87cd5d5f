"""What the signals of a process do to a command."""

import os
import signal
import threading

import pytest

from zoo.runs import stopping
from zoo.runs.stopping import SIGNALS, Stopped, advised, ending_in_order, shielding_children, stoppable

EACH = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def handlers_are_given_back() -> object:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@EACH
def test_a_signal_ends_a_command_with_a_line_and_its_exit_code(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    tidied = []
    with pytest.raises(SystemExit) as ended, ending_in_order("somewhere"):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as stop:
            raise advised(stop, "go on") from None
        finally:
            tidied.append(number)
    assert ended.value.code == {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}[number.name] and tidied
    assert capsys.readouterr().err == f"\npython -m zoo somewhere: stopped by {number.name}; go on\n"


@EACH
def test_who_looks_for_signals_is_told_once_and_stopped_the_second_time(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stoppable() as stop, stop.later():
        signal.raise_signal(number)
        assert stop.number == number
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)  # at the same time: the same request
        monkeypatch.setattr(stopping, "SAME_REQUEST_SECONDS", 0.0)
        with pytest.raises(Stopped):
            signal.raise_signal(number)


def test_a_child_takes_all_signals_for_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SAME_REQUEST_SECONDS", 0.0)
    with stoppable(child=True) as stop:
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGTERM


def test_signals_that_are_ignored_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stoppable() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_blocks_share_their_signals_and_threads_take_none() -> None:
    seen = []
    with stoppable() as outer, outer.later():
        with stoppable() as inner:
            signal.raise_signal(signal.SIGTERM)
        assert inner is outer and outer.number == signal.SIGTERM

    def in_a_thread() -> None:
        with stoppable() as stop:
            seen.append(stop.number)

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert seen == [None]


def test_a_child_gets_signals_when_it_takes_them() -> None:
    with shielding_children():
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)  # blocked, so it waits
            try:
                with stoppable(child=True):
                    os._exit(1)
            except Stopped as stop:
                os._exit(stop.code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143


def test_a_signal_that_comes_again_while_the_process_ends_does_not_kill_it() -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with ending_in_order("somewhere", to_the_end=True):
                signal.raise_signal(signal.SIGTERM)
        except SystemExit as ended:
            signal.raise_signal(signal.SIGTERM)
            code = ended.code  # type: ignore[assignment]
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143
