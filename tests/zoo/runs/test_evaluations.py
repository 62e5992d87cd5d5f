"""Final scores: which checkpoints they are the mean of, and how many episodes these need."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from zoo.runs.evaluations import (
    FEWEST_EPISODES,
    MOST_EPISODES,
    episodes_needed,
    final_episodes,
    late_checkpoints,
    late_evaluations,
)
from zoo.runs.folders import Run
from zoo.runs.scoring import summary


@pytest.mark.parametrize(
    ("total", "every", "expected"),
    [(100, 10, [60, 70, 80, 90, 100]), (100, 33, [33, 66, 100]), (105, 10, [60, 70, 80, 90, 105]), (5, 9, [5])],
)
def test_the_last_five_evaluated_agents_count_and_the_last_is_that_of_the_end(
    total: int, every: int, expected: list[int]
) -> None:
    assert late_checkpoints(total, every) == expected


def test_the_episodes_follow_from_the_spread() -> None:
    def needed(*std: float, unit: str = "normalized_score", episodes: int = 10_000) -> int:
        return final_episodes({"unit": unit, "std": std}, episodes)

    rng = np.random.default_rng(0)
    n = needed(*[99.0] * 3, *[25.0] * 5)  # of the last five alone
    means = rng.normal(0.0, 25.0, size=(2000, 5, n)).mean((1, 2))
    assert n == 32 and means.std() == pytest.approx(2.0, rel=0.1)
    assert (needed(*[3.0] * 5), needed(*[80.0] * 5)) == (FEWEST_EPISODES, MOST_EPISODES)
    assert needed(25.0) > n and needed(25.0, 25.0, episodes=1) == MOST_EPISODES
    assert needed(*[900.0] * 5, unit="return") == FEWEST_EPISODES


@pytest.mark.parametrize("episodes", [2, 5])
def test_few_episodes_on_the_way_do_not_hide_the_spread(episodes: int) -> None:
    scores = np.random.default_rng(1).normal(0.0, 25.0, size=(2000, 5, episodes))
    wanted = [episodes_needed({"unit": "normalized_score", "std": std}, episodes) for std in scores.std(axis=2)]
    assert np.mean(wanted) == pytest.approx(25.0**2 / (5 * 2.0**2), abs=3.0)


def test_a_run_knows_the_mean_of_its_last_evaluations(tmp_path: Path) -> None:
    run = Run(tmp_path / "x-v0_1", "x-v0")
    run.settings.mkdir(parents=True)
    data = {"ref_min_score": 10.0, "ref_max_score": 110.0, "success_rate": None}
    (run.settings / "config.yml").write_text(yaml.safe_dump({"algo": "dac", "dataset": data, "hyperparameters": {}}))
    assert late_evaluations(run) is None
    returns = np.array([[1000.0] * 2, *([10.0 + 10 * k, 12.0 + 10 * k] for k in range(5))])
    np.savez(run.evaluations_path, timesteps=np.arange(1, 7), results=returns, ep_lengths=returns)
    late = late_evaluations(run)
    assert late is not None and json.loads(json.dumps(late)) == late
    assert (late["unit"], late["timesteps"], late["each"]) == (
        "normalized_score",
        [2, 3, 4, 5, 6],
        [1.0, 11.0, 21.0, 31.0, 41.0],
    )
    assert late["mean"] == 21.0
    result = {"mean_reward_ci95": [0, 1], "mean_reward": 0.5, "std_reward": 0.1, "gradient_steps": 6, "n_eval_episodes": 2}
    result |= dict.fromkeys(("algo", "dataset", "checkpoint", "env_id"), "x")
    missing = dict.fromkeys(("success_rate", "normalized_score", "behavior_normalized_score"))
    np.savez(run.evaluations_path, timesteps=[1], results=[[np.nan]], ep_lengths=[[1]])
    assert late_evaluations(run) is None, "an environment that rewards by nan leaves nothing to write down"
    assert "mean of the last 5 evaluations on the way: 21.0" in summary(result | missing | {"last_evaluations": late})
    only = late | {"each": [7.0], "mean": 7.0}
    assert "\nthe only evaluation on the way: 7.0" in summary(result | missing | {"last_evaluations": only})
