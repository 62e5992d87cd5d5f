"""What a choice among a benchmark's runs is worth: its episodes, its runs, and where it stands in the report."""

from typing import Any

import numpy as np
import pytest

from zoo.benchmark.bandit import PULLS
from zoo.benchmark.choosing import ANY, choices, episode_scores, rows_of
from zoo.benchmark.records import Cell
from zoo.benchmark.results import Results

SETS = ["hop", "maze"]


def run(returns: list[float] | None, **last: Any) -> dict[str, Any]:
    known = {"returns": returns, "normalized_score": 1.0, "success_rate": None}
    return {"last": known | last, "data": {"ref_min_score": 100.0, "ref_max_score": 300.0}}


def test_episodes_are_told_on_the_scale_of_the_results() -> None:
    assert episode_scores(run([100.0, 200.0])) == pytest.approx([0.0, 50.0])
    assert episode_scores(run([1.0, 7.0], normalized_score=None)) == pytest.approx([1.0, 7.0])
    assert sorted(episode_scores(run([3.0, 4.0, 5.0], success_rate=2 / 3))) == [0.0, 100.0, 100.0]
    assert episode_scores(run(None)) is None
    assert episode_scores(run([1.0]) | {"data": {}}) is None


@pytest.fixture(scope="module")
def results() -> Results:
    cells = [
        Cell("bc", "hop", 0, run([100.0, 100.0])),
        Cell("bc", "hop", 1, run([200.0, 200.0]), superseded=(run([300.0, 300.0]),)),
        Cell("dac", "hop", 0, run([120.0, 120.0])),
        Cell("dac", "hop", 1, run([500.0]), reason="failed"),
        Cell("dac", "maze", 0, None),
        Cell("bc", "maze", 0, run([100.0])),
    ]
    return Results(["bc", "dac"], SETS, cells)


def test_an_algorithm_with_several_runs_is_chosen_from_and_so_are_all_together(results: Results) -> None:
    found = choices(results)
    assert [(choice.algorithm, choice.dataset, choice.policies) for choice in found] == [("bc", "hop", 3), (ANY, "hop", 4)]
    assert [choice.best for choice in found] == [100.0, 100.0]
    assert set(np.unique(found[0].taken)) == {0.0, 50.0, 100.0}  # superseded runs are policies too
    rows = rows_of(found)
    assert [row["evaluations"] for row in rows] == [*PULLS, *PULLS]
    assert rows[0]["score"] == pytest.approx(50.0, abs=5.0)  # the first one is any of three
    assert [row["score"] for row in rows if row["evaluations"] >= 5] == [100.0] * 10  # without noise each is tried once
