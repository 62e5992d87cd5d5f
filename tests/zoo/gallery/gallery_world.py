"""A small checkout for the gallery: records, agents and inspections, some of them hostile; and what a page holds."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sb3_genoffline import load_dataset
from zoo.benchmark.plan import read_plan
from zoo.benchmark.records import DONE, FAILED, new_record
from zoo.gallery.contents import Contents, read_contents
from zoo.inspect.report import inspect_dataset
from zoo.runs.writing import write_json

HOPPER, MAZE = "genoffline/hopper/medium-replay-v1", "genoffline/pointmaze/stitch-v0"
EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>\u202e{{ 7 * 7 }}"
NAME = "\"'><img src=x onerror=alert(4)>&amp;"
"""As hostile as the name of an algorithm may be."""
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
CARD = f"""---
license: mit
---

# A card {EVIL}

[run](javascript:alert(3)) [away](https://example.org/a?b="c) [root](/etc/passwd)

![tracker](https://example.org/x.png) ![training curve](training_curve.png)

<iframe src="https://example.org"></iframe>

| a | b |
|---|---|
| `{EVIL}` | 2 |
"""
FINAL = {
    **{("bc", HOPPER, seed): value for seed, value in enumerate([10.0, 12.0, 14.0])},
    **{("dac", HOPPER, seed): value for seed, value in enumerate([9.0, 110.0])},
    ("bc", MAZE, 0): 50.0,
    ("dac", MAZE, 0): 8.0,
    (NAME, HOPPER, 0): 11.0,
    (NAME, MAZE, 0): 30.0,
}


def make_checkout(folder: Path) -> Path:
    """
    :param folder: to fill
    :return: it, with ``benchmarks``, ``agents`` and ``datasets``
    """
    _make_benchmark(folder / "benchmarks")
    _make_agent(folder / "agents" / "dac-hopper", "dac", HOPPER)
    (folder / "agents" / "dac-hopper" / "README.md").write_text(CARD)
    for name in ("replay.mp4", "training_curve.png"):
        (folder / "agents" / "dac-hopper" / name).write_bytes(PNG)
    _make_agent(folder / "agents" / EVIL.replace("/", ""), EVIL, EVIL, normalized_score=None, normalized_score_ci95=None)
    _make_inspections(folder / "datasets")
    return folder


def contents_of(folder: Path) -> Contents:
    """What a checkout of :func:`make_checkout` holds."""
    return read_contents(folder / "benchmarks", folder / "agents", folder / "datasets", Path(__file__).parents[3])


def _make_benchmark(folder: Path) -> None:
    folder.mkdir(parents=True)
    plan_file = folder / "small.yml"
    content = {
        "title": f"A small one {EVIL}",
        "note": EVIL,
        "algorithms": {"bc": None, "dac": None, NAME: {"algo": "bc"}, "nosuch": None},
        "stages": [{"datasets": [HOPPER], "seeds": [0, 1, 2]}, {"datasets": [MAZE], "seeds": [0]}],
    }
    plan_file.write_text(yaml.safe_dump(content, sort_keys=False))
    for job in read_plan(plan_file).jobs:
        value = FINAL.get((job.name, job.dataset, job.seed))
        record = new_record(job)
        if value is not None:
            record |= _done(job.dataset, value)
        elif job.name == "dac":
            record |= {"state": FAILED, "error": f"Traceback:\nFloatingPointError: {EVIL}"}
        write_json(folder / "small" / "records" / f"{job.key}.json", record)


def _done(dataset: str, value: float) -> dict[str, Any]:
    result = {"n_eval_episodes": 20, "eval_seed": 20_000, "n_eval_envs": 10, "env_id": "Hopper-v5", "success_rate": None}
    result |= {"gradient_steps": 3000, "normalized_score": value, "mean_reward": 32.0 * value}
    data = {"id": dataset, "fingerprint": "f" * 64, "n_transitions": 92_160, "n_episodes": 777, "mean_return": 309.7}
    return {
        "state": DONE,
        "host": EVIL,
        "data": data | {"normalized_score": 10.1},
        "versions": {"torch": "2.13.0", "mujoco": "4.0.0"},
        "updates": 3000,
        "updates_per_second": 50.0,
        "seconds": {"total": 120.0, "fit": 30.0, "training": 60.0, "evaluation": 30.0, "cpu": 90.0},
        "curve": {"timesteps": [1000, 3000], "seconds": [60.0, 120.0], "mean": [value - 8, value], "std": [1.0, 1.0]},
        "last": result,
        "best": result,
        "final": {"mean": value},
    }


def _make_agent(folder: Path, algo: str, dataset: str, **more: Any) -> None:
    results: dict[str, Any] = {
        **{"algo": algo, "dataset": dataset, "dataset_fingerprint": f"of {dataset}", "checkpoint": "last"},
        **{"gradient_steps": 16_000, "seed": 0, "mean_reward": 900.04, "mean_reward_ci95": [800.0, 1000.0]},
        **{"normalized_score": 84.04, "normalized_score_ci95": [70.0, 95.5], "behavior_normalized_score": 35.7},
        **{"n_eval_episodes": 20, "eval_seed": 1000, "best": None, "seeds": {"mean": 80.0, "std": 2.5, "n": 3}},
        "data": {"n_transitions": 500_000, "n_episodes": 7, "mean_return": 1143.0},
    }
    write_json(folder / "results.json", results | more)
    (folder / "config.json").write_text("{}")


def _make_inspections(folder: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.normal(size=(60, 3)),
        "actions": rng.uniform(-1, 1, size=(60, 2)),
        "rewards": np.ones(60),
        "next_observations": rng.normal(size=(60, 3)),
        "terminals": np.arange(60) % 10 == 9,
    }
    report = inspect_dataset(load_dataset(arrays)).as_dict()
    assert report["findings"]
    write_json(folder / "hopper.json", report | {"id": HOPPER})
    (folder / "hopper.png").write_bytes(PNG)
    write_json(folder / "evil.json", report | {"id": EVIL, "findings": [{"name": EVIL, "text": EVIL}]})


class Page(HTMLParser):
    """
    What a page of the site holds.

    :param path: of its file
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.path = path
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        """Keep it."""
        self.words += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]
