"""The picture of a sweep: what was reached with each value, and what is not a sweep is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from zoo.__main__ import main
from zoo.plot.sweep import plot_sweep, read_sweep


def sweep_of(name: str, values: list[Any]) -> dict[str, Any]:
    facts = {"algo": "dac", "dataset": "a $x", "behavior_mean_reward": 3.0, "mean_reward": 2.0}
    results = [facts | {name: value, "mean_reward_ci95": [1.0, 4.0], "returns": [1.0, 2.0, 3.0]} for value in values]
    return {"setting": name, "before": None, "results": results}


@pytest.mark.parametrize(("name", "values"), [("target_return", [10.0, 0.0, 5]), ("sampler", ["ddpm", None])])
@pytest.mark.usefixtures("pixels")
def test_a_sweep_is_drawn_and_the_same_gives_the_same_bytes(name: str, values: list[Any], tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps(sweep_of(name, values)))
    main(["plot", "sweep", str(tmp_path / "sweep.json"), "-o", str(tmp_path / "one.png")])
    svg = (tmp_path / "one.svg").read_text()
    assert (tmp_path / "one.png").stat().st_size > 1000
    again = plot_sweep(read_sweep(tmp_path / "sweep.json"), tmp_path / "two")
    assert again[1].read_text() == svg
    assert ("asked for" in svg) == (name == "target_return")


GOOD = {"mean_reward": 1.0, "mean_reward_ci95": [0, 1], "returns": []}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"setting": 3}, "is not a sweep"),
        ({"results": []}, "is not a sweep"),
        ({"results": "all"}, "is not a sweep"),
        ({"results": [{"target_return": 1.0}]}, "result 1 of the sweep has no right mean_reward"),
        ({"results": [GOOD | {"mean_reward_ci95": [1.0]}]}, "no right mean_reward_ci95"),
        ({"results": [GOOD | {"target_return": [1]}]}, "no right target_return"),
    ],
)
def test_what_is_no_sweep_is_refused_in_one_sentence(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps(sweep_of("target_return", [1.0]) | change))
    with pytest.raises(SystemExit, match=words):
        main(["plot", "sweep", str(tmp_path / "sweep.json"), "-o", str(tmp_path / "one")])
    assert not list(tmp_path.glob("one*"))
