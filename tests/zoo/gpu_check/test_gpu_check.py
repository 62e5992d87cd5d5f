"""``make gpu-check`` without a GPU: the whole of it, tiny, with tapes instead of graphs."""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch as th
from gpu_jobs import die, hang, succeed
from worlds import EXPECTED_WARNINGS, PointEnv

from sb3_genoffline import load_agent
from sb3_genoffline.errors import UserError
from zoo.gpu_check import checks, command, jobs, speeds
from zoo.gpu_check.speeds import FORMS
from zoo.gpu_check.tape import graphs_on_cpu

pytestmark = pytest.mark.filterwarnings(f"ignore:{EXPECTED_WARNINGS}")


def run(folder: Path, *flags: str) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.main(parser.parse_args(["--smoke", "-o", str(folder), *flags]))


def test_the_whole_of_it_runs_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--algo", "dac", "onestep")
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "gpu-check.json").read_text())
    assert printed["passed"] and printed["smoke"] and printed["machine"]["torch"] == th.__version__
    for check in command.CHECKS:
        assert printed["checks"][check].keys() == {"dac", "onestep"}
        assert all(result["passed"] for result in printed["checks"][check].values())
    equal = printed["checks"]["graphs_equal_python"]
    assert equal["dac"]["graphs"] == 2 and equal["onestep"]["fits"] == 2
    assert equal["dac"]["same_bits"] and equal["dac"]["distance"] == 0
    assert printed["checks"]["resumes"]["dac"]["distance_to_uninterrupted"] == 0
    for name in ("dac 8", "onestep 8"):
        found = printed["speeds"][name]
        assert found["graph"] > 0 < found["eager"] and found["graphs"] > 0 and found["not_recorded"] is None
        assert ("plain" in found) == name.startswith("dac")
        fits = ("behavior", "critic") if name.startswith("onestep") else ()
        assert all(found[f"{fit} {form}"] > 0 for fit in fits for form in FORMS)
    assert "failures" not in printed["side_by_side"]["2 processes"] and printed["side_by_side"]["most_over_one"] > 0
    assert printed["aims"]["dac"] == {"aim": 2000, "found": printed["speeds"]["dac 8"]["graph"], "met": False}
    assert printed["aims"]["iql"] == {"aim": 6000, "found": None, "met": False}

    with (tmp_path / "losses.csv").open() as file:
        curve = list(csv.DictReader(file))
    assert [int(row["update"]) for row in curve] == [2, 4, 6] and float(curve[0]["critic_loss"]) > 0
    assert printed["training"]["updates"] == 6
    agent = load_agent(tmp_path / "dac_acting.zip", PointEnv())
    assert agent.predict(PointEnv().reset(seed=0)[0])[0].shape == (2,)


def test_what_fails_is_told_and_stops_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**arguments: Any) -> dict[str, Any]:
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr(command, "CHECKS", {"resumes": fail})
    monkeypatch.setattr(command, "updates_per_second", fail)
    monkeypatch.setattr(command, "on_streams", fail)
    with pytest.raises(
        UserError, match=r"4 parts have not passed: resumes bc, bc 8, 1 streams, 2 streams\. The report says why"
    ):
        run(tmp_path, "--algo", "bc")
    printed = json.loads(capsys.readouterr().out)
    assert not printed["passed"] and printed["training"]["passed"]
    assert printed["checks"]["resumes"]["bc"]["error"] == "RuntimeError: CUDA error: an illegal memory access"
    assert "test_gpu_check.py" in printed["speeds"]["bc 8"]["where"]
    assert printed["side_by_side"]["most_over_one"] is None


def test_a_form_that_fails_leaves_the_others_their_speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, source: Any) -> None:
            pass

        def update(self, batch: Any, noise: Any) -> None:
            raise RuntimeError("on another device")

    monkeypatch.setattr(speeds, "plain_form", lambda cls: Broken)
    found = speeds.updates_per_second("bc", "tiny", "cpu", 8, 0.0, 250)
    assert found["error"] == "plain: RuntimeError: on another device" and found["plain"] is None
    assert found["eager"] > 0 < found["graph"]


def test_an_update_that_python_steers_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    small = checks.small

    def steered(*arguments: Any) -> Any:
        agent: Any = small(*arguments)
        agent.rate_now = lambda rate: 1e-2 * (agent._n_updates % 3)
        return agent

    monkeypatch.setattr(checks, "small", steered)
    with graphs_on_cpu():
        found = checks.graphs_equal_python("bc", "cpu", 20)
    assert not found["passed"] and found["distance"] > checks.TOLERANCE and not found["same_bits"]
    assert found["distance_of_python_to_itself"] == 0


def test_an_update_that_reads_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    small = checks.small

    def reading(*arguments: Any) -> Any:
        agent: Any = small(*arguments)
        draw = agent.draw_noise
        agent.draw_noise = lambda n: (float(agent.policy.obs_mean.sum()), draw(n))[1]
        return agent

    monkeypatch.setattr(checks, "small", reading)
    with graphs_on_cpu():
        found = checks.reads_nothing("dac", "cpu", 4)
        recorded = checks.graphs_equal_python("dac", "cpu", 8)
    assert not found["passed"] and found["reads"]["python"] == 4
    assert not recorded["passed"] and "reads a number" in recorded["not_recorded"][0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--minutes", "1"], "must lie between 2 and 60"), (["--smoke", "--device", "meta"], "--device meta: it is CUDA")],
)
def test_what_it_can_not_do_is_a_sentence(flags: list[str], message: str) -> None:
    defaults = {"out": "unused", "minutes": 9.0, "algo": None, "dataset": None, "device": None, "jobs": 1, "smoke": False}
    given = {"minutes": float(flags[1])} if flags[0] == "--minutes" else {"device": "meta", "smoke": True}
    with pytest.raises(UserError, match=message):
        command.main(argparse.Namespace(**(defaults | given)))


# ---------------------------------------------------------------------- jobs in processes


def test_a_job_that_dies_hangs_or_fails_is_told_and_the_next_one_runs(capfd: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    planned = [
        jobs.Job("dies", die, {}, 120.0),
        jobs.Job("is wrong", succeed, {"word": 1}, 120.0),
        jobs.Job("hangs", hang, {}, 0.5),
        jobs.Job("succeeds", succeed, {"number": 3}, 120.0),
    ]
    runner = jobs.Processes(lambda name, result: told.append(name))
    found = runner.run(planned, time.monotonic() + 240.0)
    assert told == list(found) == ["dies", "is wrong", "hangs", "succeeds"]
    assert found["dies"]["error"] == "its process died (exit code 7)"
    assert found["is wrong"]["error"].startswith("TypeError") and "jobs.py" in found["is wrong"]["where"]
    assert found["hangs"]["error"] == "ended after 0 s"
    assert found["succeeds"]["number"] == 3
    assert capfd.readouterr().out == ""
    assert runner.run(planned, time.monotonic())["succeeds"] == {"skipped": jobs.NO_TIME_LEFT}
    assert len(jobs.failures(found.values())) == 3
