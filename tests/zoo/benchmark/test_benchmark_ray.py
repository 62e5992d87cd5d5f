"""`python -m zoo benchmark --ray` on a Ray cluster of this machine; skipped where Ray is not installed (extra `ray`)."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from zoo.__main__ import main
from zoo.benchmark.plan import read_plan
from zoo.benchmark.records import DONE, FAILED, INTERRUPTED, read_record
from zoo.benchmark.runner import Benchmark

ray = pytest.importorskip("ray")


@pytest.fixture(autouse=True)
def no_cluster_left() -> Iterator[None]:
    yield
    ray.shutdown()


def write_plan(folder: Path, dataset: str, algorithms: dict[str, Any]) -> Path:
    settings = {"n_timesteps": 20, "evaluations": 2, "eval_episodes": 1, "final_episodes": 1}
    settings["hyperparameters"] = {"batch_size": 32, "policy_kwargs": {"net_arch": [8, 8]}}
    stages = [{"datasets": [dataset], "seeds": [0]}]
    path = folder / "plan.yml"
    path.write_text(yaml.safe_dump({"defaults": settings, "algorithms": algorithms, "stages": stages}))
    return path


def test_jobs_run_on_a_cluster_and_one_that_fails_is_reported(dataset_id: str, tmp_path: Path, capsys: Any) -> None:
    broken = {"algo": "td3_bc", "hyperparameters": {"reward_transform": "nosuch"}}
    plan = write_plan(tmp_path, dataset_id, {"td3_bc": None, "broken": broken})
    with pytest.raises(SystemExit, match=r"(?s)broken-.* failed:.*reward_transform"):
        main(["benchmark", str(plan), "-f", str(tmp_path / "logs"), "--ray", "local"])
    states = {
        record["config"]["name"]: record["state"] for record in map(read_record, (tmp_path / "logs/jobs").glob("*.json"))
    }
    assert states == {"td3_bc": DONE, "broken": FAILED}
    assert "1 of 2 runs done, 1 failed" in capsys.readouterr().out


def test_a_job_on_a_cluster_is_asked_to_save_and_end(dataset_id: str, tmp_path: Path) -> None:
    from zoo.benchmark.cluster import RayProcess, connect

    plan, folder = write_plan(tmp_path, dataset_id, {"td3_bc": {"n_timesteps": 100_000}}), tmp_path / "logs"
    connect("local")
    events = Benchmark(read_plan(plan), folder).run(partial(RayProcess, threads=1, nice=10), 1)
    deadline = time.monotonic() + 200
    while not list(folder.glob("td3_bc/*/progress.csv")):
        next(events)
        assert time.monotonic() < deadline
    time.sleep(2.0)
    events.close()
    (path,) = (folder / "jobs").glob("*.json")
    assert read_record(path)["state"] == INTERRUPTED
    assert list(folder.glob("td3_bc/*/tiny-hopper-random-v0.zip")) and not list((folder / "jobs").glob("*.stop"))


def test_a_cluster_that_is_not_there_is_an_error(dataset_id: str, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, dataset_id, {"td3_bc": None})
    with pytest.raises(SystemExit, match="no Ray cluster at 'auto'"):
        main(["benchmark", str(plan), "-f", str(tmp_path / "logs"), "--ray", "auto"])
