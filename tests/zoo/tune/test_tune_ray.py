"""Trials on a Ray cluster, and a cluster that does not come up; Ray's own part is done by a stand-in, at once."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_tune import Inline, data, in_this_process, trials_of, tune  # noqa: F401

from zoo.benchmark import cluster
from zoo.benchmark.records import DONE


class Ray(SimpleNamespace):
    """The calls of Ray that the zoo makes."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal, self.reserved = refusal, list[dict[str, Any]]()
        self.exceptions = SimpleNamespace(RayError=RuntimeError)

    def init(self, **_: Any) -> None:
        if self.refusal is not None:
            raise self.refusal

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **reserved: Any) -> Callable[..., Any]:
        self.reserved.append(reserved)
        return lambda work: SimpleNamespace(remote=work)

    def wait(self, tasks: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return tasks, []

    def get(self, task: Any) -> Any:
        return task


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    stand_in = Ray()
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    monkeypatch.setattr(
        cluster, "LocalProcess", lambda path, threads, nice, **o: Inline(path, threads=threads, nice=nice, **o)
    )
    return stand_in


def test_trials_are_tasks_of_the_cluster(tune: Callable[..., Path], ray: Ray, capsys: Any) -> None:  # noqa: F811
    folder = tune("--trials", "2", "--scores", "1", "--search", "alpha:[1.0,2.0]", "--ray", "local", "--threads", "1")
    assert [trial["state"] for trial in trials_of(folder)] == ["complete", "complete"]
    assert ray.reserved == [{"num_cpus": 1, "num_gpus": 0.0, "max_retries": 0}] * 2
    records = [json.loads(path.read_text()) for path in (folder / "jobs").glob("*.json")]
    assert [record["state"] for record in records] == [DONE, DONE] and not [*(folder / "jobs").glob("*.stop")]
    assert "best: trial" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (ConnectionError("nobody answers"), "There is no Ray cluster at 'local': nobody answers"),
        (Exception("The node timed out.\nMore."), r"Ray did not start at 'local': The node timed out\. On a busy machine"),
    ],
)
def test_a_cluster_that_does_not_come_up_is_a_sentence(
    tune: Callable[..., Path],  # noqa: F811
    ray: Ray,
    refusal: Exception,
    message: str,
) -> None:
    ray.refusal = refusal
    with pytest.raises(SystemExit, match=message):
        tune("--trials", "1", "--search", "alpha:[1.0,2.0]", "--ray", "local")
