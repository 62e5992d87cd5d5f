"""What a result was made by: the versions, the processor, the command."""

import contextlib
import functools
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sb3_genoffline.program import PROGRAM

PACKAGES = ("sb3_genoffline", "torch", "stable_baselines3", "gymnasium", "mujoco", "minari", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of what results depend on; packages that are not there are left out."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Its name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


_command: ContextVar[str | None] = ContextVar("command", default=None)


@contextlib.contextmanager
def as_command(argv: Sequence[str]) -> Iterator[None]:
    """
    Within, :func:`command_line` is this command of the zoo, whatever started the process (a notebook, say).

    :param argv: name of the command, and its arguments
    """
    token = _command.set(f"{PROGRAM} {shlex.join(argv)}")
    try:
        yield
    finally:
        _command.reset(token)


def command_line() -> str:
    """The command at work, else how this process was started, for a shell."""
    given = _command.get()
    if given is not None:
        return given
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:  # a script
        return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return shlex.join(["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]])
