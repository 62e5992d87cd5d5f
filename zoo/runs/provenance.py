"""What a result was made by: the versions, the command."""

import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROGRAM = "python -m zoo" if __package__.partition(".")[0] == "zoo" else "genoffline"
"""How the zoo's commands are started: in a checkout, or where the package is installed."""
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
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:  # a script
        return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return shlex.join(["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]])
