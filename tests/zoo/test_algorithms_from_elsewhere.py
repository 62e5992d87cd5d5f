"""An algorithm of another package in the zoo: trained, evaluated, planned and timed like ours."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sb3_genoffline import IQL
from sb3_genoffline.registry import ALGOS, register_algorithm
from zoo.__main__ import main
from zoo.benchmark.plan import read_plan
from zoo.plot.curves import baseline_of
from zoo.runs.folders import find_run
from zoo.speed import agents
from zoo.speed import updates as speed

CODE = """
from sb3_genoffline import IQL

class Theirs(IQL):
    baselines = {"no boldness": {"boldness": 0}}

    def __init__(self, policy, env=None, *, boldness: float = 1.0, **kwargs):
        self.boldness = boldness
        super().__init__(policy, env, **kwargs)
"""
CONF = "default: {boldness: 2, policy_kwargs: {net_arch: [8]}}\nprofiles: {tiny: {default: {batch_size: 8, n_timesteps: 3}}}\n"
PLAIN = """
class PlainTheirs:
    def __init__(self, model):
        self.model = model

    def update(self, batch, noise):
        return self.model.update(batch, noise)
"""
OVERRIDES = ["batch_size:8", "n_timesteps:3", "policy_kwargs:dict(net_arch=[8])", "boldness:2"]


@pytest.fixture(params=[True, False], ids=["with a file", "without"])
def flags(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Flags that make the registered algorithm small, with and without a ``hyperparameters.yml`` beside its module."""
    name = f"theirs_{request.param}".lower()
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text(CODE)
    if request.param:
        (package / "hyperparameters.yml").write_text(CONF)
        (package / "plain.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ALGOS, "_classes", dict(ALGOS._classes))  # what is registered here is gone after the test
    cls: type[IQL] = register_algorithm(importlib.import_module(name).Theirs)
    assert cls.name == "theirs"
    return ["--profile", "tiny"] if request.param else ["-params", *OVERRIDES]


def test_it_is_trained_evaluated_and_drawn(flags: list[str], dataset_id: str, tmp_path: Path, capsys: Any) -> None:
    logs = str(tmp_path / "logs")
    agent = ["--algo", "theirs", "--dataset", dataset_id, "-f", logs]
    main(["train", *agent, *flags, "--eval-freq", "3", "--eval-episodes", "1", "--no-progress", "--verbose", "0"])
    run = find_run(logs, "theirs", dataset_id)
    used = run.config()["hyperparameters"]
    assert (used["boldness"], used["batch_size"], used["n_timesteps"]) == (2, 8, 3)
    main(["evaluate", *agent, "-n", "1"])
    assert json.loads((run.folder / "results.json").read_text())["algo"] == "theirs"
    main(["plot", "curves", *agent, "-o", str(tmp_path / "curve.png")])
    assert "Theirs (1 seed" in (tmp_path / "curve.svg").read_text()
    with pytest.raises(SystemExit, match="Theirs has no hyper-parameter 'bolness'; did you mean 'boldness'"):
        main(["train", *agent, "-params", "bolness:1"])
    with pytest.raises(SystemExit, match="boldness='much' must be a number"):
        main(["train", *agent, "-params", "boldness:much"])


def test_a_plan_knows_it(flags: list[str], tmp_path: Path) -> None:
    settings = {"profile": "tiny"} if "tiny" in flags else {"hyperparameters": {"boldness": 2, "n_timesteps": 3}}
    plan = {"algorithms": {"theirs": settings}, "stages": [{"datasets": ["a/b-v0"], "seeds": [0]}]}
    (tmp_path / "plan.yml").write_text(yaml.safe_dump(plan))
    (job,) = read_plan(tmp_path / "plan.yml").jobs
    assert job.config["hyperparameters"]["boldness"] == 2 and job.updates == 3
    assert job.config["defaults"]["expectile"] == 0.7


def test_it_is_timed_beside_its_plain_form_and_its_baseline_has_a_name(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(agents, "N_ROWS", 300)
    monkeypatch.setattr(speed, "PEAK_SIZES", (16,))
    setting = "tiny" if "tiny" in flags else "paper"
    main(["speed", "--algo", "theirs", "--setting", setting, "--batch-size", "8", "--updates", "1", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert "GFLOP an update" in lines[1]
    assert [line.split("  ")[0] for line in lines[3:]] == [
        f"plain ({'reference form' if 'tiny' in flags else 'shared parts'})",
        "eager",
    ]
    assert baseline_of("theirs", {"boldness": 0}) == "no boldness" and not baseline_of("theirs", {"boldness": 2})
