"""Several policies judged together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from problems import Linear, linear_data

from sb3_genoffline import UserError
from sb3_genoffline.ope import FQE, OfflineReport, evaluate_offline, weighting
from sb3_genoffline.ope.kept_fits import kept_fit
from sb3_genoffline.ope.report import split_episodes

SETTINGS: dict[str, Any] = {"gradient_steps": 150, "gamma": 0.5, "tau": 0.5, "net_arch": (), "learning_rate": 2e-2}


@pytest.fixture(scope="module")
def report() -> OfflineReport:
    """From s = 1 on, the larger the gain, the better."""
    policies = {str(gain): Linear(gain) for gain in (-0.5, 0.5, 0.0)}
    flows = {"n_steps": 2, "net_arch": (4,), "device": "cpu"}
    starts = np.ones((3, 1), np.float32)
    return evaluate_offline(
        policies,
        linear_data(800),
        estimators=("fqe", "wdr"),
        weighting=flows,
        initial_observations=starts,
        device="cpu",
        **SETTINGS,
    )


def test_policies_are_ranked(report: OfflineReport):
    assert report.best() == "0.5"
    truth = {"-0.5": -0.5, "0.0": 0.0, "0.5": 0.5}
    assert report.rank_correlation(truth) == pytest.approx(1)
    assert report.regret(truth) == 0
    assert report.absolute_error(report.values()) == 0
    lines = report.table().splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["0.5", "0.0", "-0.5"] and lines[4].startswith("the data")
    assert json.loads(json.dumps(report.as_dict()))["policies"].keys() == {"0.5", "0.0", "-0.5"}


def test_what_is_not_finite_is_none_in_json():
    one = evaluate_offline(Linear(), linear_data(80), device="cpu", n_members=1, **(SETTINGS | {"gradient_steps": 1}))
    judged = one.judgements["policy"]
    assert np.isnan([judged.drift, judged.fqe.spread, *judged.fqe.interval]).all()
    found = json.loads(json.dumps(one.as_dict(), allow_nan=False))["policies"]["policy"]
    assert found["drift"] is found["spread"] is None and found["interval"] == [None, None]
    assert found["value"] == judged.fqe.value


def test_columns_of_what_was_not_asked_for_are_left_out(report: OfflineReport):
    one = evaluate_offline(Linear(), linear_data(80), device="cpu", **(SETTINGS | {"gradient_steps": 1}))
    assert one.table().splitlines()[0].split() == ["policy", "value", "90%", "interval", "TD", "error"]
    assert report.table().splitlines()[0].split()[-4:] == ["WDR", "ESS", "TD", "error"]


def test_few_effective_episodes_are_a_doubt(report: OfflineReport):
    for judgement in report.judgements.values():
        assert judgement.ess is not None and judgement.ess <= 4
        assert any("WDR rests on" in warning for warning in judgement.warnings)


def test_the_density_of_behaviour_is_fitted_once_for_all_policies(monkeypatch: pytest.MonkeyPatch):
    fits: list[int] = []
    fit = weighting.fit_behaviour
    monkeypatch.setattr(weighting, "fit_behaviour", lambda *a: fits.append(1) or fit(*a))
    settings = {"n_steps": 2, "net_arch": (4,), "n_folds": 2, "device": "cpu"}
    options = SETTINGS | {"gradient_steps": 1, "held_out": 0.5, "estimators": ("fqe", "wdr"), "device": "cpu"}
    policies = {"a": Linear(0.5), "b": Linear(-0.5)}
    both = evaluate_offline(policies, linear_data(160), weighting=settings, **options)
    assert len(fits) == 2
    alone = evaluate_offline({"b": policies["b"]}, linear_data(160), weighting=settings, **options)
    assert both.judgements["b"].wdr == pytest.approx(alone.judgements["b"].wdr)


def test_a_truth_that_is_missing_is_named(report: OfflineReport):
    with pytest.raises(UserError, match=r"The truth of '0\.5' is missing"):
        report.regret({"-0.5": 1.0, "0.0": 1.0})


@pytest.mark.parametrize(
    ("policies", "settings", "message"),
    [
        ({}, {}, "There is no policy to judge"),
        (Linear(), {"estimators": ("fqe", "is")}, "estimators='is' is not known"),
    ],
)
def test_what_can_not_be_judged_is_refused(policies: Any, settings: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        evaluate_offline(policies, linear_data(80), **settings)


def test_agents_of_different_discounts_are_refused():
    first, second = Linear(), Linear()
    first.gamma, second.gamma = 0.9, 0.99  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="The agents have different discounts"):
        evaluate_offline({"a": first, "b": second}, linear_data(80))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_parts_share_no_episode_and_miss_none(share: float):
    data = linear_data(400)
    first, second = split_episodes(data, share)
    assert first.n_episodes + second.n_episodes == 10 and min(first.n_episodes, second.n_episodes) >= 1
    assert not {*first.rewards.tolist()} & {*second.rewards.tolist()}


def test_a_single_episode_can_not_be_split():
    with pytest.raises(UserError, match="a single episode"):
        split_episodes(linear_data(40), 0.2)


ODD: dict[str, list[Any]] = {
    "gamma": ["x", [], 1.0, float("nan")],
    "gradient_steps": [-1, None, 1.5, float("inf"), "x"],
    "held_out": [-0.1, 0, 0.0, 1, 2, None],
    "level": [0, 1, float("nan"), "x"],
    "weighting": ["x", {"n_fold": 2}, {3: 2}, {"clip": (2.0, -6.0)}, {"kernel_width": 0.0}, {"gamma": 0.5}, {"seed": 1}],
    "policy": [3],
    "batch_size": [0, 2.0],
    "learning_rate": [float("nan"), -1, "x"],
    "clip_targets": ["no"],
    "cache_actions": ["never"],
    "initial_observations": ["x", [[float("nan")]]],
    "n_member": [3],
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_argument_is_refused_by_name(name: str):
    for value in ODD[name]:
        with pytest.raises(UserError, match=rf"\b({name}|clip|kernel_width)\b"):
            evaluate_offline(Linear(), linear_data(80), **{"gradient_steps": 0, "estimators": ("fqe", "wdr"), name: value})


def test_arguments_that_are_handed_on_are_checked_whether_they_are_used_or_not():
    for name, message in {
        "nope": "'nope' in weighting",
        "deterministic": "judge one policy",
        "policy": "given the policy",
    }.items():
        with pytest.raises(UserError, match=message):
            evaluate_offline(Linear(), linear_data(80), gradient_steps=0, weighting={name: 1})


def test_all_estimators_judge_the_same_policy():
    """Noise only where it is asked for: its density is then a mixture, and FQE has several actions in a state."""

    class Either(Linear):
        def predict(self, observations: Any, deterministic: bool = False) -> tuple[np.ndarray, None]:
            asked.add(deterministic)
            return super().predict(observations)

    settings = {"gradient_steps": 1, "estimators": ("fqe", "wdr"), "held_out": 0.5, "net_arch": (4,), "device": "cpu"}
    flows = {"n_steps": 1, "net_arch": (4,), "device": "cpu"}
    for deterministic in (True, False):
        asked: set[bool] = set()
        evaluate_offline(Either(), linear_data(160), gamma=0.5, deterministic=deterministic, weighting=flows, **settings)
        assert asked == {deterministic}


def test_names_that_are_equal_as_text_are_refused(report: OfflineReport):
    with pytest.raises(UserError, match=r"policies has the names 1 and '1', equal as text"):
        evaluate_offline({1: Linear(), "1": Linear(0.5)}, linear_data(80))
    with pytest.raises(UserError, match=r"truth has the names 0\.5 and '0\.5', equal as text"):
        report.regret({"-0.5": 1.0, "0.0": 1.0, 0.5: 1.0, "0.5": 2.0})
    assert report.regret({-0.5: -0.5, 0.0: 0.0, 0.5: 0.5}) == 0


@pytest.mark.parametrize(
    "truth", [None, [1, 2], {"-0.5": "x", "0.0": 1, "0.5": 1}, {"-0.5": float("nan"), "0.0": 1, "0.5": 1}]
)
def test_a_truth_is_a_finite_number_for_each_name(report: OfflineReport, truth: Any):
    with pytest.raises(UserError, match=r"truth"):
        report.regret(truth)


def test_judging_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Killed in the middle of the second fit, the same call makes the updates that are missing, and no others."""
    options = SETTINGS | {"gradient_steps": 30, "device": "cpu"}
    judged = {"a/b": Linear(0.5), "c" * 300: Linear(-0.5)}
    whole = evaluate_offline(judged, linear_data(80), **options)
    save, saves = FQE.save, list[int]()

    def killed_after(most: int) -> None:
        def saving(fqe: FQE, path: Any) -> None:
            save(fqe, path)
            saves.append(fqe.n_updates)
            if len(saves) == most:
                raise KeyboardInterrupt

        monkeypatch.setattr(FQE, "save", saving)

    killed_after(15)
    with pytest.raises(KeyboardInterrupt):
        evaluate_offline(judged, linear_data(80), fits=tmp_path / "fits", **options)
    assert saves[-2:] == [9, 12]
    killed_after(0)
    again = evaluate_offline(judged, linear_data(80), fits=tmp_path / "fits", **options)
    assert saves[15:17] == [15, 18] and again.as_dict() == whole.as_dict()
    assert len({*(tmp_path / "fits").iterdir()}) == 2 and all(kept_fit(tmp_path / "fits", name).is_file() for name in judged)


def test_fits_of_something_else_are_refused(tmp_path: Path):
    options = SETTINGS | {"gradient_steps": 4, "device": "cpu", "fits": tmp_path}
    evaluate_offline({"a": Linear(0.5)}, linear_data(80), **options)
    with pytest.raises(UserError, match="was fitted for another policy"):
        evaluate_offline({"a": Linear(-0.5)}, linear_data(80), **options)
    with pytest.raises(UserError, match="holds a fit of 4 updates, more than the 3 asked for"):
        evaluate_offline({"a": Linear(0.5)}, linear_data(80), **(options | {"gradient_steps": 3}))
    longer = evaluate_offline({"a": Linear(0.5)}, linear_data(80), **(options | {"gradient_steps": 6}))
    assert longer.judgements["a"].fqe.value != 0
