"""How good the judge was: agents in the simulator, DOPE's figures, and the record that the page tells."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from worlds import PointEnv, make_agent

import sb3_genoffline.ope
from sb3_genoffline.ope.behaviour import EpisodeValues
from sb3_genoffline.ope.doubts import Measured
from sb3_genoffline.ope.fqe import Estimate
from sb3_genoffline.ope.report import Judgement, OfflineReport
from zoo.judge import record
from zoo.judge.truth import Truth, chance, compared, figures_of, play, table, truth_of
from zoo.runs.writing import finite, write_json

PAGE = Path(sb3_genoffline.ope.__file__).parent / "README.md"
GAMMA = 0.9


class Counting(gym.Wrapper):
    """The reward is the number of the step, and every second episode terminates early."""

    def reset(self, *, seed: int | None = None, **_: Any) -> Any:
        self.seed, self.step_number = seed, 0
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.step_number += 1
        seen, _, _, _, info = super().step(action)
        return seen, float(self.step_number), self.step_number == 2 and self.seed % 2 == 0, False, info


@pytest.mark.parametrize("at_once", [50, 2])
def test_an_agent_is_played_to_the_end_of_each_episode(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.judge.truth._MOST_AT_ONCE", at_once)
    found = play(make_agent("bc"), lambda **_: TimeLimit(Counting(PointEnv()), 4), 3, GAMMA, seed=2)  # of seeds 2, 3 and 4
    short, long = 1 + 0.9 * 2, 1 + 0.9 * 2 + 0.81 * 3 + 0.729 * 4
    assert found.value == pytest.approx((2 * short + long) / 3) and found.mean_return == pytest.approx((3 + 10 + 3) / 3)
    assert found.left == pytest.approx(0.9**4 / 3)
    assert found.error == pytest.approx(np.std([short, long, short], ddof=1) / np.sqrt(3))


def judged(value: float, low: float, high: float, wdr: float) -> Judgement:
    estimate = Estimate(value, (low, high), 0.9, 0.1, 0.1)
    return Judgement(estimate, 0.0, 0.0, 0.0, Measured(0.05, 0.0, 1.0), wdr, 50.0)


@pytest.fixture
def report() -> OfflineReport:
    values = {"a": judged(3, 2, 4, 1), "b": judged(2, 1, 3, 2), "c": judged(1, 0, 2, 3), "d": judged(0, -1, 1, 0)}
    return OfflineReport(values, EpisodeValues(np.ones(2), np.zeros(2)), GAMMA)


TRUTH = {"a": Truth(2.5, 0, 9, 0), "b": Truth(4.0, 0, 9, 0), "c": Truth(1.0, 0, 9, 0), "d": Truth(0.0, 0, 9, 0.03)}


def test_the_figures_are_dopes(report: OfflineReport) -> None:
    found = compared(report, TRUTH, {"critic": {"a": 1.0, "b": 5.0}})
    fqe = found["figures"]["fqe"]
    assert fqe["rank_correlation"] == pytest.approx(0.8)  # 1 − 6·2/60
    assert fqe["regret_at_1"] == pytest.approx(1.5 / 4) and fqe["regret_at_3"] == 0
    assert fqe["absolute_error"] == pytest.approx((0.5 + 2.0 + 0 + 0) / 4)
    assert fqe["absolute_error_dope"] == pytest.approx((0.5 + 2.0) / 4 / 4)
    assert found["figures"]["wdr"]["regret_at_1"] == pytest.approx(3 / 4)
    assert found["figures"]["critic"]["policies"] == 2 and found["figures"]["critic"]["regret_at_1"] == 0
    assert found["intervals_that_hold"] == 0.75
    text = table(found)
    assert "75% of FQE's intervals" in text and "up to 3% of the weight is left" in text
    assert json.loads(json.dumps(found)) == found


def test_policies_that_are_all_worth_the_same_have_figures_that_can_be_written(report: OfflineReport, tmp_path: Path) -> None:
    found = compared(report, dict.fromkeys(TRUTH, Truth(1.0, 0, 1, 0)))
    assert "nan" in table(found)
    write_json(tmp_path / "judge.json", finite(found))
    figures = json.loads((tmp_path / "judge.json").read_text())["figures"]["fqe"]
    assert figures["rank_correlation"] is None and figures["absolute_error_dope"] is None and figures["regret_at_1"] == 0


def test_a_choice_by_chance_is_the_mean_over_all_choices() -> None:
    truth = np.array([0.0, 1.0, 5.0, 3.0, 10.0])
    for k in (1, 3):
        expected = np.mean([10 - max(chosen) for chosen in combinations(truth, k)]) / 10
        assert chance(truth, k) == pytest.approx(expected)
    assert chance(np.ones(3), 1) == 0
    assert 0 < chance(np.arange(2000.0), 3) < 1  # more than a thousand million choices


def test_one_episode_has_no_error() -> None:
    assert truth_of(np.ones(1), np.ones(1), np.zeros(1)).error == 0


def test_the_recipe_trains_judges_and_treats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = record.SETTINGS | {"patients": 12, "updates": 3, "every": 2, "algorithms": ["bc", "td3_bc"], "treated": 3}
    settings |= {"half_hours": 6, "hyperparameters": {"gamma": 0.95, "policy_kwargs": {"net_arch": [4]}, "batch_size": 8}}
    settings |= {
        "fit": {"gradient_steps": 3, "net_arch": [4], "n_members": 2},
        "held_out": 0.5,
        "flows": {"n_steps": 2, "net_arch": [4]},
    }
    words = ["-f", str(tmp_path / "logs"), "-o", str(tmp_path / "judge.png")]
    record.main(words, settings)
    first = json.loads((tmp_path / "judge.json").read_text())
    assert first["truth"].keys() == first["policies"].keys() == {"bc_1", "bc_1@2", "td3_bc_1", "td3_bc_1@2"}
    assert first["estimates"]["critic"].keys() == {"td3_bc_1", "td3_bc_1@2"}
    assert (tmp_path / "judge.png").is_file() and (tmp_path / "judge.svg").is_file()
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "logs").rglob("*.zip")}
    record.main(words, settings)
    assert json.loads((tmp_path / "judge.json").read_text())["figures"] == first["figures"]
    assert trained == {path: path.stat().st_mtime_ns for path in (tmp_path / "logs").rglob("*.zip")}


def test_the_page_says_what_the_record_says() -> None:
    recorded = json.loads(record.FIGURE.with_suffix(".json").read_text())
    assert f"```text\n{table(recorded)}\n```" in PAGE.read_text()
    assert recorded["settings"] == record.SETTINGS and len(recorded["truth"]) >= 24
    of_benchmark = json.loads((record.FIGURE.parent / "judge-hopper.json").read_text())
    assert f"```text\n{table(of_benchmark)}\n```" in PAGE.read_text() and len(of_benchmark["truth"]) >= 24


def test_a_log_of_stays_ends_by_intensive_care_or_is_cut() -> None:
    data = record.logged(30)
    lengths, last = data.episode_lengths(), data.episode_ends - 1
    assert (
        data.n_episodes == 30 and 24 <= np.median(lengths) <= 144 and (data.terminations[last] != data.truncations[last]).all()
    )
    inside = np.setdiff1d(np.arange(len(data)), last)
    np.testing.assert_array_equal(data.next_observations[inside], data.observations[inside + 1])


def test_estimates_that_are_no_numbers_are_left_out_of_the_figures():
    known = figures_of(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))
    assert figures_of(np.array([1.0, np.nan, 2.0, 3.0]), np.array([1.0, 9.0, 3.0, 2.0])) == known
    none = figures_of(np.array([np.nan]), np.array([1.0]))
    assert none.keys() == known.keys() and none["policies"] == 0 and np.isnan(none["regret_at_1"])
