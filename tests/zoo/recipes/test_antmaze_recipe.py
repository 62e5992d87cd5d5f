"""The small AntMaze set: a trot that goes where it is told, the data it makes, and what is done with them."""

import itertools
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_genoffline import load_dataset
from sb3_genoffline.data.antmaze import success_rate
from zoo.__main__ import main
from zoo.behavior import gait
from zoo.behavior.gait import Trot, walk
from zoo.recipes.antmaze import measure, rollout, spec
from zoo.runs.folders import find_run

DATASET = "genoffline/antmaze/umaze-v0"
SMALL = ["n_critics:2", "n_q_samples:1", "policy_kwargs:dict(net_arch=[16, 16])", "n_action_samples:2", "batch_size:16"]


def test_the_ant_trots_along_any_heading() -> None:
    env: Any = gym.make("Ant-v5", include_cfrc_ext_in_observation=False).unwrapped
    trot = Trot.load()
    for heading in np.deg2rad([0, 50, 100, 150, 200, 250, 300, 350]):
        observation, _ = env.reset(seed=0)
        for step in range(60):
            observation = env.step(trot.act(observation[None], np.array([heading]), np.array([step]))[0])[0]
        x, y = env.data.qpos[:2]
        assert x * np.cos(heading) + y * np.sin(heading) > max(1.5, 0.75 * np.hypot(x, y))
    env.close()


def test_the_tuned_trot_is_as_fast_as_its_card_says_and_faster_than_the_guess() -> None:
    card = json.loads(gait.FILE.read_text())
    speeds, falls = walk(Trot.load(), 16, seed=5)
    assert speeds.mean() == pytest.approx(card["in_the_open"]["speed"], abs=0.2) and falls.mean() < 0.5
    assert speeds.mean() > walk(Trot(), 16, seed=5)[0].mean() + 0.3
    elite = [row[2] for row in card["learning_curve"]["rows"]]
    assert elite[-1] > elite[0] + 0.5


def test_tuning_repeats_and_its_file_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gait, "STEPS", 20)
    monkeypatch.setattr("sys.argv", ["gait", "--n-generations", "2", "--output", str(tmp_path / "gait.json")])
    gait.main()
    trot, curve = gait.tune(seed=0, n_generations=2)
    assert Trot.load(tmp_path / "gait.json") == trot and trot != Trot()
    assert json.loads((tmp_path / "gait.json").read_text())["learning_curve"]["rows"] == curve


def test_an_episode_is_what_the_environment_itself_does() -> None:
    episode = next(rollout(spec(), Trot.load(), 0.4, 2_000, (3,), n_envs=2))
    env: Any = gym.make(spec())
    env.reset(seed=0)
    inner, observations = env.unwrapped, episode.observations
    assert isinstance(observations, dict) and episode.infos is not None
    state = np.concatenate([observations["achieved_goal"][0], observations["observation"][0]])
    inner.goal = observations["desired_goal"][0]
    inner.ant_env.set_state(state[:15], state[15:])
    for t, action in enumerate(episode.actions[:40]):
        observation, reward, terminated, _, info = env.step(action)
        for key, value in observation.items():
            np.testing.assert_allclose(observations[key][t + 1], value, atol=1e-6)
        assert (reward, terminated, info["success"]) == (episode.rewards[t], False, episode.infos["success"][t + 1])
    assert episode.terminated and not episode.truncated
    assert episode.rewards[-1] == 1 and not episode.rewards[:-1].any()
    assert episode.infos["success"].tolist() == [False] * len(episode.rewards) + [True]
    env.close()


def test_a_collected_set_has_all_steps_and_trains_by_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setenv("SB3_GENOFFLINE_CACHE", str(tmp_path / "cache"))
    main(["collect", DATASET, "--steps", "1503", "--n-envs", "3"])
    first = load_dataset(DATASET)
    assert len(first) == 1503 and first.observation_space.shape == (31,)
    assert first.terminations.sum() == first.rewards.sum() == round(success_rate(first) * first.n_episodes) > 0
    np.testing.assert_array_equal(first.terminations | first.truncations, np.isin(np.arange(1503) + 1, first.episode_ends))
    env = first.make_env()
    assert env.spec is not None and env.spec.max_episode_steps == 700
    observation, _ = env.reset(seed=0)
    assert np.linalg.norm(observation[:2] - observation[2:4]) > 5  # from one end of the U to the other
    env.close()

    logs, short = tmp_path / "logs", ["--env-kwargs", "max_episode_steps:4"]
    flags = ["--dataset", DATASET, "-f", str(logs)]
    train = ["-n", "4", "--seed", "0", "--no-progress", "--eval-freq", "2", "--eval-episodes", "1"]
    main(["train", *flags, *train, *short, "-params", *SMALL])
    run = find_run(logs, "dac", DATASET)
    assert run.config()["dataset"]["success_rate"] == pytest.approx(success_rate(first))
    main(["evaluate", *flags, *short])
    results = json.loads((run.folder / "results.json").read_text())
    assert results["n_eval_episodes"] == 100 and results["success_rate"] == results["normalized_score"] == 0.0
    assert results["behavior_normalized_score"] == pytest.approx(100 * success_rate(first))
    assert "goal reached in 0%" in capsys.readouterr().out


def test_a_seed_repeats_and_two_seeds_are_two_sets() -> None:
    a, again, b = (next(rollout(spec(), Trot.load(), 0.4, 10, (seed,), n_envs=1)) for seed in (0, 0, 1))
    assert a.truncated and len(a.rewards) == 10 and not np.array_equal(a.actions, b.actions)
    np.testing.assert_equal((a.observations, a.actions, a.rewards), (again.observations, again.actions, again.rewards))
    shares = [len(episode.rewards) for episode in rollout(spec(), Trot.load(), 0.4, 11, (0,), n_envs=3)]
    assert sorted(shares) == [3, 4, 4]


@pytest.mark.slow
def test_the_ant_arrives() -> None:
    assert measure(Trot.load(), 0.0, 16)["success_rate"] >= 0.9
    noisy = measure(Trot.load(), 0.4, 16)
    assert 0.4 <= noisy["success_rate"] < 1.0 and noisy["mean_steps"] < 450
    assert len(list(itertools.islice(rollout(spec(), Trot.load(), 0.0, 700, (0,), 1), 2))) == 2
