"""`python -m zoo tune`: trials are run, judged, ended early and gone on with, and the best one is a profile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from worlds import make_dataset

import zoo.benchmark.runner as runner_module
import zoo.tune.command as command
import zoo.tune.objectives as objectives
from sb3_genoffline.errors import MissingPackageError, UserError
from sb3_genoffline.registry import load_agent
from zoo.__main__ import main
from zoo.benchmark.job import EXIT
from zoo.runs.stopping import StopSignals
from zoo.runs.writing import write_json
from zoo.tune import study as study_module
from zoo.tune.checks import check_trials
from zoo.tune.job import run_trial, rungs
from zoo.tune.plan import TunePlan, Wish
from zoo.tune.trials import read_trial, sentence

pytest.importorskip("optuna")
TINY = ["-n", "4", "--profile", "tiny", "--device", "cpu"]


class Inline:
    """A trial done in this process, at once."""

    done: ClassVar[list[Path]] = []

    def __init__(self, record: Path, **options: Any) -> None:
        assert options == {"threads": 1, "nice": 10, "module": "zoo.tune.job"}
        self.code = EXIT[run_trial(record)]
        self.done.append(record)

    def poll(self) -> int | None:
        return self.code

    def stop(self) -> None:
        pass

    kill = stop


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(runner_module, "LocalProcess", Inline)
    monkeypatch.setattr(Inline, "done", [])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of data that no simulator is known for."""
    world = make_dataset()
    path = tmp_path / "data.npz"
    names = ("observations", "actions", "rewards", "next_observations")
    space = world.action_space
    arrays = {name: getattr(world, name) for name in names}
    np.savez(path, **arrays, terminals=world.terminations, timeouts=world.truncations, action_space=[space.low, space.high])
    return path


@pytest.fixture
def tune(tmp_path: Path, data: Path) -> Callable[..., Path]:
    def run(*words: str, algo: str = "td3_bc", dataset: str | None = None) -> Path:
        start = ["tune", "--algo", algo, "--dataset", dataset or str(data), "-f", str(tmp_path / "tune"), *TINY]
        main([*start, *([] if "--objective" in words else ["--objective", "action-distance"]), *words])
        (folder,) = (tmp_path / "tune").glob(f"{algo}-*")
        return folder

    return run


def trials_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "trials.json").read_text())["trials"]


