"""Agents of all runs are ranked from logs alone."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from worlds import make_agent, make_dataset

from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.ope import OfflineReport, evaluate_offline
from zoo.__main__ import main
from zoo.judge import candidates
from zoo.judge.command import agreement, fit_arguments


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Two runs with three checkpoints on ``data.npz``, and a file that is no agent."""
    data = make_dataset()
    np.savez(
        tmp_path / "data.npz",
        **{name: getattr(data, name) for name in ("observations", "actions", "rewards", "next_observations")},
        terminals=data.terminations,
        timeouts=data.truncations,
    )
    for algo in ("bc", "td3_bc"):
        folder = tmp_path / "logs" / algo / "data_1"
        folder.mkdir(parents=True)
        make_agent(algo).learn_offline(data, 1).save(folder / "data.zip")
    make_agent("bc").learn_offline(data, 2).save(folder.parents[1] / "bc" / "data_1" / "rl_model_2_steps.zip")
    (folder / "rl_model_7_steps.zip").write_bytes(b"no agent")
    (folder / "rl_model_x_steps.zip").write_bytes(b"not counted")
    return tmp_path


def test_checkpoints_of_all_runs_are_ranked(logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    from zoo.judge import command

    words = [
        "judge",
        "--dataset",
        str(logs / "data.npz"),
        "-f",
        str(logs / "logs"),
        "-n",
        "3",
        "--held-out",
        "0.5",
        "--device",
        "cpu",
    ]
    monkeypatch.setattr(command, "evaluate_offline", small(command.evaluate_offline))
    with pytest.raises(SystemExit, match="give a larger share, or --fqe-only"):
        main([*words, "--held-out", "0.01"])
    settings = logs / "logs" / "td3_bc" / "data_1" / "data"
    settings.mkdir()
    (settings / "config.yml").write_text("algo: td3_bc\ndataset: {fingerprint: another}\nhyperparameters: {}\n")
    main([*words, "--fits", str(logs / "fits"), "--json", str(logs / "report.json"), "-o", str(logs / "judged.png")])
    out = capsys.readouterr().out
    assert "bc_1 is of a run that was interrupted" in out  # none of these left a summary
    assert [line.endswith(": td3_bc_1") for line in out.splitlines() if line.startswith("trained on other data")] == [True]
    n_episodes = make_dataset().n_episodes
    said = f"{round(n_episodes / 2)} of {n_episodes} episodes are held out of the agents' fits; TD errors and WDR are measured"
    assert f"{said} on them" in out and "judging 3 agents: " in out
    best = re.search("^best: ([^,]+),", out, re.MULTILINE)
    of_it = {"bc_1": "bc/data_1/data.zip", "bc_1@2": "bc/data_1/rl_model_2_steps.zip", "td3_bc_1": "td3_bc/data_1/data.zip"}
    assert best and f"python -m zoo export --model {logs}/logs/{of_it[best[1]]}\n" in out
    assert "td3_bc_1@7 is left out" in out and "the data" in out and "rank correlation" in out
    found = json.loads((logs / "report.json").read_text())
    assert found["policies"].keys() == {"bc_1", "bc_1@2", "td3_bc_1"}
    assert found["command"].startswith("python -m zoo judge --dataset") and "torch" in found["versions"]
    assert {*found["policies"]} == {file.stem for file in (logs / "fits").iterdir()}
    assert (logs / "judged.png").stat().st_size and (logs / "judged.svg").stat().st_size


def test_a_stopped_judge_says_how_to_go_on(logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from zoo.judge import command

    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "evaluate_offline", stopped)
    words = ["judge", "--dataset", str(logs / "data.npz"), "-f", str(logs / "logs"), "--device", "cpu", "--fqe-only"]
    for more, said in ([], "nothing is kept"), (["--fits", str(logs / "fits")], f"fits are kept in {logs / 'fits'}"):
        with pytest.raises(SystemExit):
            main([*words, *more])
        assert said in capsys.readouterr().err


def small(evaluate):
    def run(*args, weighting, **options):
        return evaluate(*args, weighting={**weighting, "n_steps": 2, "net_arch": (4,)}, net_arch=(4,), **options)

    return run


@pytest.mark.parametrize("flag", ["--gamma", "--held-out"])
@pytest.mark.parametrize("value", ["0", "1", "-0.5", "x"])
def test_bounds_are_refused_at_the_flag(flag: str, value: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["judge", "--dataset", "data.npz", f"{flag}={value}"])
    assert flag in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("tua:0.1", "'tua' is not an argument of FQE; did you mean 'tau'"),
        ("seed:1", "FQE's seed is --seed here"),
        ("tau", "is not a pair"),
        ("policy:1", "'policy' is not an argument of FQE"),
    ],
)
def test_only_arguments_of_the_fits_are_taken(pair: str, message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        fit_arguments([pair])
    assert fit_arguments(["tau:0.1", "net_arch:[8]"]) == {"tau": 0.1, "net_arch": [8]}


def test_agents_of_another_file_are_named_and_kept(tmp_path: Path):
    data, paths = make_dataset(), {}
    for name, fingerprint in {"same": data.fingerprint, "other": "0" * 64, "unknown": None, "damaged": None}.items():
        settings = tmp_path / "bc" / f"{name}_1" / name
        settings.mkdir(parents=True)
        recorded = "" if fingerprint is None else f"fingerprint: '{fingerprint}'"
        config = f"algo: bc\ndataset: {{{recorded}}}\nhyperparameters: {{}}\n"
        (settings / "config.yml").write_text("algo: [" if name == "damaged" else config)
        paths[name] = settings.parent / f"{name}.zip"
    line = candidates.trained_elsewhere(paths, data)
    assert line is not None and line.startswith("trained on other data") and line.endswith(": other")
    assert candidates.trained_elsewhere({"same": paths["same"], "none": tmp_path / "a.zip"}, data) is None


def test_without_agents_it_says_so(tmp_path: Path):
    with pytest.raises(NotFoundError, match="There is no agent trained on"):
        candidates.find_checkpoints(tmp_path, "data.npz")


def test_agents_of_other_spaces_are_named():
    data = make_dataset()
    narrow = data.replace(
        observations=data.observations[:, :1],
        next_observations=data.next_observations[:, :1],
        observation_space=type(data.observation_space)(-np.inf, np.inf, (1,), np.float32),
    )
    with pytest.raises(UserError, match=r"bc_1 has observations of shape \(\d+,\), the data of \(1,\)"):
        candidates.check_spaces({"bc_1": make_agent("bc")}, narrow)


def test_without_a_file_that_can_be_read_it_says_why(tmp_path: Path):
    (tmp_path / "agent.zip").write_bytes(b"none")
    with pytest.raises(UserError, match=r"No agent can be judged\. a is left out: "):
        candidates.load_candidates({"a": tmp_path / "agent.zip"}, "cpu")


def test_the_simulator_says_how_good_the_judge_was(
    logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from zoo.judge import command

    asked: list[dict[str, Any]] = []

    def small_networks(*args: Any, weighting: Any, **options: Any) -> OfflineReport:
        asked.append(options)
        return evaluate_offline(*args, net_arch=(4,), **options)

    monkeypatch.setattr(command, "evaluate_offline", small_networks)
    words = [
        "judge",
        "--dataset",
        str(logs / "data.npz"),
        "-f",
        str(logs / "logs"),
        "-n",
        "2",
        "--fqe-only",
        "--device",
        "cpu",
    ]
    words += ["--truth", "2", "--json", str(logs / "report.json"), "-o", str(logs / "judged.png")]
    with pytest.raises(SystemExit, match="environment"):
        main(words)
    main([*words, "--env", "genoffline-tests/Point-v0"])
    found = json.loads((logs / "report.json").read_text())
    assert found["truth"].keys() == found["policies"].keys()
    assert found["figures"]["fqe"]["policies"] == 3 and "regret@3" in capsys.readouterr().out
    assert (logs / "judged-truth.png").stat().st_size
    main([*words, "--env", "genoffline-tests/Point-v0", "--algo", "td3_bc", "dac", "--action-samples", "2"])
    assert json.loads((logs / "report.json").read_text())["policies"].keys() == {"td3_bc_1"}
    assert asked[-1]["n_action_samples"] == 2 and asked[0]["n_action_samples"] == 4
    with pytest.raises(SystemExit, match="There is no agent of dac trained on"):
        main([*words, "--env", "genoffline-tests/Point-v0", "--algo", "dac"])


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((6.0, 9.0), ", whose interval is above the data's 5"),
        ((4.0, 6.0), ", which is not surely better"),
        ((1.0, 4.0), ", which is worse than the data: keep"),
    ],
)
def test_the_best_is_held_against_the_data(interval: tuple[float, float], said: str) -> None:
    estimate = SimpleNamespace(fqe=SimpleNamespace(interval=interval))
    report = SimpleNamespace(best=lambda: "iql_1", judgements={"iql_1": estimate}, data_value=5.0, agreement=None)
    first = agreement(report).splitlines()[0]
    assert first.startswith(f"best: iql_1{said}")
