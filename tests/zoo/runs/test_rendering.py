"""The choice of MuJoCo's OpenGL."""

import ctypes.util
import os
import sys

import pytest

from zoo.runs.rendering import prefer_offscreen


@pytest.mark.parametrize(
    ("platform", "display", "library", "given", "chosen"),
    [
        ("linux", None, "libEGL.so.1", None, "egl"),
        ("linux", None, None, None, None),
        ("linux", ":0", "libEGL.so.1", None, None),
        ("linux", None, "libEGL.so.1", "osmesa", "osmesa"),
        ("darwin", None, "libEGL.dylib", None, None),
    ],
)
def test_egl_is_chosen_only_where_there_is_no_display_and_it_is_installed(
    platform: str,
    display: str | None,
    library: str | None,
    given: str | None,
    chosen: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("DISPLAY", display), ("MUJOCO_GL", given)):
        monkeypatch.setenv(name, value or "")
        if value is None:
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: library)
    prefer_offscreen()
    assert os.environ.get("MUJOCO_GL") == chosen
