"""What the command line shows of an error, and what it lists."""

import argparse
import ast
import errno
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

from sb3_genoffline.errors import DivergedError, NotFoundError, UserError
from sb3_genoffline.hub.errors import HubError
from sb3_genoffline.program import name_of_program
from zoo import __main__ as zoo_main
from zoo.runs import flags

ROOT = Path(__file__).parents[2]


def run_a_command_that_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("zoo.datasets", "A command.")

    def fail(args: argparse.Namespace) -> None:
        raise error

    vars(module).update(add_arguments=lambda parser: None, main=fail)
    monkeypatch.setitem(sys.modules, "zoo.datasets", module)
    zoo_main.main(["datasets"])


@pytest.mark.parametrize("kind", [UserError, NotFoundError, DivergedError, ConnectionError, HubError])
def test_what_a_user_can_mend_is_a_sentence(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^python -m zoo datasets: the fix\n\(set ZOO_TRACEBACK=1 for the traceback\)$"):
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
    with pytest.raises(SystemExit, match=f"^python -m zoo datasets: .*{message}"):
        run_a_command_that_raises(error, monkeypatch)


@pytest.mark.parametrize("kind", [ValueError, KeyError, IndexError, FileNotFoundError, RuntimeError, FloatingPointError])
def test_a_bug_keeps_its_traceback(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(kind, match="a bug"):
        run_a_command_that_raises(kind("a bug"), monkeypatch)


def test_a_missing_package_of_ours_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "zoo", "train"]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1 and ended.stderr.startswith(f"This Python ({sys.executable}) has no torch. ")
    assert (
        ". .venv/bin/activate" in ended.stderr and 'pip install -e ".[zoo]"' in ended.stderr and ended.stderr.count("\n") == 1
    )
    with pytest.raises(SystemExit, match="has no matplotlib"):
        run_a_command_that_raises(ModuleNotFoundError("no", name="matplotlib.pyplot"), monkeypatch)
    with pytest.raises(ModuleNotFoundError):
        run_a_command_that_raises(ModuleNotFoundError("no", name="zoo.runs.bug"), monkeypatch)


def test_the_notice_of_another_packages_environments_is_not_printed() -> None:
    script = "from zoo.recipes.pointmaze import maze_spec; maze_spec('umaze', False)"
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0 and "AdroitHand" not in ended.stderr


def test_packages_of_ours_are_those_that_we_depend_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    distributions = [*project["dependencies"], *project["optional-dependencies"]["zoo"]]
    asked = {re.split(r"[\[>=]", name)[0].lower().replace("_", "-") for name in distributions}
    modules = {
        module
        for module, names in packages_distributions().items()
        if asked & {name.lower().replace("_", "-") for name in names}
    }
    assert {*zoo_main._NEEDED} - {"h5py", "numpy"} <= modules  # which the others bring
    assert {name.replace("-", "_") for name in asked} - {"pillow", "pyyaml", "markdown_it_py"} <= {*zoo_main._NEEDED}


def test_the_overview_names_every_command_and_every_script(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        zoo_main.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0 and lines[0] == "usage: python -m zoo <command> [options]"
    first = {line.split()[0] for line in lines if line.startswith("  ")}
    assert first == {*zoo_main.COMMANDS, *zoo_main.SCRIPTS}
    with pytest.raises(SystemExit, match="'trian' is not a command; did you mean train"):
        zoo_main.main(["trian"])


@pytest.mark.parametrize(
    ("called", "installed", "name"),
    [("/bin/genoffline", False, "genoffline"), ("zoo/__main__.py", False, "python -m zoo"), ("a.py", True, "genoffline")],
)
def test_the_program_is_called_what_was_typed_or_what_there_is(
    called: str, installed: bool, name: str, tmp_path: Path
) -> None:
    if installed:
        (tmp_path / "zoo").mkdir()
    assert name_of_program(called, tmp_path) == name


def test_errors_and_help_name_the_command_that_was_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (zoo_main, flags):
        monkeypatch.setattr(module, "PROGRAM", "genoffline")
    with pytest.raises(SystemExit, match=r"^genoffline datasets: the fix"):
        run_a_command_that_raises(UserError("the fix"), monkeypatch)
    for command in ("tune", "gallery"):
        with pytest.raises(SystemExit):
            zoo_main.main([command, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert "usage: genoffline" in shown and "genoffline " in shown.partition("options:")[0] and "-m zoo" not in shown


def test_no_message_names_the_command_by_itself() -> None:
    """``PROGRAM`` does, which is what the user typed; docstrings and help texts are adapted where help is printed."""
    root, fixed, found = Path(__file__).parents[2], re.compile(r"python -m zoo |`zoo [a-z]|^\n?zoo[ :]"), []
    for path in [*root.glob("sb3_genoffline/**/*.py"), *root.glob("zoo/**/*.py")]:
        text = path.read_text()
        if path.name == "record.py" or "zoo " not in text:  # a record.py reads a page's own words
            continue
        nodes = list(ast.walk(ast.parse(text)))
        shown = [node.value for node in nodes if isinstance(node, ast.Expr)]
        shown += [word.value for node in nodes if isinstance(node, ast.Call) for word in node.keywords if word.arg == "help"]
        for node in nodes:
            said = node.value if isinstance(node, ast.Constant) and node not in shown else None
            if isinstance(said, str) and fixed.search(said):
                found.append(f"{path.name}: {said}")
    assert found == []
