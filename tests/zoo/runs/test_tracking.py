"""``zoo train --track``: Weights & Biases and MLflow, each with what it has for working offline."""

import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from sb3_genoffline.common.stepping import Stepper
from sb3_genoffline.errors import UserError
from zoo.__main__ import main
from zoo.runs import tracking
from zoo.runs.folders import Run, list_runs
from zoo.runs.learning import train
from zoo.runs.tracking import Tracker, Tracking


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 rows of one's own."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    states = np.random.default_rng(0).normal(size=(61, 2)).astype(np.float32)
    path = tmp_path / "own.npz"
    np.savez(
        path, observations=states[:-1], actions=states[:-1, :1].clip(-1, 1), rewards=states[:-1, 0],
        next_observations=states[1:], terminals=np.arange(60) % 10 == 9,
    )  # fmt: skip
    return path


def command(file: Path, *extra: str) -> list[str]:
    given = ["--algo", "bc", "--dataset", str(file), "-n", "6", "--profile", "tiny", "--eval-freq", "0", "--log-interval", "2"]
    return ["train", *given, "-f", str(file.parent / "logs"), "--verbose", "0", *extra]


def stop_at(update: int, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """Give a command a signal in the midst of an update."""
    step = Stepper.__call__

    def signalled(stepper: Any, *args: Any) -> Any:
        if stepper.owner._n_updates == update - 1:
            signal.raise_signal(signal.SIGTERM)
        return step(stepper, *args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Stepper, "__call__", signalled)
        main(arguments)


def the_run(file: Path) -> Run:
    (run,) = list_runs(file.parent / "logs", "bc", file)
    return run


def id_of(run: Run, service: str) -> str:
    return json.loads((run.settings / "tracking.json").read_text())[service]  # type: ignore[no-any-return]


class FakeWandb:
    """Remembers what it is told, as ``wandb`` would send it."""

    __file__ = "wandb/__init__.py"
    Settings = SimpleNamespace
    run: object = None

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.models: list[str] = []

    def init(self, **given: Any) -> Any:
        told: dict[str, Any] = {**given, "logged": [], "axes": {}, "exit_code": None}
        self.runs.append(told)
        return SimpleNamespace(
            id=given["id"],
            define_metric=lambda name, step_metric: told["axes"].update({name: step_metric}),
            log=told["logged"].append,
            finish=lambda exit_code: told.update(exit_code=exit_code),
        )


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()

    class WandbCallback(BaseCallback):
        def _init_callback(self) -> None:
            fake.models.append(type(self.model).__name__)

        def _on_step(self) -> bool:
            return True

    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    integration = SimpleNamespace(WandbCallback=WandbCallback)
    monkeypatch.setitem(sys.modules, "wandb.integration.sb3", integration)  # type: ignore[arg-type]
    return fake


def test_wandb_is_told_of_a_run_under_rl_zoos_flags_and_of_the_same_one_when_it_goes_on(
    file: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--track", "--wandb-project-name", "mine", "--wandb-entity", "us", "-tags", "a", "b"]
    stop_at(3, monkeypatch, command(file, *flags))
    main(command(file, *flags))
    first, second = wandb.runs
    assert first["project"] == "mine" and first["entity"] == "us" and first["tags"] == ["a", "b"]
    assert first["config"]["hyperparameters"]["n_timesteps"] == 6 and first["name"] == "bc/own_1"
    assert first["id"] == second["id"] == id_of(the_run(file), "wandb") and first["resume"] == "allow"
    assert first["dir"] == str(the_run(file).folder) and first["axes"] == {"*": "global_step"}
    steps = [entry["global_step"] for told in wandb.runs for entry in told["logged"] if "train/actor_loss" in entry]
    assert steps == [2, 3, 4, 6] and second["exit_code"] == 0
    assert wandb.models == ["BC", "BC"]  # W&B's own callback for SB3 is called too
    assert first["reinit"] is None


def test_a_run_of_wandb_that_the_caller_has_under_way_stays_as_it_is(file: Path, wandb: FakeWandb) -> None:
    wandb.run = object()
    main(command(file, "--track"))
    assert wandb.runs[0]["reinit"] == "create_new" and wandb.models == []


@pytest.mark.slow  # what it is told is asked above of its double; starting it takes seconds
def test_wandb_itself_writes_the_run_offline_beside_the_runs_files(file: Path) -> None:
    wandb = pytest.importorskip("wandb")
    main(command(file, "--track"))
    wandb.teardown()  # its service writes on its own: what was finished is on the disk once that has ended
    run = the_run(file)
    (offline,) = (run.folder / "wandb").glob(f"offline-run-*-{id_of(run, 'wandb')}")
    (content,) = offline.glob("*.wandb")
    # of the logger, of the run's config, of W&B's callback (an attribute of the model)
    assert all(name in content.read_bytes() for name in (b"actor_loss", b"hyperparameters", b"replay_buffer_class"))


def test_mlflow_is_told_of_a_run_and_of_the_same_one_when_it_goes_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    flags = ["--track", "mlflow", "--wandb-project-name", "mine", "-tags", "a"]
    stop_at(3, monkeypatch, command(file, *flags))
    main(command(file, *flags))
    client = mlflow.MlflowClient()
    (told,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert told.info.run_id == id_of(the_run(file), "mlflow") and told.info.status == "FINISHED"
    assert told.info.run_name == "bc/own_1" and told.data.tags["a"] == "true"
    assert told.data.params["algo"] == "bc" and told.data.params["n_timesteps"] == "6"
    history = client.get_metric_history(told.info.run_id, "train/actor_loss")
    assert [metric.step for metric in history] == [2, 3, 4, 6]


def test_nothing_is_told_without_the_flag_whatever_the_runs_files_say(file: Path, wandb: FakeWandb) -> None:
    main(command(file, "--track"))
    assert len(wandb.runs) == 1
    main(["train", "-i", str(the_run(file).model_path), "-n", "8", "--verbose", "0"])
    assert len(wandb.runs) == 1 and the_run(file).config()["hyperparameters"]["n_timesteps"] == 8


def test_a_tracking_makes_no_other_run_of_the_command(file: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(3, monkeypatch, command(file))
    main(command(file, "--track"))
    assert the_run(file).summary()["finished"] and len(wandb.runs) == 1


def test_flags_of_a_tracking_that_is_not_asked_for_are_refused(file: Path) -> None:
    with pytest.raises(SystemExit, match="are of a run that is tracked: add --track"):
        main(command(file, "-tags", "a"))


@pytest.mark.parametrize("service", ["wandb", "mlflow"])
def test_a_missing_package_is_named_before_anything_is_made(service: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, service, None)  # type: ignore[arg-type]
    with pytest.raises(SystemExit, match=rf'--track {service} needs its package .*pip install -e "\.\[{service}\]"'):
        main(command(file, "--track", service))
    assert not (file.parent / "logs").exists()


def test_a_folder_named_like_the_package_is_no_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(__file__=None))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="No module named 'wandb'"):
        Tracking()


def test_a_refusal_is_one_line_and_a_run_that_fails_is_ended_as_failed(file: Path, wandb: FakeWandb) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train("bc", file, profile="tiny", n_timesteps=2, eval_freq=0, verbose=0, log_folder=file.parent, tracking=Tracking(),
              callback=fails)  # fmt: skip
    assert wandb.runs[0]["exit_code"] == 1
    wandb.init = lambda **_: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(SystemExit, match=r"wandb can't be told of .*: division by zero"):
        main(command(file, "--track"))


def test_a_package_that_fails_otherwise_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise AttributeError("module 'numpy' has no attribute 'float_'")

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(UserError, match=r"--track wandb needs its package \(module 'numpy' has no attribute 'float_'\)"):
        Tracking()


def test_an_experiment_that_another_training_makes_meanwhile_is_taken() -> None:
    class Client:
        made = False

        def get_experiment_by_name(self, name: str) -> Any:
            return SimpleNamespace(experiment_id="7") if self.made else None

        def create_experiment(self, name: str) -> str:
            self.made = name == "ours"
            raise RuntimeError(f"{name} is there already, or a wrong name")

    assert tracking._experiment(Client(), "ours") == "7"
    with pytest.raises(RuntimeError, match="a wrong name"):
        tracking._experiment(Client(), "")


def test_a_run_is_ended_even_if_its_id_can_not_be_kept(file: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(tracking, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        main(command(file, "--track"))
    assert wandb.runs[0]["exit_code"] == 1


def test_an_id_that_is_none_is_refused(file: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(3, monkeypatch, command(file))
    (the_run(file).settings / "tracking.json").write_text('{"wandb": "../other"}')
    with pytest.raises(SystemExit, match=r"'\.\./other', which is no id of a run: delete the file"):
        main(command(file, "--track"))


def test_a_service_that_fails_ends_no_training(file: Path) -> None:
    def fail(numbers: Any, step: int) -> None:
        calls.append(step)
        raise ConnectionError("gone")

    calls: list[int] = []
    logger = Logger(None, [Tracker("mlflow", fail)])
    logger.record("train/loss", 1.0)
    with pytest.warns(UserWarning, match="mlflow is told no more of this run, which goes on: gone"):
        logger.dump(1)
    logger.record("train/loss", 2.0)
    logger.dump(2)
    assert calls == [1]


def test_numbers_alone_are_handed_over_and_none_that_is_excluded() -> None:
    sent: list[dict[str, float]] = []
    logger = Logger(None, [Tracker("wandb", lambda numbers, step: sent.append(dict(numbers)))])
    logger.record("loss", np.float32(1.5))
    logger.record("text", "words")
    logger.record("own", 1, exclude="wandb")
    logger.record("count", 2, exclude="tensorboard")
    logger.dump(1)
    assert sent == [{"loss": 1.5, "count": 2.0}]
