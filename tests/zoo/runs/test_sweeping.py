"""A sweep compares ways to act on one agent; results and choices have seeds of their own."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from worlds import PointEnv, make_agent

from sb3_genoffline.errors import UserError
from zoo.__main__ import main
from zoo.runs.scoring import CHOOSING_SEEDS, EVAL_SEED, check_seed
from zoo.runs.sweeping import sweep


def make() -> gym.Env:
    return PointEnv()


def test_each_value_is_evaluated_in_the_same_episodes_and_the_agent_stays_as_it_was() -> None:
    model: Any = make_agent("dac")
    protocol: dict[str, Any] = {"n_eval_episodes": 3, "eval_seed": 1000}
    found = sweep(model, make, "acting_noise_scale", ["0", "0.5", "1", "1"], **protocol)
    assert [result["acting_noise_scale"] for result in found["results"]] == [0.0, 0.5, 1.0, 1.0]
    assert (found["setting"], found["before"], model.acting_noise_scale) == ("acting_noise_scale", 1.0, 1.0)
    returns = [tuple(result["returns"]) for result in found["results"]]
    assert len(set(returns[:3])) == 3 and returns[2] == returns[3]
    other = sweep(model, make, "sampler", ["ddim"], **protocol)["results"][0]
    assert other["sampler"] == "ddim" and model.policy.sampler == "ddpm"


def test_what_can_not_be_swept_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'acting_noise' is not a setting of acting .* did you mean 'acting_noise_scale'"):
        sweep(make_agent("dac"), make, "acting_noise", [1])
    with pytest.raises(UserError, match=r"'tau' is not a setting of acting that can be swept. BC has none"):
        sweep(make_agent("bc"), make, "tau", [1])
    with pytest.raises(UserError, match="acting_noise_scale='much' must be a number"):
        sweep(make_agent("dac"), make, "acting_noise_scale", ["much"])


def test_results_are_told_from_other_episodes_than_those_that_choose() -> None:
    assert check_seed(EVAL_SEED) == EVAL_SEED and check_seed(CHOOSING_SEEDS.start, chooses=True) == 1000
    with pytest.raises(UserError, match=r"--seed 1000: on the episodes of the seeds 1000 to 9999 .* the default is 20000"):
        check_seed(1000)
    with pytest.raises(UserError, match=r"--seed 20000: a sweep chooses, .* the default is 1000"):
        check_seed(20_000, chooses=True)


def test_the_command_writes_the_sweep_beside_the_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_agent("dac").save(tmp_path / "agent")
    agent = ["evaluate", "--model", str(tmp_path / "agent.zip"), "--env", "genoffline-tests/Point-v0", "--device", "cpu"]
    main([*agent, "-n", "2", "--sweep", "acting_noise_scale", "0", "1"])
    found = json.loads((tmp_path / "sweep_acting_noise_scale.json").read_text())
    assert [(r["acting_noise_scale"], r["eval_seed"]) for r in found["results"]] == [(0.0, 1000), (1.0, 1000)]
    assert "acting_noise_scale  return" in capsys.readouterr().out
    main([*agent, "-n", "2"])
    assert json.loads((tmp_path / "results.json").read_text())["eval_seed"] == EVAL_SEED
    for wrong in (["--seed", "1000"], ["--sweep", "sampler"], ["--sweep", "sampler", "ddim", "--seed", "20000"]):
        with pytest.raises(SystemExit):
            main([*agent, *wrong])
