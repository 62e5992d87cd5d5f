"""Each way in which the data do not carry an estimate is measured and said, with its number and what to do."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch as th
from problems import Linear, linear_data

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.ope import FQE
from sb3_genoffline.ope.acting import TargetPolicy
from sb3_genoffline.ope.behaviour import EpisodeValues
from sb3_genoffline.ope.doubts import Measured, doubts_of, far_share, measure
from sb3_genoffline.ope.fqe import Estimate
from sb3_genoffline.ope.report import Judgement, OfflineReport

DATA = EpisodeValues(np.array([1.0, 3.0]), np.zeros(2))
GOOD = Estimate(2.0, (1.5, 2.5), 0.9, 0.2, 0.02)
FINE = Measured(far=0.05, beyond=0.0, disagreement=1.0)


def narrow_data(n: int = 2_000) -> OfflineDataset:
    """a = −0.3 s + 0.2 ε"""
    data = linear_data(n)
    noise = np.random.default_rng(5).normal(0, 0.2, (n, 1))
    return data.replace(actions=(-0.3 * data.observations + noise).clip(-2, 2).astype(np.float32))


@pytest.mark.parametrize(
    ("gain", "noise", "low", "high"), [(-0.3, 0.2, 0.02, 0.09), (-0.3, 0.0, 0.0, 0.02), (0.6, 0.2, 0.5, 1.0)]
)
def test_the_policy_that_acted_is_far_as_often_as_its_log(gain: float, noise: float, low: float, high: float):
    data = narrow_data()
    fitted, judged = data.select_episodes(np.arange(25)), data.select_episodes(np.arange(25, 50))
    policy = TargetPolicy(Linear(gain, noise), data.action_space)
    assert low <= far_share(policy, fitted, judged.observations, judged.actions) <= high


def linear_fqe(data: OfflineDataset, **settings: Any) -> FQE:
    return FQE(Linear(0.6), data, **({"gamma": 0.5, "net_arch": (), "n_members": 2, "device": "cpu"} | settings))


def test_members_that_differ_in_their_slope_along_the_action_disagree_where_it_is_larger():
    """Q = ± a: at π(s) = 0.6 s the members are twice as far apart as at a = −0.3 s."""
    data = linear_data(400)
    data = data.replace(actions=(-0.3 * data.observations).clip(-1, 1).astype(np.float32))
    fqe = linear_fqe(data)
    first, *_ = fqe._fit.critic.parameters()
    for parameter in fqe._fit.critic.parameters():
        parameter.data.zero_()
    first.data.reshape(2, -1)[:, 1] = th.tensor([1.0, -1.0])
    found, states = measure(fqe, data), data.observations
    expected = np.abs(0.6 * states).clip(max=2).mean() / np.abs(0.3 * states).clip(max=1).mean()
    assert found.disagreement == pytest.approx(expected, rel=1e-4)
    assert np.isnan(measure(linear_fqe(data, n_members=1), data).disagreement)


def test_values_beyond_what_the_rewards_add_up_to_are_counted():
    data = linear_data(400)
    data = data.replace(rewards=np.where(np.arange(400) % 2, 1.0, -1.0).astype(np.float32))
    fqe = linear_fqe(data, n_members=1, clip_targets=False)
    assert fqe.attainable == (-2.0, 2.0)
    ended = linear_fqe(data.replace(rewards=np.ones(400, np.float32), terminations=data.truncations))
    assert ended.attainable == (0.0, 2.0)  # an end adds nothing
    for parameter in fqe._fit.critic.parameters():
        parameter.data.zero_()
    assert measure(fqe, data).beyond == 0.0
    parameter.data.fill_(1.5)  # the last one is the constant
    assert measure(fqe, data).beyond == 1.0


DOUBTS: list[tuple[dict[str, Any], str, str]] = [
    ({"measured": FINE._replace(far=0.43)}, "43% far from the data", "more data"),
    ({"measured": FINE._replace(beyond=0.2)}, "20% of values unattainable", "clip_targets"),
    ({"measured": FINE._replace(disagreement=3.24)}, "members differ 3.2 times", "lower end"),
    ({"clipped": 0.12}, "12% of targets clipped", "Don't read its value"),
    ({"value": replace(GOOD, value=3.5, interval=(1.0, 6.0))}, "above the best episode, 3", "not the number"),
    ({"drift": 0.3}, "still moved by 30%", "fit longer"),
    ({"wdr": 2.0, "ess": 3.2}, "WDR of 3.2 episodes", "More episodes"),
    ({"wdr": 9.0, "ess": 50.0}, "WDR says 9", "outside of FQE's interval"),
]


@pytest.mark.parametrize("n_updates", [0, 1, 2, 3, 19, 20])
def test_a_fit_without_a_last_tenth_is_doubted(n_updates: int):
    fqe = linear_fqe(linear_data(80)).fit(n_updates)
    short = n_updates < 20
    assert np.isnan(fqe.drift) == short
    doubts = doubts_of(GOOD, fqe.drift, 0.0, FINE, DATA)
    assert any(d.short == "too short a fit" and "fit longer (more updates)" in d.sentence for d in doubts) == short


@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0, -1.0])
def test_a_constant_reward_is_no_extrapolation(reward: float, recwarn: pytest.WarningsRecorder):
    """All policies are worth the same: targets are cut to it, and nothing is beyond it but by rounding."""
    data = linear_data(400).replace(rewards=np.full(400, reward, np.float32))
    fqe = linear_fqe(data, tau=0.5, learning_rate=2e-2).fit(60)
    assert fqe.attainable[0] == fqe.attainable[1]
    assert fqe.monitor.latest["fqe/clipped"] == 0.0 and measure(fqe, data).beyond == 0.0
    assert not [warning for warning in recwarn if "attainable" in str(warning.message)]
    fqe._fit.critic.output_layer.bias.data += 100.0 * max(1.0, abs(reward))
    assert measure(fqe, data).beyond == 1.0


def test_what_exceeds_the_best_episode_by_rounding_is_no_doubt():
    assert doubts_of(replace(GOOD, value=3.0 + 1e-12), 0.05, 0.0, FINE, DATA) == []


@pytest.mark.parametrize(("changes", "short", "advice"), DOUBTS, ids=[short for _, short, _ in DOUBTS])
def test_a_doubt_says_its_number_and_what_to_do(changes: dict[str, Any], short: str, advice: str):
    settings: dict[str, Any] = {"value": GOOD, "drift": 0.05, "clipped": 0.0, "measured": FINE, "data": DATA}
    assert doubts_of(**settings, wdr=2.2, ess=50.0) == [] == doubts_of(**settings)
    (doubt,) = doubts_of(**(settings | changes))
    number = short.split()[-1] if short.startswith("above") else next(word for word in short.split() if word[0].isdigit())
    assert doubt.short == short and number in doubt.sentence and advice in doubt.sentence


def judged(value: float, wdr: float) -> Judgement:
    return Judgement(replace(GOOD, value=value), 0.0, 0.0, 0.0, FINE, wdr, 50.0)


def test_estimators_that_rank_otherwise_are_a_doubt_of_the_whole_report():
    opposed = OfflineReport({"a": judged(1, 3), "b": judged(2, 2), "c": judged(3, 1)}, DATA, 0.9)
    assert opposed.agreement == pytest.approx(-1) and "alike by -1.00 only" in opposed.warnings[0]
    assert opposed.warnings[0] in opposed.table() and opposed.as_dict()["warnings"] == opposed.warnings
    alike = OfflineReport({"a": judged(1, 1), "b": judged(2, 2), "c": judged(3, 3)}, DATA, 0.9)
    assert alike.agreement == pytest.approx(1) and alike.warnings == []
    two = OfflineReport({"a": judged(1, 3), "b": judged(2, 2)}, DATA, 0.9)
    assert two.warnings == []  # two are in one order or the other by chance


def test_the_report_says_what_was_logged_and_what_follows():
    cut = EpisodeValues(np.array([1.0, 3.0]), np.array([0.5, 0.0]))
    report = OfflineReport({"a": judged(2, 2)}, cut, 0.9)
    assert report.data_value == 2.25 and "2.25  (2 was logged" in report.table()
    assert report.as_dict()["data_logged"] == 2.0
    assert "was logged" not in OfflineReport({"a": judged(2, 2)}, DATA, 0.9).table()
