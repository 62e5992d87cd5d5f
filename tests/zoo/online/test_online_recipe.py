"""The recipe that goes on online after a training on data: it can be stopped anywhere, and its numbers are its curves'."""

import json
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from worlds import make_agent, make_dataset

from zoo.online import record, training
from zoo.online.picture import in_numbers
from zoo.online.plan import Plan

PLAN = Plan("tests/point-0-v0", ("td3_bc",), updates=4, steps=4, every=2, episodes=1, profile="tiny")
SMALL = {"batch_size": 4, "learning_starts": 1, "policy_kwargs": {"net_arch": [4]}}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SAC_SETTINGS", SMALL)
    data = make_dataset().replace(env_spec=gym.spec("genoffline-tests/Point-v0"))
    monkeypatch.setattr(record, "find_dataset", lambda *_, **__: data)


def test_runs_are_stopped_and_go_on_and_the_numbers_are_the_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "online.png"
    words = ["-f", str(tmp_path / "logs"), "-o", str(output)]
    record.main(words, replace(PLAN, steps=2))  # as if it had been stopped after an evaluation
    record.main(words, PLAN)
    found = json.loads(output.with_suffix(".json").read_text())
    assert [(run["algorithm"], run["way"]) for run in found["runs"]] == PLAN.runs
    for run in found["runs"]:
        assert run["curve"]["steps"] == [0, 2, 4] and len(run["curve"]["mean"]) == len(run["curve"]["std"]) == 3
        assert {name: run[name] for name in ("start", "lowest", "end")} == in_numbers(run)
    assert output.is_file() and output.with_suffix(".svg").is_file()
    assert len([*(tmp_path / "logs" / "online").glob("*.zip")]) == len(PLAN.runs)  # earlier checkpoints are gone
    before = capsys.readouterr().out
    record.main([*words, "--draw"], PLAN)
    assert before.splitlines()[-3:] == capsys.readouterr().out.splitlines()


def test_a_dip_is_the_lowest_early_score() -> None:
    curve = {"steps": [0, 5_000, 20_000, 25_000, 30_000], "mean": [50.0, 40.0, 30.0, 10.0, 80.0]}
    assert in_numbers({"curve": curve}) == {"start": 50.0, "lowest": 30.0, "end": 40.0}


def test_half_of_each_batch_is_online_as_soon_as_there_are_such_rows() -> None:
    model = make_agent("td3_bc")
    model.set_dataset(make_dataset())
    buffer = model.replay_buffer
    sampler = training.HalfOnline(buffer, seed=0)
    n = buffer.n_offline
    assert sampler.next_indices(8).max() < n
    rows = buffer.rows_at(th.arange(3))
    for i in range(3):
        one = [np.asarray(column[i : i + 1]) for column in (rows.observations, rows.next_observations, rows.actions)]
        buffer.add(*one, np.zeros(1), np.zeros(1), [{}])
    drawn = sampler.next_indices(9)
    assert (drawn < n).sum() == 5 and set(drawn[5:].tolist()) <= {n, n + 1, n + 2}
