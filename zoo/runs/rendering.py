"""Which OpenGL MuJoCo draws with: it has to be said before mujoco is imported."""

import ctypes.util
import os
import sys


def prefer_offscreen() -> None:
    """Without a display let MuJoCo draw with EGL, where that is installed: named but missing, mujoco can't be imported."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY") and ctypes.util.find_library("EGL"):
        os.environ.setdefault("MUJOCO_GL", "egl")
