"""Runs that are signalled, killed or gone on with: nothing is lost, nothing is replaced."""

import errno
import json
import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from worlds import members

from sb3_genoffline.common.stepping import Stepper
from sb3_genoffline.errors import DivergedError
from sb3_genoffline.registry import load_agent
from zoo.__main__ import main
from zoo.runs import stopping
from zoo.runs.envs import ReachedGoal
from zoo.runs.folders import Run, find_run, held, list_runs
from zoo.runs.learning import train


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """60 rows of your own."""
    states = np.random.default_rng(0).normal(size=(61, 2)).astype(np.float32)
    ends = np.arange(60) % 10 == 9
    path = tmp_path / "own.npz"
    np.savez(
        path, observations=states[:-1], actions=states[:-1, :1].clip(-1, 1), rewards=states[:-1, 0],
        next_observations=states[1:], terminals=ends,
    )  # fmt: skip
    return path


ENV = ["--env", "MountainCarContinuous-v0", "--env-kwargs", "max_episode_steps:5"]
EVALUATED = [*ENV, "--eval-episodes", "1", "--eval-freq", "5"]


def command(file: Path, *extra: str, algo: str = "td3_bc", n: int = 10, evaluated: bool = False) -> list[str]:
    logs = ["-f", str(file.parent / "logs"), "--verbose", "0"]
    how = EVALUATED if evaluated else ["--eval-freq", "0"]
    return ["train", "--algo", algo, "--dataset", str(file), "-n", str(n), "--profile", "tiny", *logs, *how, *extra]


def runs_of(file: Path, algo: str = "td3_bc") -> list[Run]:
    return list_runs(file.parent / "logs", algo, file)


