"""What a result was made by: the versions, the command."""

import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("sb3_genoffline", "torch", "stable_baselines3", "gymnasium", "mujoco", "minari", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of what results depend on; packages that are not there are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """How this process was started, for a shell."""
    arguments = sys.argv[1:]
    if Path(sys.argv[0]).name == "__main__.py":
        return shlex.join(["python", "-m", Path(sys.argv[0]).parent.name, *arguments])
    return shlex.join([Path(sys.argv[0]).name, *arguments])
