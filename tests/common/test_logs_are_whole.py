"""Short runs and the last part of each are logged, and what a run opened is closed however it ends."""

import csv
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_genoffline.common.fitting import Fit, FitListener
from sb3_genoffline.registry import ALGOS
from sb3_genoffline.testing import ACTION_SPACE, OBSERVATION_SPACE, PointEnv, point_dataset


def make(algo: str, env: Any = (OBSERVATION_SPACE, ACTION_SPACE), **changes: Any) -> Any:
    small = {"policy_kwargs": {"net_arch": [8, 8]}, "batch_size": 16, "seed": 0, "device": "cpu"}
    return ALGOS[algo]("MlpPolicy", env, **(small | changes))


def logged(path: Path) -> list[dict[str, str]]:
    with open(path / "progress.csv") as file:
        return list(csv.DictReader(file))


def with_csv(model: Any, path: Path) -> Any:
    model.set_logger(configure(str(path), ["csv"]))
    return model


def close(model: Any) -> None:
    model.logger.close()


@pytest.mark.parametrize(("updates", "steps"), [(7, ["7"]), (20, ["10", "20"]), (25, ["10", "20", "25"])])
def test_the_last_part_is_logged(updates: int, steps: list[str], tmp_path: Path) -> None:
    model = with_csv(make("td3_bc"), tmp_path).learn_offline(point_dataset(), updates, log_interval=10)
    close(model)
    rows = logged(tmp_path)
    assert [row["time/total_timesteps"] for row in rows] == steps
    assert [row["train/n_updates"] for row in rows] == steps and all(row["train/critic_loss"] for row in rows)


@pytest.mark.parametrize("log_interval", [None, 0, -1])
def test_nothing_is_logged_if_so_asked(log_interval: int | None, tmp_path: Path) -> None:
    close(with_csv(make("td3_bc"), tmp_path).learn_offline(point_dataset(), 7, log_interval=log_interval))
    assert logged(tmp_path) == []


class Stop(BaseCallback, FitListener):
    """Ends a fit after its third step."""

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        return fit.step < 3

    def _on_step(self) -> bool:
        return self.num_timesteps < 3


def test_a_fit_and_a_training_that_a_callback_ends_are_logged(tmp_path: Path) -> None:
    model = with_csv(make("spot", vae_steps=9), tmp_path / "fit").learn_offline(point_dataset(), 9, Stop())
    close(model)
    assert [row["vae/n_steps"] for row in logged(tmp_path / "fit")] == ["3"] and model._n_updates == 0
    close(with_csv(make("td3_bc"), tmp_path / "training").learn_offline(point_dataset(), 9, Stop()))
    assert [row["train/n_updates"] for row in logged(tmp_path / "training")] == ["3"]


def test_the_last_part_of_an_online_training_is_logged(tmp_path: Path) -> None:
    model = with_csv(make("td3_bc", PointEnv()), tmp_path).learn_offline(point_dataset(), 1, log_interval=None)
    model.logger.name_to_value.clear()
    model.learn(7)  # an episode of 5 steps and a part of one; SB3 logs every fourth episode
    close(model)
    assert [row["time/total_timesteps"] for row in logged(tmp_path)] == ["7"]


class Fail(BaseCallback):
    def _on_step(self) -> bool:
        raise RuntimeError("enough")


@pytest.mark.parametrize("fails", [True, False])
def test_a_run_closes_the_logs_that_it_opened_and_they_can_be_written_to_later(fails: bool, tmp_path: Path) -> None:
    model = make("td3_bc", tensorboard_log=str(tmp_path))
    if fails:
        with pytest.raises(RuntimeError, match="enough"):
            model.learn_offline(point_dataset(), 3, Fail())
    else:
        model.learn_offline(point_dataset(), 3)
    assert model.logger.output_formats[0].writer.file_writer is None  # closed
    model.logger.record("own/number", 1.0)
    model.logger.dump(4)
    model.logger.close()
    events = EventAccumulator(str(next(tmp_path.iterdir())))
    events.Reload()
    assert "own/number" in events.Tags()["scalars"]
    assert ("train/critic_loss" in events.Tags()["scalars"]) is not fails
