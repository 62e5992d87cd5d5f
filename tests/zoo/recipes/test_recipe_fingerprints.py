"""A maze set's fingerprint is of what its data depend on, and of nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zoo.behavior import gait
from zoo.behavior.gait import Trot
from zoo.recipes import antmaze, collectible, load_recipe, pointmaze

MAZES = [name for name in collectible() if "maze" in name]
UMAZE, STITCH, ANT = "genoffline/pointmaze/umaze-v0", "genoffline/pointmaze/stitch-v0", "genoffline/antmaze/umaze-v0"


def test_each_maze_set_has_its_own() -> None:
    assert len({load_recipe(name).fingerprint for name in MAZES}) == len(MAZES) == 9


@pytest.mark.parametrize("name", [STITCH, ANT])
def test_sources_can_be_edited(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_recipe(name).fingerprint
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"# a comment" * (path.suffix == ".py"))
    assert load_recipe(name).fingerprint == before


@pytest.mark.parametrize(
    ("name", "module", "constant", "value"),
    [
        (UMAZE, pointmaze, "RECIPE", 2),
        (UMAZE, pointmaze, "BEHAVIOR", replace(pointmaze.BEHAVIOR, memory=0.5)),
        (UMAZE, pointmaze, "TO_GOAL", 0.5),
        (UMAZE, pointmaze, "NEAR", 0.1),
        (UMAZE, pointmaze, "SPREAD", 0.1),
        (STITCH, pointmaze, "A", (4, 4)),
        (STITCH, pointmaze, "DEAD_END", (1, 2)),
        (STITCH, pointmaze, "STITCH_LIMIT", 300),
        (ANT, antmaze, "RECIPE", 2),
        (ANT, antmaze, "NOISE", 0.3),
        (ANT, antmaze, "START", (3, 2)),
        (ANT, gait, "STEP", 0.04),
        (ANT, Trot, "load", lambda: Trot(stroke=0.5)),
    ],
)
def test_a_number_that_the_data_depend_on_changes_it(
    name: str, module: Any, constant: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_recipe(name).fingerprint
    monkeypatch.setattr(module, constant, value)
    assert load_recipe(name).fingerprint != before