def test_the_best_trial_becomes_a_profile_that_train_reads(
    tune: Callable[..., Path], data: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = tune(
        "--trials", "3", "--scores", "1", "--search", "alpha:[0.5,2.5,10.0]", "policy_kwargs:dict(net_arch=[[8],[8,8]])"
    )
    trials = trials_of(folder)
    assert [trial["state"] for trial in trials] == ["complete"] * 3
    assert trials[0]["settings"] == {"alpha": 2.5, "policy_kwargs.net_arch": [8, 8]}  # as it is without a search
    best = min(trials, key=lambda trial: trial["value"])
    profile = yaml.safe_load((folder / "best.yml").read_text())["default"]
    assert profile["alpha"] == best["settings"]["alpha"] and profile["n_timesteps"] == 4
    assert profile["policy_kwargs"]["net_arch"] == best["settings"]["policy_kwargs.net_arch"]
    words = ["--dataset", str(data), "--profile", str(folder / "best.yml"), "-f", str(tmp_path / "logs"), "--eval-freq", "0"]
    main(["train", "--algo", "td3_bc", *words, "--device", "cpu", "--verbose", "0", "--no-progress"])
    agent: Any = load_agent(tmp_path / "logs" / "td3_bc" / "data_1" / "data.zip", device="cpu")
    assert (agent.alpha, agent.num_timesteps) == (profile["alpha"], 4)
    report, told = (folder / "report.md").read_text(), capsys.readouterr().out
    assert "No episode: the choice is made from the data alone." in report and "best: trial" in told


def test_a_choice_says_whom_it_can_not_tell_apart_and_that_nothing_is_left_to_try(
    tune: Callable[..., Path], capsys: Any
) -> None:
    words = ["--trials", "7", "--scores", "1", "--fit-steps", "20", "--search", "alpha:[2.5,2.500001]", "--objective", "fqe"]
    folder = tune(*words)
    report, told = (folder / "report.md").read_text(), capsys.readouterr().out
    for text in (report, told):
        assert "The block has 2 settings, and all were tried." in text
        assert "Other trials with values within the best one's interval: 1 of 1." in text
    (low, high) = json.loads(next((folder / "jobs").glob("*.json")).read_text())["scores"][-1]["interval"]
    assert f"| {low:.4g} to {high:.4g} |" in report


def test_a_search_that_was_stopped_goes_on_as_one_that_was_not(tune: Callable[..., Path], tmp_path: Path) -> None:
    words = ["--search", "alpha:dict(low=0.1,high=10,log=True)", "--scores", "1"]
    folder = tune(*words, "--trials", "3")
    whole = trials_of(folder)
    folder.rename(tmp_path / "whole")
    tune(*words, "--trials", "1")
    journal = folder / "journal.log"
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"killed in the mid')
    for record in (folder / "jobs").glob("*.json"):
        record.with_suffix(".lock").touch()
    tune(*words, "--trials", "3")
    assert trials_of(folder) == whole
    assert len(Inline.done) == 6
    tune(*words, "--trials", "3")
    assert len(Inline.done) == 6


def test_a_trial_that_was_killed_goes_on_from_its_checkpoint_and_is_scored_once(
    tune: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--trials", "2", "--search", "alpha:[1.0,2.5]", "--scores", "4"]
    whole = trials_of(tune(*words))
    (tmp_path / "tune").rename(tmp_path / "whole")
    judged: list[int] = []
    score = objectives.Judge.score

    def killed_once(self: Any, model: Any, *others: Any) -> Any:
        judged.append(model.num_timesteps)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return score(self, model, *others)

    monkeypatch.setattr(objectives.Judge, "score", killed_once)
    tune_folder = tmp_path / "tune" / "td3_bc-data"
    with pytest.raises(UserError, match="No trial came to its end"):
        start = ["--algo", "td3_bc", "--dataset", str(tmp_path / "data.npz"), "-f", str(tmp_path / "tune"), *TINY]
        run_command([*start, "--objective", "action-distance", *words[2:], "--trials", "1"])
    (path,) = (tune_folder / "jobs").glob("*.json")
    assert [score["updates"] for score in read_trial(path)["scores"]] == [1]
    folder = tune(*words)
    assert judged[:5] == [1, 2, 2, 3, 4]
    assert trials_of(folder) == whole


def run_command(words: list[str]) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.main(parser.parse_args(words))


class Scripted:
    """A trial whose scores are given: one more whenever it is looked at."""

    scores: ClassVar[dict[float, list[float]]] = {}
    stopped: ClassVar[list[float]] = []

    def __init__(self, record: Path, **options: Any) -> None:
        self.path, self.asked = record, False
        self.alpha = read_trial(record)["config"]["hyperparameters"]["alpha"]
        self.done: list[dict[str, Any]] = []

    def poll(self) -> int | None:
        record = read_trial(self.path)
        if self.asked or record["state"] == "done":
            return 143 if self.asked else 0
        wanted = self.scores[self.alpha]
        self.done.append({"updates": len(self.done) + 1, "value": wanted[len(self.done)]})
        state = "done" if len(self.done) == len(wanted) else "running"
        write_json(self.path, record | {"state": state, "scores": self.done})
        return 0 if state == "done" else None

    def stop(self) -> None:
        self.asked = True
        self.stopped.append(self.alpha)
        write_json(self.path, read_trial(self.path) | {"state": "interrupted"})

    kill = stop


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    monkeypatch.setattr(runner_module, "LocalProcess", Scripted)
    monkeypatch.setattr(Scripted, "stopped", [])
    values = np.arange(1.0, 9.0)
    monkeypatch.setattr(Scripted, "scores", {float(value): [float(value)] * 4 for value in values})
    return Scripted


SEARCHED = ["--search", "alpha:[1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0]", "-params", "n_timesteps:4"]


def test_a_trial_that_falls_behind_is_ended_early(
    tune: Callable[..., Path], scripted: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tune(*SEARCHED, "--trials", "20")
    trials = trials_of(folder)
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned and {trial["updates"] for trial in pruned} == {1}
    assert sorted(scripted.stopped) == sorted({trial["settings"]["alpha"] for trial in pruned})
    best = min(trial["value"] for trial in trials if trial["state"] == "complete")
    assert all(trial["value"] > best for trial in pruned)
    assert "pruned" in capsys.readouterr().out
    assert sorted(trial["settings"]["alpha"] for trial in trials) == [1, 2, 3, 4, 5, 6, 7, 8]  # there are no more than these


def test_without_pruning_all_come_to_their_end(tune: Callable[..., Path], scripted: type[Scripted]) -> None:
    folder = tune(*SEARCHED, "--trials", "12", "--no-prune", "--jobs", "3")
    assert [trial["state"] for trial in trials_of(folder)] == ["complete"] * 8 and scripted.stopped == []


def test_trials_work_side_by_side_and_are_asked_to_end(
    tune: Callable[..., Path], scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    most = 0

    class Watched(scripted):  # type: ignore[valid-type, misc]
        def __init__(self, record: Path, **options: Any) -> None:
            super().__init__(record, **options)
            working.append(self)

        def poll(self) -> int | None:
            nonlocal most
            most = max(most, sum(not one.asked and len(one.done) < 4 for one in working))
            if len(working) == 3 and len(self.done) == 2:
                raise KeyboardInterrupt
            return super().poll()

    working: list[Any] = []
    monkeypatch.setattr(runner_module, "LocalProcess", Watched)
    with pytest.raises(SystemExit):
        tune(*SEARCHED, "--trials", "9", "--jobs", "3", "--no-prune")
    assert most == 3 and all(one.asked or len(one.done) == 4 for one in working)
    monkeypatch.setattr(runner_module, "LocalProcess", scripted)
    folder = tune(*SEARCHED, "--trials", "9", "--jobs", "3", "--no-prune")
    assert [trial["state"] for trial in trials_of(folder)] == ["complete"] * 8


def test_a_search_of_another_plan_is_refused(tune: Callable[..., Path], scripted: type[Scripted]) -> None:
    folder = tune(*SEARCHED, "--trials", "1")
    for changed, what in (
        (["--seed", "1"], "seed is 0 there, and 1 now"),
        (["--scores", "2"], r"evaluation\.scores is 3 there, and 2 now"),
        (["-params", "n_timesteps:4", "tau:0.5"], r"hyperparameters\.tau is None there, and 0\.5 now"),
        (["--search", "alpha:[1.0,2.0]"], r"search\.alpha is \[1\.0, 2\.0, 3\.0"),
    ):
        with pytest.raises(SystemExit, match=rf"holds a search of another plan: {what}.*Use another folder"):
            tune(*SEARCHED, *changed, "--trials", "1")
    (folder / "journal.log").write_text("no journal\nat all\n")
    with pytest.raises(SystemExit, match=r"journal\.log is not the journal of a search"):
        tune(*SEARCHED, "--trials", "1")


def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path: Path) -> None:
    plan = TunePlan(Wish("td3_bc", "d", 0, {"objective": "action-distance"}, search={"alpha": [1.0, 2.0]}), make_dataset())
    journal = tmp_path / "journal.log"
    for text in ("precious notes", "precious\nnotes", '{"a":1}', '[1]\n{"op_code"', '{"op_code":0,"study_name":"other"}\nx'):
        journal.write_text(text)
        with pytest.raises(UserError, match=r"journal\.log is not the journal of a search \(.*: move it away"):
            study_module.open_study(tmp_path, plan)
        assert journal.read_text() == text
    journal.write_text('{"op_code":0,"worker_id":"killed in its first li')
    study_module.open_study(tmp_path, plan)
    lines = journal.read_text().splitlines(keepends=True)
    assert [json.loads(line)["op_code"] for line in lines] == [0, 2]


def test_a_journal_that_has_lost_a_line_is_refused(tune: Callable[..., Path], scripted: type[Scripted]) -> None:
    folder = tune(*SEARCHED, "--trials", "3", "--no-prune")
    journal = folder / "journal.log"
    lines = journal.read_text().splitlines(keepends=True)
    best = (folder / "best.yml").read_text()
    begun = [number for number, line in enumerate(lines) if json.loads(line)["op_code"] == 4]
    named = [number for number, line in enumerate(lines) if json.loads(line)["op_code"] == 5]
    for lost, what in (
        (0, r"not the journal of a search \(line 1 is"),
        (1, "has lost the line with the plan"),
        *((number, r"has lost a line: line \d+ is about trial \d") for number in begun),
        *((number, rf"is damaged: trial {trial} has ended without a value of alpha") for trial, number in enumerate(named)),
    ):
        journal.write_text("".join(lines[:lost] + lines[lost + 1 :]))
        with pytest.raises(SystemExit, match=rf"journal\.log .*{what}.*: move it away"):
            tune(*SEARCHED, "--trials", "3", "--no-prune")
    journal.write_text("".join(lines).replace('"param_name":"alpha"', '"param_name":"alhpa"'))
    with pytest.raises(SystemExit, match="ended without a value of alpha"):
        tune(*SEARCHED, "--trials", "3", "--no-prune")
    assert (folder / "best.yml").read_text() == best
    journal.unlink()
    done = len(list((folder / "jobs").glob("*.json")))
    tune(*SEARCHED, "--trials", "3", "--no-prune")  # as the refusal says
    assert len(list((folder / "jobs").glob("*.json"))) == done and (folder / "best.yml").read_text() == best


def test_a_trial_whose_record_is_lost_is_done_again(
    tune: Callable[..., Path], scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tune(*SEARCHED, "--trials", "3", "--no-prune")
    whole = trials_of(folder)

    def record_of_best() -> Path:
        alpha = min(trials_of(folder), key=lambda trial: trial["value"])["settings"]["alpha"]
        paths = (folder / "jobs").glob("*.json")
        return next(path for path in paths if read_trial(path)["config"]["hyperparameters"]["alpha"] == alpha)

    record = record_of_best()
    kept = record.read_text()
    record.unlink()
    capsys.readouterr()
    begun: list[Path] = []

    class Stopped(scripted):  # type: ignore[valid-type, misc]
        def poll(self) -> int | None:
            if not self.asked:
                raise KeyboardInterrupt
            return super().poll()

    monkeypatch.setattr(runner_module, "LocalProcess", Stopped)
    with pytest.raises(SystemExit):
        tune(*SEARCHED, "--trials", "3", "--no-prune")
    assert f"its record {record} is missing: it is done again" in capsys.readouterr().out
    monkeypatch.setattr(runner_module, "LocalProcess", lambda path, **options: (begun.append(path), scripted(path))[1])
    tune(*SEARCHED, "--trials", "4", "--no-prune")
    assert len(begun) == 2 and begun[0] == record and trials_of(folder)[:3] == whole
    write_json(record, json.loads(kept) | {"scores": [{"updates": 4, "value": 99.0}]})
    tune(*SEARCHED, "--trials", "4", "--no-prune")
    assert f"but 99 in its record {record}, which counts" in capsys.readouterr().out
    record.write_text(kept)
    (folder / "journal.log").rename(folder / "journal.old")
    tune(*SEARCHED, "--trials", "1", "--no-prune")
    assert "4 records belong to no trial of journal.log" in capsys.readouterr().out
    (folder / "journal.old").rename(folder / "journal.log")
    tune(*SEARCHED, "--trials", "4", "--no-prune")
    best = yaml.safe_load((folder / "best.yml").read_text())
    record_of_best().unlink()
    monkeypatch.setattr(scripted, "poll", lambda self: 1)
    tune(*SEARCHED, "--trials", "4", "--no-prune")
    assert yaml.safe_load((folder / "best.yml").read_text()) == best  # the journal has its value, though it has failed


def test_trials_that_fail_are_told_and_do_not_end_the_search(
    tune: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score = objectives.Judge.score

    def fails(self: Any, model: Any, *others: Any) -> Any:
        if model.alpha == 1.0:
            raise UserError("it diverged")
        return score(self, model, *others)

    monkeypatch.setattr(objectives.Judge, "score", fails)
    folder = tune("--search", "alpha:[1.0,2.5]", "--trials", "4", "--scores", "1")
    states = {trial["settings"]["alpha"]: trial["state"] for trial in trials_of(folder)}
    assert states == {1.0: "fail", 2.5: "complete"}
    assert "it diverged" in (folder / "report.md").read_text() and "it diverged" in capsys.readouterr().out


def test_without_optuna_it_says_what_to_install(tune: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingPackageError, match=r'pip install -e "\.\[tune\]"'):
        study_module.load_optuna()
    with pytest.raises(SystemExit, match=r"tune needs Optuna: pip install"):
        tune()


def test_flags_that_do_not_fit_the_data_are_refused(tune: Callable[..., Path]) -> None:
    with pytest.raises(SystemExit, match="leaves none to judge on"):
        tune("--held-out", "0")
    with pytest.raises(SystemExit, match="No environment is known"):
        tune("--objective", "simulator")
    with pytest.raises(SystemExit, match="BC has no critic to ask: choose another --objective"):
        tune("--objective", "soft-opc", algo="bc")
    with pytest.raises(SystemExit, match="DecisionTransformerPolicy acts by its history"):
        tune(algo="decision_transformer")
    with pytest.raises(SystemExit, match="TD3BC has no hyper-parameter 'alpa'; did you mean 'alpha'"):
        tune("--search", "alpa:[1.0]")


@pytest.mark.parametrize(
    ("objective", "words", "message"),
    [
        ("fqe", ["-params", "gamma:1"], r"--objective fqe can't judge these trials: gamma=1\.?0? must lie in \(0, 1\)"),
        ("soft-opc", ["-params", "gamma:1", "reward_transform:iql_antmaze"], "use a gamma below 1, or another transform"),
        ("fqe", ["--search", "reward_transform:['x']"], "--search: reward_transform='x' can't be tried: .* is not known"),
        ("fqe", ["--search", "batch_size:[4,10000000000000]"], "batch_size=10000000000000 can't be tried: .* memory"),
        ("fqe", ["--search", "batch_size:dict(low=4,high=10000000000000)"], "batch_size=10000000000000 can't be tried"),
    ],
)
def test_what_no_trial_could_do_is_told_before_the_first(
    tune: Callable[..., Path], tmp_path: Path, objective: str, words: list[str], message: str
) -> None:
    words = words if "--search" in words else [*words, "--search", "alpha:[1.0]"]
    with pytest.raises(SystemExit, match=message):
        tune("--objective", objective, *words)
    assert not (tmp_path / "tune").exists()


def test_a_transform_that_the_data_do_not_bear_is_told_before_the_first_trial() -> None:
    data = make_dataset()
    data = data.replace(rewards=np.ones_like(data.rewards))
    search = {"reward_transform": [None, "reward_normalize"]}
    plan = TunePlan(Wish("td3_bc", "d", 0, {"objective": "action-distance", "held_out": 0.4}, search=search), data)
    with pytest.raises(UserError, match=r"reward_transform='reward_normalize' can't be tried: .* which is 0 here"):
        check_trials(plan)


def test_errors_are_told_without_the_modules_of_their_class() -> None:
    assert sentence("Traceback\nsb3_genoffline.errors.UserError: it is 1: use 2") == "it is 1: use 2"
    assert (
        sentence("torch.OutOfMemoryError: CUDA") == "OutOfMemoryError: CUDA"
        and sentence("KeyError: 'a.b: c'") == "KeyError: 'a.b: c'"
    )
    assert sentence("ended by signal 9") == "ended by signal 9"


def test_an_algorithm_without_a_block_says_so(tune: Callable[..., Path], tmp_path: Path) -> None:
    conf = tmp_path / "conf.yml"
    conf.write_text("default: {}\nprofiles: {tiny: {default: {n_timesteps: 4}}}\n")
    with pytest.raises(SystemExit, match="has no block `search`: add one, or say what to try: --search"):
        tune("-conf", str(conf))


@pytest.mark.parametrize("objective", [name for name in objectives.OBJECTIVES if name != "simulator"])
@pytest.mark.parametrize("algo", ["td3_bc", "dac"])
def test_every_offline_objective_scores_agents(objective: str, algo: str) -> None:
    data = make_dataset()
    settings = {"objective": objective, "held_out": 0.4, "gamma": 0.9, "fit_steps": 2}
    judge = objectives.Judge(settings, data, 0, "cpu")
    assert (judge.training.n_episodes, judge.held_out.n_episodes) == (4, 2)
    from worlds import make_agent

    agent: Any = make_agent(algo).learn_offline(judge.training, 1)
    first, second = (judge.score(agent, StopSignals()) for _ in range(2))
    assert first is not None and second is not None
    assert np.isfinite(first["value"]) and first["value"] == second["value"]


@pytest.mark.parametrize("objective", ["initial-value", "soft-opc"])
def test_what_an_agents_own_critic_says_is_in_units_of_the_raw_rewards(objective: str) -> None:
    from worlds import make_agent

    judge = objectives.Judge({"objective": objective, "held_out": 0.4}, make_dataset(), 0, "cpu")
    agent: Any = make_agent("td3_bc").learn_offline(judge.training, 1)
    agent.dataset_info |= {"reward_scale": 1.0, "reward_shift": 0.0}
    raw = judge.score(agent, StopSignals())
    agent.dataset_info |= {"reward_scale": 4.0, "reward_shift": -2.0}  # as if what it says were of such rewards
    found = judge.score(agent, StopSignals())
    assert raw is not None and found is not None
    shift = -2.0 / (1 - agent.gamma) if objective == "initial-value" else 0.0
    assert found["value"] == pytest.approx((raw["value"] - shift) / 4, rel=1e-4)


def test_values_that_cannot_be_compared_are_not_searched() -> None:
    def plan(objective: str, search: dict[str, Any], data: Any) -> TunePlan:
        return TunePlan(Wish("td3_bc", "d", 0, {"objective": objective}, overrides={"gamma": 0.9}, search=search), data)

    data = make_dataset()
    gammas, transforms = {"gamma": [0.9, 0.99]}, {"reward_transform": [None, "antmaze100", "iql_antmaze"]}
    for objective in ("initial-value", "soft-opc"):
        with pytest.raises(UserError, match=r"--search: gamma can't be searched with .* judges all trials at gamma=0\.9\."):
            plan(objective, gammas, data)
        with pytest.raises(UserError, match="reward_transform None and iql_antmaze can't be compared with"):
            plan(objective, transforms, data)
        ends = data.terminations | data.truncations
        plan(objective, transforms, data.replace(terminations=np.zeros_like(ends), truncations=ends))
    assert plan("fqe", gammas, data).evaluation["gamma"] == 0.9
    plan("fqe", transforms, data)


def test_a_signal_breaks_a_fit_off() -> None:
    from worlds import make_agent

    judge = objectives.Judge({"objective": "fqe", "held_out": 0.4, "gamma": 0.9, "fit_steps": 10**6}, make_dataset(), 0, "cpu")
    stop = StopSignals()
    stop.number = 15
    assert judge.score(make_agent("bc"), stop) is None


def test_updates_at_which_trials_are_scored() -> None:
    assert rungs(10, 4) == [2, 4, 6, 10] and rungs(3, 5) == [1, 2, 3] and rungs(7, 1) == [7]


def test_records_that_others_wrote_are_checked(tmp_path: Path) -> None:
    config = {"name": "bc", "algo": "bc", "dataset": "d", "seed": 0, "hyperparameters": {}, "evaluation": {}}
    whole: dict[str, Any] = {"key": "k", "state": "done", "config": config, "scores": [{"updates": 1, "value": 1.0}]}
    path = tmp_path / "record.json"
    write_json(path, whole)
    assert read_trial(path) == whole
    for scores in ("many", [{"updates": 1}], [{"updates": -1, "value": 1.0}], [{"updates": 1, "value": "high"}], []):
        write_json(path, whole | {"scores": scores})
        with pytest.raises(UserError, match="is not a record of a trial: its scores"):
            read_trial(path)
    for interval in ([1.0], [1.0, 2.0, 3.0], "wide", []):
        write_json(path, whole | {"scores": [{"updates": 1, "value": 1.0, "interval": interval}]})
        with pytest.raises(UserError, match=r"is not a record of a trial: its scores.*interval="):
            read_trial(path)
    for revealed in ("much", {"episodes": 2}, {"episodes": 2, "returns": [1.0, "x"], "value": 1.0}):
        write_json(path, whole | {"revealed": revealed})
        with pytest.raises(UserError, match="is not a record of a trial: what is revealed"):
            read_trial(path)
    write_json(path, {"state": "done"})
    with pytest.raises(UserError, match="is not a record of a benchmark: its key"):
        read_trial(path)


def test_the_simulator_is_counted_and_the_bandits_choice_told(tune: Callable[..., Path], dataset_id: str) -> None:
    words = ["--objective", "simulator", "--episodes", "2", "--scores", "2", "--search", "alpha:[1.0,2.5]"]
    folder = tune(*words, dataset=dataset_id)
    trials = trials_of(folder)
    assert [trial["evaluations"] for trial in trials] == [4, 4]
    report = (folder / "report.md").read_text()
    assert "8 episodes" in report and "| 100 |" in report and "normalised score of the policy taken" in report
    assert (folder / "bandit.png").stat().st_size and (folder / "bandit.svg").stat().st_size


def test_a_choice_from_data_alone_is_held_against_the_simulator(tune: Callable[..., Path], dataset_id: str) -> None:
    words = ["--search", "alpha:[1.0,2.5]", "--scores", "1"]
    folder = tune(*words, dataset=dataset_id)
    assert "run the command with --reveal 10" in (folder / "report.md").read_text()
    tune(*words, "--reveal", "2", dataset=dataset_id)
    report = (folder / "report.md").read_text()
    assert "No episode: the choice is made from the data alone." in report and "rank correlation" in report
    assert all(len(trial["returns"]) == 2 for trial in trials_of(folder))
    assert len(Inline.done) == len(list((folder / "jobs").glob("*.json")))


def test_another_search_in_the_same_folder_waits(tune: Callable[..., Path], scripted: type[Scripted], tmp_path: Path) -> None:
    folder = tune(*SEARCHED, "--trials", "1")
    with runner_module.alone(folder), pytest.raises(SystemExit, match="Another process is running jobs in"):
        tune(*SEARCHED, "--trials", "2")
