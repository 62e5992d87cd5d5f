"""What the command line shows of an error, and what it lists."""

import argparse
import errno
import sys
from types import ModuleType

import pytest

from sb3_genoffline.errors import DivergedError, NotFoundError, UserError
from sb3_genoffline.hub.errors import HubError
from zoo import __main__ as zoo_main


def run_a_command_that_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("zoo.datasets", "A command.")

    def fail(args: argparse.Namespace) -> None:
        raise error

    vars(module).update(add_arguments=lambda parser: None, main=fail)
    monkeypatch.setitem(sys.modules, "zoo.datasets", module)
    zoo_main.main(["datasets"])


@pytest.mark.parametrize("kind", [UserError, NotFoundError, DivergedError, ConnectionError, HubError])
def test_what_a_user_can_mend_is_a_sentence(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^zoo datasets: the fix\n\(set ZOO_TRACEBACK=1 for the traceback\)$"):
        run_a_command_that_raises(kind("the fix"), monkeypatch)
    monkeypatch.setenv("ZOO_TRACEBACK", "1")
    with pytest.raises(kind, match="the fix"):
        run_a_command_that_raises(kind("the fix"), monkeypatch)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "denied", "a/b"), "'a/b' can't be used: you have no permission"),
        (OSError(errno.ENOSPC, "full", "a/b"), "'a/b' can't be used: the disk is full"),
        (OSError(errno.ENAMETOOLONG, "long", "x" * 3000), r"xxx\.\.\. can't be used: the name is too long"),
        (MemoryError(), "needs more memory than there is"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory: 8 bytes"), "needs more memory than there is"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=f"^zoo datasets: .*{message}"):
        run_a_command_that_raises(error, monkeypatch)


@pytest.mark.parametrize("kind", [ValueError, KeyError, IndexError, FileNotFoundError, RuntimeError, FloatingPointError])
def test_a_bug_keeps_its_traceback(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(kind, match="a bug"):
        run_a_command_that_raises(kind("a bug"), monkeypatch)


def test_the_overview_names_every_command_and_every_script(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        zoo_main.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0 and lines[0] == "usage: python -m zoo <command> [options]"
    first = {line.split()[0] for line in lines if line.startswith("  ")}
    assert first == {*zoo_main.COMMANDS, *zoo_main.SCRIPTS}
    with pytest.raises(SystemExit, match="'trian' is not a command; did you mean train"):
        zoo_main.main(["trian"])
