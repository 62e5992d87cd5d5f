"""What QDQ logs, what it warns of, and whether its uncertainty is judged right."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.logger import KVWriter, Logger
from torch import Tensor

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common import metrics as metrics_module
from sb3_genoffline.qdq import QDQ
from sb3_genoffline.qdq.diagnostics import detection_auc, share_above_quantile

MakeQdq = Callable[..., QDQ]
MakeData = Callable[..., OfflineDataset]
BONUS, BLIND = "instead of lowering", "no larger for random actions"
UNCERTAINTY_KEYS = {"data", "policy", "random", "auc", "above_q95"}


class Recorder(KVWriter):
    """Keeps what is logged, by step."""

    def __init__(self) -> None:
        self.written: dict[int, dict[str, Any]] = {}

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.written[step] = dict(key_values)

    def close(self) -> None:
        pass


def critics_start_at(model: QDQ, value: float) -> None:
    for critic in (model.critic, model.critic_target):
        critic.trunk[-1].bias.data.fill_(value)  # type: ignore[union-attr,operator]


def h_is(model: QDQ, h: Callable[[Tensor], Tensor]) -> None:
    """H is a function of the action, (B, A) -> (B,), and a little larger for some states, so that no two rows tie."""
    sampler = model.policy.q_sampler
    sampler.uncertainty = lambda states, actions, _: h(actions) + 1e-3 * states[:, 0].abs()  # type: ignore[method-assign]


def larger_outside(actions: Tensor) -> Tensor:
    """A perfect detector where the data's actions are below 0.1; H is a few units."""
    return 3.0 + 2.0 * actions.abs().sum(1)