def stopped_at(update: int, number: int, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    """The exit code of a command that gets a signal in the midst of an update."""
    step = Stepper.__call__

    def signalled(stepper: Any, *args: Any) -> Any:
        if stepper.owner._n_updates == update - 1:
            signal.raise_signal(number)
        return step(stepper, *args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(Stepper, "__call__", signalled)
        main(arguments)
    return ended.value.code  # type: ignore[return-value]


def whole(file: Path, *extra: str, **more: Any) -> Run:
    """A run like the one of the command that nothing stops."""
    copy = file.parent / "whole"
    copy.mkdir()
    shutil.copy(file, copy)
    main(command(copy / file.name, *extra, **more))
    return runs_of(copy / file.name)[0]


def differing(first: Run, second: Run) -> list[str]:
    ours, theirs = members(first.model_path), members(second.model_path)
    assert ours.keys() == theirs.keys()
    return [name for name in ours if ours[name] != theirs[name]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_same_command_goes_on_where_a_signal_ended_it(
    number: int, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    arguments = command(file, "--seed", "0")
    assert stopped_at(4, number, monkeypatch, arguments) == 128 + number
    (run,) = runs_of(file)
    assert (
        f"after update 4; to resume from the last checkpoint: python -m zoo train -i {run.model_path}"
        in capsys.readouterr().err
    )
    assert load_agent(run.model_path).num_timesteps == 4 and run.unfinished and not run.summary()["finished"]
    main(arguments)
    assert runs_of(file) == [run] and run.summary()["finished"]
    assert differing(run, whole(file, "--seed", "0")) == []
    assert (
        run.config()["hyperparameters"] == find_run(file.parent / "whole" / "logs", "td3_bc", file).config()["hyperparameters"]
    )


def test_the_line_that_is_printed_goes_on_too_and_the_command_after_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = command(file, "--seed", "0", "--save-freq", "5", n=12)
    stopped_at(3, signal.SIGTERM, monkeypatch, arguments)
    (run,) = runs_of(file)
    stopped_at(6, signal.SIGTERM, monkeypatch, ["train", "-i", str(run.model_path)])
    main(arguments)
    assert runs_of(file) == [run] and differing(run, whole(file, "--seed", "0", n=12)) == []
    assert run.checkpoint(5).is_file() and run.checkpoint(10).is_file()


def test_a_second_run_of_a_command_that_came_to_its_end_has_the_next_number(file: Path) -> None:
    for _ in range(2):
        main(command(file))
    first, second = runs_of(file)
    assert first.config()["seed"] != second.config()["seed"]


@pytest.mark.parametrize(
    "change",
    [["--no-resume"], ["--seed", "1"], ["-params", "batch_size:8"], ["--eval-episodes", "3"], ["-n", "11"]],
    ids=lambda change: change[0],
)
def test_only_the_same_command_goes_on(change: list[str], file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_at(2, signal.SIGTERM, monkeypatch, command(file, "--seed", "0"))
    before = members(runs_of(file)[0].model_path)
    main(command(file, "--seed", "0", *change))
    assert len(runs_of(file)) == 2 and members(runs_of(file)[0].model_path) == before


def test_other_data_of_the_same_name_start_a_new_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_at(2, signal.SIGTERM, monkeypatch, command(file))
    with np.load(file) as arrays:
        np.savez(file, **{**arrays, "rewards": arrays["rewards"] + 1})
    main(command(file))
    assert len(runs_of(file)) == 2


def test_a_run_that_was_killed_before_its_first_checkpoint_is_begun_again_in_its_folder(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(Stepper, "__call__", killed)
        main(command(file))
    assert not runs_of(file)[0].model_path.exists()
    main(command(file))
    assert len(runs_of(file)) == 1 and runs_of(file)[0].summary()["finished"]


def test_a_run_that_diverged_is_not_gone_on_with(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverges(*args: Any) -> None:
        raise DivergedError("critic_loss became nan")

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="critic_loss became nan"):
        patch.setattr(Stepper, "__call__", diverges)
        main(command(file))
    assert json.loads((runs_of(file)[0].settings / "summary.json").read_text())["error"] == "critic_loss became nan"
    main(command(file))
    assert len(runs_of(file)) == 2


REFUSED: dict[str, tuple[str, Exception, str]] = {
    "log": ("stable_baselines3.common.logger.CSVOutputFormat.write", OSError(errno.ENOSPC, "full"), "the disk is full"),
    "save": ("os.fsync", OSError(errno.EDQUOT, "quota"), "zip could not be written: your quota of the disk is used up"),
    "memory": ("torch.randint", RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), "more memory than"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_machine_refuses_is_a_sentence_and_the_run_goes_on_afterwards(
    what: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = command(file, "--seed", "0", "--save-freq", "4", "--log-interval", "6")
    place, error, sentence = REFUSED[what]
    step = Stepper.__call__

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise error

    def refused_from_the_sixth(stepper: Any, *args: Any) -> Any:
        if stepper.owner._n_updates == 5:
            monkeypatch.setattr(place, refuse)
            if what == "memory":
                torch.randint(2, (1,))
        return step(stepper, *args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(Stepper, "__call__", refused_from_the_sixth)
        main(arguments)
    monkeypatch.undo()
    (run,) = runs_of(file)
    assert sentence in str(ended.value.code) and f"python -m zoo train -i {run.model_path}" in str(ended.value.code)
    assert load_agent(run.model_path).num_timesteps == 4 and not list(run.folder.rglob(".*tmp"))
    main(arguments)
    assert runs_of(file) == [run] and differing(run, whole(file, "--seed", "0", "--save-freq", "4")) == []


@pytest.mark.parametrize("update", [5, 10])
def test_an_evaluation_that_a_signal_breaks_off_is_made_when_the_run_goes_on(
    update: int, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = command(file, "--seed", "0", evaluated=True)
    stopped_at(update, signal.SIGTERM, monkeypatch, arguments)
    (run,) = runs_of(file)
    assert load_agent(run.model_path).num_timesteps == update
    main(arguments)
    reference = whole(file, "--seed", "0", evaluated=True)
    assert run.summary()["finished"] and differing(run, reference) == []
    with np.load(run.evaluations_path) as ours, np.load(reference.evaluations_path) as theirs:
        assert ours["timesteps"].tolist() == [5, 10] and (ours["results"] == theirs["results"]).all()


def test_a_signal_in_the_evaluation_before_the_first_update_harms_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    arguments = command(file, "--seed", "0", evaluated=True)
    stopped_at(5, signal.SIGTERM, monkeypatch, arguments)
    (run,) = runs_of(file)
    before = members(run.model_path)
    step = ReachedGoal.step

    def signalled(self: ReachedGoal, action: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return step(self, action)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(ReachedGoal, "step", signalled)
        main(arguments)
    assert ended.value.code == 143 and members(run.model_path) == before
    main(arguments)
    assert run.summary()["finished"]


def test_a_second_signal_ends_a_training_at_once(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(stopping, "SAME_REQUEST_SECONDS", 0.0)
    step = Stepper.__call__

    def signalled(stepper: Any, *args: Any) -> Any:
        if stepper.owner._n_updates == 6:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        return step(stepper, *args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(Stepper, "__call__", signalled)
        main(command(file, "--save-freq", "4"))
    (run,) = runs_of(file)
    assert ended.value.code == 143 and load_agent(run.model_path).num_timesteps == 4
    assert f"at once: to resume from the last checkpoint: python -m zoo train -i {run.model_path}" in capsys.readouterr().err


def test_a_real_signal_ends_a_real_process_in_order(file: Path, in_a_fork: Any) -> None:
    process, written = in_a_fork(lambda: main(command(file, n=1_000_000)))
    deadline = time.monotonic() + 200
    while process.is_alive() and not list((file.parent / "logs").glob("td3_bc/*/progress.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    process.join(200)
    errors = written.read_text()
    (run,) = runs_of(file)
    assert process.exitcode == 143, errors
    assert f"python -m zoo train -i {run.model_path}" in errors and "Traceback" not in errors
    assert run.model_path.is_file()


# ---------------------------------------------------------------------- -i


@pytest.mark.parametrize("checkpoint", ["rl_model_5_steps.zip", "best_model.zip"])
def test_a_run_of_its_own_branches_off_from_every_checkpoint_but_the_last(checkpoint: str, file: Path) -> None:
    main(command(file, "--save-freq", "5", evaluated=True))
    (run,) = runs_of(file)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    main(["train", "-i", str(run.folder / checkpoint), "-n", "15"])
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
    _, branch = runs_of(file)
    assert load_agent(branch.model_path).num_timesteps == 15 and branch.config()["origin"] == str(run.folder / checkpoint)
    assert branch.checkpoint(15).is_file() and branch.arguments()["eval_freq"] == 5


@pytest.mark.parametrize("change", ["data", "hyper-parameters"])
def test_a_run_goes_on_with_its_own_data_and_settings_only(change: str, file: Path) -> None:
    main(command(file))
    (run,) = runs_of(file)
    before = run.model_path.read_bytes()
    extra = ["-params", "gamma:0.9"]
    if change == "data":
        other = file.with_name("other.npz")
        with np.load(file) as arrays:
            np.savez(other, **{**arrays, "rewards": arrays["rewards"] + 1})
        extra = ["--dataset", str(other)]
    with pytest.warns(UserWarning) if change == "data" else pytest.MonkeyPatch.context():  # type: ignore[attr-defined]
        main(["train", "-i", str(run.model_path), "-n", "12", *extra])
    assert run.model_path.read_bytes() == before and run.config()["hyperparameters"]["n_timesteps"] == 10
    assert len(list((file.parent / "logs" / "td3_bc").iterdir())) == 2


def test_a_branch_that_is_signalled_goes_on_by_the_same_command(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(command(file, "--save-freq", "5"))
    words = ["train", "-i", str(runs_of(file)[0].checkpoint(5)), "-n", "12", "-params", "gamma:0.9"]
    assert stopped_at(8, signal.SIGTERM, monkeypatch, words) == 143
    main(words)
    _, branch = runs_of(file)
    assert branch.summary()["finished"] and load_agent(branch.model_path).gamma == 0.9
    assert branch.config()["origin"].endswith("rl_model_5_steps.zip")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--algo", "bc"], "is an agent of td3_bc, not of bc: leave out --algo"),
        (["--seed", "7"], "has the seed 3, which an agent keeps"),
        (["--profile", "tiny"], "leave out --profile"),
        (["-n", "10"], "has done 10 updates already"),
    ],
)
def test_what_an_agent_can_not_go_on_with_is_refused(flags: list[str], message: str, file: Path) -> None:
    main(command(file, "--seed", "3"))
    (run,) = runs_of(file)
    before = run.model_path.read_bytes()
    with pytest.raises(SystemExit, match=message):
        main(["train", "-i", str(run.model_path), *flags])
    assert run.model_path.read_bytes() == before and len(runs_of(file)) == 1


def test_a_run_keeps_its_options_unless_they_are_given_anew(file: Path) -> None:
    board = file.parent / "tb"
    main(command(file, "--save-freq", "5", "-tb", str(board), "--log-interval", "5", "--save-replay-buffer", evaluated=True))
    (run,) = runs_of(file)
    (run.folder / "replay_buffer.zip").unlink()
    main(["train", "-i", str(run.model_path), "-n", "20", "--eval-freq", "10"])
    with np.load(run.evaluations_path) as evaluations:
        assert evaluations["timesteps"].tolist() == [5, 10, 20] and evaluations["results"].shape == (3, 1)
    assert run.checkpoint(15).is_file() and (run.folder / "replay_buffer.zip").is_file()
    assert len(list(board.rglob("events.*"))) == 2
    assert run.arguments()["eval_freq"] == 10 and run.arguments()["n_timesteps"] == 20
    assert run.arguments()["hyperparams"] is None and run.arguments()["profile"] == "tiny"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eval_freq": "often"}, "eval_freq='often'"),
        ({"env_kwargs": [1]}, "env_kwargs"),
    ],
)
def test_options_that_others_wrote_choose_no_code_and_no_places(change: dict[str, Any], message: str, file: Path) -> None:
    main(command(file))
    (run,) = runs_of(file)
    path = run.settings / "args.yml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(SystemExit, match=message):
        main(["train", "-i", str(run.model_path), "-n", "12"])


def test_a_tensorboard_folder_is_kept_only_where_it_is_the_runs(file: Path) -> None:
    main(command(file))
    (run,) = runs_of(file)
    elsewhere = file.parent / "elsewhere"
    path = run.settings / "args.yml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"tensorboard_log": str(elsewhere)}))
    main(["train", "-i", str(run.model_path), "-n", "12"])
    assert not elsewhere.exists()


# ---------------------------------------------------------------------- locks


def test_one_process_trains_in_a_run_and_a_dead_one_holds_nothing(file: Path, in_a_fork: Callable[..., Any]) -> None:
    main(command(file))
    (run,) = runs_of(file)
    process, _ = in_a_fork(lambda: _hold(run, file.with_name("ready")))
    while not file.with_name("ready").exists():
        assert process.is_alive()
        time.sleep(0.01)
    before = run.model_path.read_bytes()
    with pytest.raises(SystemExit, match="Another process is training in"):
        main(["train", "-i", str(run.model_path), "-n", "12"])
    assert run.model_path.read_bytes() == before
    process.kill()
    process.join()
    main(["train", "-i", str(run.model_path), "-n", "12"])
    assert load_agent(run.model_path).num_timesteps == 12


def _hold(run: Run, ready: Path) -> None:
    with held(run):
        ready.touch()
        threading.Event().wait()


def test_an_unfinished_run_that_is_at_work_is_not_gone_on_with(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_at(2, signal.SIGTERM, monkeypatch, command(file))
    first = runs_of(file)[0]
    before = first.model_path.read_bytes()
    with held(first):
        main(command(file))  # as the other tasks of an array of jobs do
    assert len(runs_of(file)) == 2 and first.model_path.read_bytes() == before
    main(command(file))
    assert len(runs_of(file)) == 2 and first.summary()["finished"]


def test_a_training_from_python_starts_a_run_of_its_own_unless_told_otherwise(file: Path) -> None:
    settings: dict[str, Any] = {"profile": "tiny", "n_timesteps": 2, "eval_freq": 0, "verbose": 0, "progress": False}
    for _ in range(2):
        trained = train("bc", file, log_folder=file.parent, **settings)
        (trained.run.settings / "summary.json").unlink()  # as if it had been killed
    train("bc", file, log_folder=file.parent, resume=True, **settings)
    assert len(list_runs(file.parent, "bc", file)) == 2


def test_where_a_run_goes_on_is_shown_as_a_line_for_a_shell(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    folder = file.parent / "a b"
    folder.mkdir()
    spaced = Path(os.replace(file, folder / file.name) or folder / file.name)
    stopped_at(2, signal.SIGTERM, monkeypatch, command(spaced))
    line = capsys.readouterr().err.strip().partition("to resume from the last checkpoint: ")[2]
    main(shlex.split(line)[3:])
    assert runs_of(spaced)[0].summary()["finished"]
