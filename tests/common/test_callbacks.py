"""SB3's callbacks, logger and progress bar inside ``learn_offline``, where ``num_timesteps`` counts gradient steps."""

import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from worlds import ACTION_SPACE, EXAMPLES, EXPECTED_WARNINGS, KINDS, OBSERVATION_SPACE, PointEnv, make_agent, of_each_kind

from sb3_genoffline import ALGOS, OfflineDataset
from sb3_genoffline.common.callbacks import OfflineEvalCallback
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.errors import UserError

MakeAgent = Callable[..., OfflineAlgorithm]
every_algorithm = pytest.mark.parametrize("algo", sorted(ALGOS))


@pytest.fixture(params=EXAMPLES)
def algo(request: pytest.FixtureRequest) -> str:
    """What most tests here ask about is code that the algorithms share."""
    return request.param


class Counting(BaseCallback):
    """Notes ``num_timesteps`` at each call and stops at ``stop_at``."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at
        self.steps: list[int] = []
        self.events: list[str] = []

    def _on_training_start(self) -> None:
        self.events.append("start")

    def _on_step(self) -> bool:
        self.steps.append(self.num_timesteps)
        return self.num_timesteps != self.stop_at

    def _on_training_end(self) -> None:
        self.events.append("end")


def test_callbacks_fire_after_each_gradient_step(agent: MakeAgent, dataset: OfflineDataset) -> None:
    counting, called = Counting(), []
    model = agent().learn_offline(dataset, 4, callback=[counting, EveryNTimesteps(1, Counting())])
    model.learn_offline(dataset, 2, callback=lambda local, _: called.append(local["self"].num_timesteps) or True)
    assert counting.steps == [1, 2, 3, 4] and counting.events == ["start", "end"]
    assert called == [1, 2]
    model.learn_offline(dataset, 1, callback=lambda *_: called.append(7) or True, progress_bar=True)
    assert called == [1, 2, 7]


def test_counting_goes_on_or_starts_anew(agent: MakeAgent, dataset: OfflineDataset) -> None:
    model, counting = agent().learn_offline(dataset, 3), Counting()
    model.learn_offline(dataset, 2, callback=counting, reset_num_timesteps=False)
    assert counting.steps == [4, 5] and model.num_timesteps == 5
    model.learn_offline(dataset, 2)
    assert model.num_timesteps == 2 and model._n_updates == 7


def test_a_callback_that_returns_false_stops_the_training(agent: MakeAgent, dataset: OfflineDataset) -> None:
    counting = Counting(stop_at=3)
    model = agent().learn_offline(dataset, 10, callback=counting)
    assert model.num_timesteps == 3 and counting.events == ["start", "end"]


def test_no_gradient_steps_change_nothing_and_a_negative_number_is_refused(agent: MakeAgent, dataset: OfflineDataset) -> None:
    model = agent()
    before = {name: parameter.clone() for name, parameter in model.policy.named_parameters()}
    model.learn_offline(dataset, 0)
    assert all(th.equal(before[name], parameter) for name, parameter in model.policy.named_parameters())
    with pytest.raises(ValueError, match="gradient_steps=-1"):
        model.learn_offline(dataset, -1)
    with pytest.raises(UserError, match=r"log_interval='x' must be a whole number"):
        model.learn_offline(dataset, 1, log_interval="x")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"log_interval=1\.5 must be a whole number"):
        model.pretrain(dataset, log_interval=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("built_from", ["env", "spaces"])
def test_eval_callback_writes_its_files_with_and_without_an_environment_of_the_agent(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path, built_from: str
) -> None:
    env: Any = PointEnv() if built_from == "env" else (OBSERVATION_SPACE, ACTION_SPACE)
    callback = EvalCallback(
        Monitor(PointEnv()),
        n_eval_episodes=2,
        eval_freq=4,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    model = agent(env=env).learn_offline(dataset, 9, callback=callback)
    evaluations = np.load(tmp_path / "evaluations.npz")
    np.testing.assert_array_equal(evaluations["timesteps"], [4, 8])
    assert evaluations["results"].shape == (2, 2) and (evaluations["ep_lengths"] == 5).all()
    best = type(model).load(tmp_path / "best_model.zip")
    assert best.num_timesteps in (4, 8)


def test_training_stops_when_the_reward_threshold_is_reached(agent: MakeAgent, dataset: OfflineDataset) -> None:
    stop = StopTrainingOnRewardThreshold(-1e9)
    callback = EvalCallback(Monitor(PointEnv()), callback_on_new_best=stop, n_eval_episodes=1, eval_freq=3, verbose=0)
    assert agent().learn_offline(dataset, 10, callback=callback).num_timesteps == 3


def test_every_n_timesteps_counts_gradient_steps(agent: MakeAgent, dataset: OfflineDataset) -> None:
    counting = Counting()
    agent().learn_offline(dataset, 10, callback=EveryNTimesteps(4, counting))
    assert counting.steps == [4, 8]


def test_checkpoints_are_written_at_their_steps_and_load(agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path) -> None:
    model = agent().learn_offline(dataset, 7, callback=CheckpointCallback(3, str(tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rl_model_3_steps.zip", "rl_model_6_steps.zip"]
    assert type(model).load(tmp_path / "rl_model_6_steps").num_timesteps == 6


def test_the_normalised_score_is_logged_and_every_evaluation_has_the_same_starts(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path, csv_log: Any
) -> None:
    starts: list[Any] = []

    class Recording(PointEnv):
        def reset(self, **kwargs: Any) -> Any:
            observation, info = super().reset(**kwargs)
            starts.append(observation.tolist())
            return observation, info

    callback = OfflineEvalCallback(
        make_vec_env(Recording, 2),
        score_range=(-10.0, 30.0),
        n_eval_episodes=2,
        eval_freq=2,
        log_path=str(tmp_path),
        verbose=0,
    )
    model = agent()
    csv_log(model, tmp_path)
    model.learn_offline(dataset, 4, callback=callback)
    results = np.load(tmp_path / "evaluations.npz")["results"]
    assert callback.last_normalized_score == pytest.approx(100 * (results[-1].mean() + 10) / 40)
    scores = [row["eval/normalized_score"] for row in rows(tmp_path) if row["eval/normalized_score"]]
    assert float(scores[-1]) == pytest.approx(callback.last_normalized_score, rel=1e-4)
    half = len(starts) // 2
    assert half >= 2 and starts[:half] == starts[half:]


# ---------------------------------------------------------------------- logging


def rows(folder: Path) -> list[dict[str, str]]:
    """Lines of the log that are about the policy's training."""
    with (folder / "progress.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["time/total_timesteps"]]


@of_each_kind
def test_the_logger_gets_losses_and_counts_at_its_interval(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path, csv_log: Any
) -> None:
    model = agent()
    csv_log(model, tmp_path)
    model.learn_offline(dataset, 5, log_interval=2)
    written = rows(tmp_path)
    assert [row["time/total_timesteps"] for row in written] == ["2", "4", "5"]
    assert [row["train/n_updates"] for row in written] == ["2", "4", "5"]
    assert {"time/fps", "time/time_elapsed"} <= written[0].keys()
    losses = [key for key in written[0] if key.startswith("train/") and key.endswith("loss")]
    assert losses and all(np.isfinite(float(row[key])) for row in written for key in losses)


def test_logged_losses_are_means_since_the_last_dump(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path, csv_log: Any
) -> None:
    model, seen = agent(), []
    update = model.update
    model.update = lambda *given: seen.append(update(*given)) or seen[-1]  # type: ignore[method-assign]
    csv_log(model, tmp_path)
    model.learn_offline(dataset, 6, log_interval=3)
    for row, part in zip(rows(tmp_path), (seen[:3], seen[3:]), strict=True):
        for key in {key for metrics in part for key in metrics}:  # a delayed actor's are not in every update
            expected = np.mean([metrics[key].item() for metrics in part if key in metrics])
            assert float(row[f"train/{key}"]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_nothing_is_dumped_without_a_log_interval(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path, csv_log: Any
) -> None:
    model = agent()
    csv_log(model, tmp_path)
    model.learn_offline(dataset, 5, log_interval=None)
    assert (tmp_path / "progress.csv").read_text() == ""
    assert model.last_metrics  # and yet the losses were looked at


def test_tensorboard_gets_a_folder_per_run(agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = agent(tensorboard_log=str(tmp_path))
    model.learn_offline(dataset, 4, log_interval=2)
    model.learn_offline(dataset, 2, log_interval=2, reset_num_timesteps=False)
    model.learn_offline(dataset, 2, log_interval=2, tb_log_name="other")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{type(model).__name__}_1", "other_1"])
    accumulator = event_accumulator.EventAccumulator(str(tmp_path / f"{type(model).__name__}_1"))
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    assert "time/fps" in tags and any(tag.startswith("train/") for tag in tags)
    # sorted: the two files of a run are read in the order of their names, and these end in a counter without leading zeros
    assert sorted(event.step for event in accumulator.Scalars("time/fps")) == [2, 4, 6]


def test_the_progress_bar_writes_little_where_there_is_no_terminal(
    agent: MakeAgent, dataset: OfflineDataset, capfd: pytest.CaptureFixture[str]
) -> None:
    model = agent().learn_offline(dataset, 60, progress_bar=True, callback=Counting())
    output = capfd.readouterr()
    assert model.num_timesteps == 60
    assert "60/60" in output.err and len(output.err) < 1000 and output.out == ""


def test_a_silent_agent_prints_nothing(agent: MakeAgent, dataset: OfflineDataset, capfd: pytest.CaptureFixture[str]) -> None:
    agent(env=PointEnv()).learn_offline(dataset, 4, log_interval=2)
    output = capfd.readouterr()
    assert output.out == "" and output.err == ""


# ---------------------------------------------------------------------- divergence


@pytest.mark.parametrize("algo", [*KINDS, "cped"])  # which leaves such steps out
def test_a_loss_that_is_not_a_number_ends_the_training_with_a_message(agent: MakeAgent, dataset: OfflineDataset) -> None:
    model = agent().learn_offline(dataset, 2)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"train/\w+ became nan .* Lower the learning rates"):
        model.learn_offline(dataset, 3, log_interval=None)


def test_divergence_is_noticed_within_a_thousand_updates_of_a_long_run(agent: MakeAgent, dataset: OfflineDataset) -> None:
    model = agent().learn_offline(dataset, 2)
    nan = {key: th.tensor(float("nan")) for key in model.last_metrics if key != "q_over_bound"}
    model.update = lambda batch, noise: nan  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError):
        model.learn_offline(dataset, 100_000, log_interval=None)
    assert model.num_timesteps < 1000


@every_algorithm
def test_values_beyond_what_is_attainable_are_logged_and_warned_of_once(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path, csv_log: Any
) -> None:
    model = agent(gamma=0.9)
    csv_log(model, tmp_path)
    model.set_dataset(dataset)
    scaled = (dataset.rewards - dataset.rewards.mean()) / dataset.rewards.std()
    assert model.dataset_info["max_abs_reward"] == pytest.approx(np.abs(scaled).max(), rel=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", EXPECTED_WARNINGS)
        model.learn_offline(dataset, 2, log_interval=2)
    if "q_mean" not in model.last_metrics:
        assert not hasattr(model, "critic"), "an algorithm with critics must log q_mean, or over-estimation goes unnoticed"
        pytest.skip("the algorithm learns no Q")
    model.dataset_info["max_abs_reward"] = 1e-10  # an attainable return of 1e-9
    with pytest.warns(UserWarning, match="over-estimate") as caught:
        model.learn_offline(dataset, 4, log_interval=2, reset_num_timesteps=False)
    assert len([w for w in caught if "over-estimate" in str(w.message)]) == 1
    message = str(caught[0].message)
    assert len(message.split("over-estimate.")[1].strip()) > 20  # what helps
    last = rows(tmp_path)[-1]
    assert all(np.isfinite(float(value)) for key, value in last.items() if key.endswith("loss") and value)
    assert float(last["train/q_over_bound"]) == pytest.approx(float(last["train/q_mean"]) / 1e-9, rel=1e-3)


@of_each_kind
def test_updates_beyond_the_decay_of_the_learning_rate_are_warned_of_once(agent: MakeAgent, dataset: OfflineDataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", EXPECTED_WARNINGS)
        model = agent(lr_decay_steps=3).learn_offline(dataset, 3)
    with pytest.warns(UserWarning, match=r"decayed to 0 \(lr_decay_steps=3\)") as caught:
        model.learn_offline(dataset, 4)
    assert len([w for w in caught if "decayed to 0" in str(w.message)]) == 1
    model.lr_decay_steps = None
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn_offline(dataset, 1)
    assert any((old != new).any() for old, new in zip(before, model.policy.parameters(), strict=True))


@pytest.mark.parametrize("algo", ["bear", "uwac"])
def test_a_training_that_ends_within_the_warm_up_is_warned_of_once(algo: str, dataset: OfflineDataset) -> None:
    with pytest.warns(UserWarning, match=r"ends after 4 updates, within a warm-up of 4 \(warmup_steps\)") as caught:
        model = make_agent(algo, warmup_steps=4).learn_offline(dataset, 4, log_interval=2)
    assert len([w for w in caught if "warm-up" in str(w.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", EXPECTED_WARNINGS.replace("|This training ends after", ""))
        model.learn_offline(dataset, 1, reset_num_timesteps=False)
        make_agent(algo, warmup_steps=3).learn_offline(dataset, 4)