def heard(model: QDQ, *runs: Callable[[QDQ], Any]) -> list[str]:
    """What the model warns of during the runs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for run in runs:
            run(model)
    return [str(warning.message) for warning in caught if BONUS in str(warning.message) or BLIND in str(warning.message)]


def train(data: OfflineDataset, n: int = 10, log_interval: int | None = 5, **kwargs: Any) -> Callable[[QDQ], Any]:
    return lambda model: model.learn_offline(data, n, log_interval=log_interval, reset_num_timesteps=False, **kwargs)


# ---------------------------------------------------------------------- judging a detector


@pytest.mark.parametrize("n_values", [3, 1000])
def test_the_auc_is_that_of_a_double_loop_with_ties_counted_half(n_values: int) -> None:
    generator = th.Generator().manual_seed(n_values)
    for n, m in ((1, 1), (7, 12), (30, 5)):
        inside, outside = (th.randint(n_values, (k,), generator=generator).float() for k in (n, m))
        wins = sum((o > i) + 0.5 * (o == i) for o in outside.tolist() for i in inside.tolist())
        assert detection_auc(inside, outside) == pytest.approx(wins / (n * m), abs=1e-12)


def test_the_auc_is_one_for_a_perfect_detector_and_half_for_a_constant() -> None:
    low, high = th.rand(20), 2.0 + th.rand(30)
    assert detection_auc(low, high) == 1.0 and detection_auc(high, low) == 0.0
    assert detection_auc(th.ones(20), th.ones(30)) == 0.5


def test_the_share_above_a_quantile_is_numpys() -> None:
    generator = th.Generator().manual_seed(0)
    inside, outside = th.rand(101, generator=generator), 1.2 * th.rand(57, generator=generator)
    for quantile in (0.95, 0.5):
        expected = np.mean(outside.numpy() > np.quantile(inside.numpy(), quantile))
        assert share_above_quantile(inside, outside, quantile) == pytest.approx(expected, abs=1e-12)
    assert 0.1 < share_above_quantile(inside, outside) < 0.3
    assert share_above_quantile(th.ones(20), th.ones(20)) == 0.0


def test_the_report_compares_the_datas_actions_with_the_policys_and_random_ones(
    make_qdq: MakeQdq, make_data: MakeData
) -> None:
    model = make_qdq()
    model.set_dataset(make_data(largest_action=0.1))
    h_is(model, lambda actions: actions.abs().mean(1))
    report = model.uncertainty_report(4000)
    assert report.keys() == UNCERTAINTY_KEYS
    assert report["data"] == pytest.approx(0.05, abs=0.01) and report["random"] == pytest.approx(0.5, abs=0.02)
    states = th.as_tensor(np.array(model.replay_buffer.dataset.observations), dtype=th.float32)  # type: ignore[union-attr]
    assert report["policy"] == pytest.approx(model.actor(states).abs().mean().item(), abs=0.02)
    assert report["auc"] > 0.99 and report["above_q95"] > 0.98
    assert report == model.uncertainty_report(4000) != model.uncertainty_report(4000, seed=1)


def test_the_report_of_the_real_sampler_is_that_of_its_samples(make_qdq: MakeQdq, make_data: MakeData) -> None:
    model = make_qdq()
    model.set_dataset(make_data())
    before = model.generator.get_state(), th.get_rng_state()
    h, report = model.uncertainty_samples(300, seed=4), model.uncertainty_report(300, seed=4)
    assert {name: values.mean().item() for name, values in h.items()} == {k: report[k] for k in ("data", "policy", "random")}
    assert report["auc"] == detection_auc(h["data"], h["random"]) and report["data"] > 0
    assert th.equal(before[0], model.generator.get_state()) and th.equal(before[1], th.get_rng_state())


def test_judging_needs_a_fitted_model_and_rows(make_qdq: MakeQdq, make_data: MakeData) -> None:
    model = make_qdq()
    with pytest.raises(ValueError, match="set_dataset"):
        model.uncertainty_report()
    model.policy.q_sampler.fitted.fill_(False)
    for judge in (model.uncertainty_report, lambda: model.uncertainty(np.zeros((1, 3)), np.zeros((1, 2)))):
        with pytest.raises(ValueError, match="not fitted"):
            judge()


# ---------------------------------------------------------------------- the log


@pytest.mark.parametrize("objective", ["q_bc", "awr"])
def test_everything_worth_watching_is_logged(make_qdq: MakeQdq, make_data: MakeData, objective: str) -> None:
    model, recorder = make_qdq(actor_objective=objective), Recorder()
    model.set_logger(Logger(None, [recorder]))
    critics_start_at(model, 50.0)
    h_is(model, larger_outside)
    model.learn_offline(make_data(largest_action=0.1), 10, log_interval=5)
    assert list(recorder.written) == [5, 10]
    uncertainty = {f"uncertainty/{name}" for name in UNCERTAINTY_KEYS}
    shares = ["uncertain_share", "small_h_share", "negative_q_share", "bonus_share"]
    penalty = ["h_mean", "h_min", "h_max", "h_threshold", "weight_mean", *shares]
    losses = ["critic_loss", "loss_h", "loss_l", "q_mean", "q_over_bound", "actor_loss", "log_prob", "actor_std"]
    of_objective = ["actor_q"] if objective == "q_bc" else ["awr_weight", "awr_saturated_share"]
    logged = recorder.written[10]
    expected = uncertainty | {f"train/{name}" for name in [*penalty, *losses, *of_objective, "n_updates"]}
    assert {key for key in logged if key.split("/")[0] in ("train", "uncertainty")} == expected
    assert 3.0 <= logged["train/h_min"] <= logged["train/h_mean"] <= logged["train/h_threshold"] <= logged["train/h_max"]
    assert (
        0.05 < logged["train/uncertain_share"] < 0.14
    )  # 2 of 16, or of the 12 that an epoch ends with, and fewer where H ties
    assert logged["train/n_updates"] == 10 and logged["uncertainty/auc"] > 0.99
    assert model.last_metrics["h_mean"] == logged["train/h_mean"]
    assert model.last_metrics["uncertainty/auc"] == logged["uncertainty/auc"]


def test_without_a_penalty_no_uncertainty_is_logged_or_needed(make_qdq: MakeQdq, make_data: MakeData) -> None:
    model, recorder = make_qdq(penalty="none"), Recorder()
    model.policy.q_sampler.fitted.fill_(False)
    model.set_logger(Logger(None, [recorder]))
    assert heard(model, train(make_data(reward=-1.0))) == []
    assert not [key for key in recorder.written[10] if key.startswith("uncertainty/") or "train/h_" in key]


@pytest.mark.parametrize("objective", ["q_bc", "awr"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_logging_changes_no_weight(make_qdq: MakeQdq, make_data: MakeData, objective: str) -> None:
    weights = []
    for log_interval in (None, 1, 4):
        model = make_qdq(learning_rate=1e-2, actor_objective=objective)
        train(make_data(), 9, log_interval)(model)
        weights.append(model.policy.state_dict())
    for other in weights[1:]:
        assert all(th.equal(value, other[name]) for name, value in weights[0].items())


# ---------------------------------------------------------------------- warnings: a bonus instead of a penalty


def test_a_bonus_is_told_once_with_its_share_and_the_floor_that_helps(make_qdq: MakeQdq, make_data: MakeData) -> None:
    model, data = make_qdq(), make_data(reward=-1.0, largest_action=0.1)
    critics_start_at(model, -50.0)
    h_is(model, larger_outside)
    (message,) = heard(model, train(data), train(data))
    share, negative, small = (float(number) for number in re.findall(r"([\d.]+)%", message))
    assert share == 100.0 and negative == 100.0 and small == 0.0
    assert "penalty='paper'" in message and "penalty='floor' with q_floor=-100 " in message


def test_a_bonus_from_small_uncertainties_is_told_too(make_qdq: MakeQdq, make_data: MakeData) -> None:
    model, data = make_qdq(penalty="antmaze_q"), make_data(reward=1.0, largest_action=0.1)
    critics_start_at(model, 50.0)
    h_is(model, lambda actions: larger_outside(actions) / 100)
    (message,) = heard(model, train(data))
    share, negative, small = (float(number) for number in re.findall(r"([\d.]+)%", message))
    assert share == pytest.approx(100 * 2 / 16, abs=3) and negative == 0.0 and small == 100.0
    assert "q_floor=0 " in message


def test_the_recommended_floor_follows_the_reward_transform_and_the_discount(make_qdq: MakeQdq, make_data: MakeData) -> None:
    model, data = make_qdq(gamma=0.9, reward_transform="antmaze"), make_data(reward=0.0, largest_action=0.1)
    critics_start_at(model, -5.0)
    h_is(model, larger_outside)
    (message,) = heard(model, train(data))
    assert f"q_floor={model.dataset_info['min_reward'] / 0.1:g} " in message and model.dataset_info["min_reward"] < 0


def test_a_floor_that_is_too_high_is_told_and_the_right_one_is_not(make_qdq: MakeQdq, make_data: MakeData) -> None:
    cases = [(-1.0, 0.0, -50.0, 1), (-1.0, -100.0, -50.0, 0), (-1.0, -100.0, -120.0, 0), (-1.0, -100.0, 50.0, 0)]
    cases.append((-0.1, -10.0, -12.0, 0))  # a reward that float32 rounds down
    for reward, q_floor, start, n_told in cases:
        model, data = make_qdq(penalty="floor", q_floor=q_floor), make_data(reward=reward, largest_action=0.1)
        critics_start_at(model, start)
        h_is(model, larger_outside)
        assert len(heard(model, train(data))) == n_told, (reward, q_floor, start)


def test_positive_values_and_uncertainties_above_one_are_no_bonus(make_qdq: MakeQdq, make_data: MakeData) -> None:
    for penalty in ("paper", "antmaze_q", "floor"):
        model = make_qdq(penalty=penalty)
        critics_start_at(model, 50.0)
        h_is(model, larger_outside)
        assert heard(model, train(make_data(largest_action=0.1)), train(make_data(largest_action=0.1))) == []


def test_negative_values_in_the_first_thousand_updates_of_a_longer_run_are_no_news(
    make_qdq: MakeQdq, make_data: MakeData
) -> None:
    model, data = make_qdq(), make_data(reward=-1.0, largest_action=0.1)
    critics_start_at(model, -50.0)
    h_is(model, larger_outside)

    def stopped(model: QDQ) -> None:
        model.learn_offline(data, 2000, lambda *_: model.num_timesteps < 17, log_interval=5)

    assert heard(model, stopped) == []
    model._n_updates = 1001
    assert len(heard(model, stopped)) == 1


def test_a_run_whose_last_metrics_are_read_inside_its_last_update_is_judged(
    make_qdq: MakeQdq, make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "METRICS_EVERY", 10)  # as it is for a run of 1000
    model, data = make_qdq(), make_data(reward=-1.0, largest_action=0.1)
    critics_start_at(model, -50.0)
    h_is(model, larger_outside)
    assert len(heard(model, train(data, 10, None))) == 1


# ---------------------------------------------------------------------- warnings: an uncertainty that tells nothing


@pytest.mark.parametrize("penalty", ["paper", "floor"])
def test_an_uncertainty_smaller_for_random_actions_is_told_once(make_qdq: MakeQdq, make_data: MakeData, penalty: str) -> None:
    model, data = make_qdq(penalty=penalty), make_data(largest_action=0.1)
    critics_start_at(model, 50.0)
    h_is(model, lambda actions: 9.0 - larger_outside(actions).clamp_max(7.0))
    (message,) = heard(model, train(data), train(data))
    assert BLIND in message and "AUC 0.0" in message


@pytest.mark.parametrize("h", [larger_outside, lambda actions: th.full_like(actions[:, 0], 3.0)], ids=["detector", "blind"])
def test_half_and_more_is_not_told(make_qdq: MakeQdq, make_data: MakeData, h: Callable[[Tensor], Tensor]) -> None:
    model = make_qdq()
    critics_start_at(model, 50.0)
    h_is(model, h)
    assert heard(model, train(make_data(largest_action=0.1))) == []
    assert model.last_metrics["uncertainty/auc"] >= 0.5
