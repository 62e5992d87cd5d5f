"""In a maze the score is the success rate, whatever the rewards: evaluating, training, resuming, drawing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from sb3_genoffline import ALGOS, DAC, OfflineDataset, load_dataset
from zoo.__main__ import main
from zoo.runs.envs import ReachedGoal, env_factory, eval_envs, own_spec
from zoo.runs.evaluations import read_run
from zoo.runs.folders import find_run
from zoo.runs.hyperparameters import own_file, read_yaml
from zoo.runs.scoring import default_episodes, evaluate

TOY = "AntMaze_Toy-v0"
SPACES = (gym.spaces.Box(-1.0, 1.0, (3,), np.float32), gym.spaces.Box(-1.0, 1.0, (2,), np.float32))
SMALL = ["n_critics:2", "n_q_samples:1", "policy_kwargs:dict(net_arch=[16, 16])", "n_action_samples:2", "batch_size:16"]


class Toy(gym.Env):
    """
    A task that goes on at its goal: in every second episode the agent is there at steps 2 and 3 of 5, a reward each, and away
    at the end.
    """

    observation_space, action_space = SPACES

    def __init__(self) -> None:
        self.episodes = self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.episodes, self.steps = 1 if seed is not None else self.episodes + 1, 0
        return np.zeros(3, np.float32), {"success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        there = self.episodes % 2 == 0 and self.steps in (2, 3)
        return np.full(3, self.steps / 10, np.float32), float(there), False, self.steps == 5, {"success": there}


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setenv("SB3_GENOFFLINE_CACHE", str(tmp_path / "cache"))
    gym.register(TOY, Toy)
    yield
    del gym.registry[TOY]


def toy_data() -> OfflineDataset:
    """12 episodes of 5 rows, the third part of which are at the goal for two of them."""
    rng = np.random.default_rng(0)
    rewards = np.zeros((12, 5))
    rewards[::3, 1:3] = 1
    states = rng.uniform(-1, 1, (12, 6, 3))
    arrays = {
        "observations": states[:, :-1].reshape(60, 3),
        "next_observations": states[:, 1:].reshape(60, 3),
        "actions": rng.uniform(-1, 1, (60, 2)),
        "rewards": rewards.ravel(),
        "terminations": np.zeros(60),
        "truncations": np.arange(60) % 5 == 4,
    }
    return load_dataset(arrays, env=TOY)


def test_success_counts_once_reached_and_other_environments_are_left_alone() -> None:
    env = ReachedGoal(gym.make(TOY))
    told = []
    for _ in range(2):
        env.reset()
        told += [env.step(np.zeros(2, np.float32))[4]["is_success"] for _ in range(5)]
    assert told == [False] * 5 + [False, True, True, True, True]
    plain = ReachedGoal(gym.make("Pendulum-v1"))
    plain.reset(seed=0)
    assert "is_success" not in plain.step(np.zeros(1, np.float32))[4]


def test_the_score_of_a_maze_is_its_success_rate_not_its_return() -> None:
    model = DAC("DiffusionPolicy", SPACES, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    result = evaluate(model, env_factory(None, TOY), 8, n_envs=2, behavior_success_rate=0.25)
    assert result["mean_reward"] == 1.0  # 2 in every second episode
    assert result["success_rate"] == 0.5 and result["normalized_score"] == 50.0
    low, high = result["success_rate_ci95"]
    assert 0 <= low < 0.5 < high <= 1 and result["normalized_score_ci95"] == [100 * low, 100 * high]
    assert result["behavior_normalized_score"] == 25.0
    assert "success_rate" in result["protocol"] and result["n_eval_episodes"] == 8
    assert evaluate(model, env_factory(None, TOY), n_envs=4)["n_eval_episodes"] == 100  # the papers' protocol


def test_other_environments_keep_their_score_and_ten_episodes() -> None:
    gym.register("Toy-v0", Toy)
    try:
        model = DAC("DiffusionPolicy", SPACES, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
        model.dataset_info = {"ref_min_score": 0.0, "ref_max_score": 4.0, "mean_return": 1.0}
        result = evaluate(model, env_factory(None, "Toy-v0"))
    finally:
        del gym.registry["Toy-v0"]
    assert result["n_eval_episodes"] == 10 and result["normalized_score"] == 0.0  # each of ten copies plays its first episode
    assert result["success_rate"] == 0.0 and "ref_min_score" in result["protocol"]
    assert [default_episodes(name) for name in ("D4RL/antmaze/umaze-v1", "PointMaze_UMaze-v3", None)] == [100, 10, 10]


def test_a_maze_trains_resumes_and_is_drawn_by_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_data()
    assert data.summary()["success_rate"] == pytest.approx(1 / 3)
    assert data.summary()["normalized_score"] == pytest.approx(100 / 3)
    file, logs = tmp_path / "toy.npz", tmp_path / "logs"
    columns = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
    np.savez(file, **{name: getattr(data, name) for name in columns})
    common = ["--eval-freq", "2", "--eval-episodes", "4", "--n-eval-envs", "1", "--no-progress", "--verbose", "0"]
    flags = ["train", "--dataset", str(file), "--env", TOY, "-f", str(logs), "--seed", "0", "-n", "2", *common]
    main([*flags, "-params", *SMALL])
    run = find_run(logs, "dac", str(file))
    main(["train", "--dataset", str(file), "--env", TOY, "-i", str(run.model_path), "-n", "6", *common])
    with np.load(run.evaluations_path) as evaluations:
        assert evaluations["timesteps"].tolist() == [2, 4, 6]
        assert evaluations["successes"].tolist() == [[False, True, False, True]] * 3
        assert evaluations["results"].mean() == 1.0
    summary = json.loads((run.settings / "summary.json").read_text())
    assert summary["metrics"]["normalized_score"] == 50.0
    assert summary["last_evaluations"]["timesteps"] == [2, 4, 6]
    main(["evaluate", "--model", str(run.model_path), "--env", TOY, "-n", "6", "--n-envs", "1"])
    results = json.loads((run.folder / "results.json").read_text())
    assert (results["n_eval_episodes"], results["normalized_score"], results["success_rate"]) == (6, 50.0, 0.5)
    # the file's name says nothing of a maze; with an id that does, the curve is of successes
    config = run.config()
    monkeypatch.setattr(type(run), "config", lambda self: config | {"dataset": data.summary()})
    assert read_run(run)[2].mean() == 0.5


def d4rl_file(folder: Path) -> Path:
    """Two short random walks of the real ant in D4RL's layout, one of them said to have reached the goal."""
    env = gym.make("genoffline/AntMaze_UMaze-v0", max_episode_steps=30)
    rng, rows = np.random.default_rng(0), []
    for seed in range(2):
        observation, done = env.reset(seed=seed)[0], False
        while not done:
            action = rng.uniform(-1, 1, 8).astype(np.float32)
            following, _, _, done, _ = env.step(action)
            rows.append((observation, action, done))
            observation = following
    env.close()
    with h5py.File(folder / "antmaze-umaze-v2.hdf5", "w") as file:
        for name, column in zip(("observations", "actions", "timeouts"), zip(*rows, strict=True), strict=True):
            file[name] = np.array(column)
        file["rewards"] = file["terminals"] = np.arange(len(rows)) == 50
        file["infos/goal"] = np.zeros((len(rows), 2))
    return folder / "antmaze-umaze-v2.hdf5"


def test_a_d4rl_file_trains_and_is_evaluated_in_the_maze_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, logs = d4rl_file(tmp_path), tmp_path / "logs"
    short = ["--env-kwargs", "max_episode_steps:6"]
    flags = ["--dataset", str(file), "-f", str(logs)]
    evaluations = ["--eval-freq", "2", "--eval-episodes", "2", *short]
    main(["train", *flags, "-n", "4", "--seed", "0", "--no-progress", *evaluations, "-params", *SMALL])
    assert "hyper-parameters of 'antmaze-umaze-v0'" in capsys.readouterr().out
    run = find_run(logs, "dac", str(file))
    config = run.config()
    assert config["environment"] == "genoffline/AntMaze_UMaze-v0"
    assert config["dataset"]["normalized_score"] == 50.0
    assert config["hyperparameters"]["reward_transform"] == "iql_locomotion"
    main(["evaluate", *flags, *short])
    results = json.loads((run.folder / "results.json").read_text())
    assert results["n_eval_episodes"] == 100 and set(results["lengths"]) == {6}
    assert (results["success_rate"], results["normalized_score"], results["behavior_normalized_score"]) == (0.0, 0.0, 50.0)
    assert "goal reached in 0%, normalised 0.0 (data: 50.0)" in capsys.readouterr().out


def test_every_antmaze_entry_names_its_reward_transform() -> None:
    transforms = {"dac": "iql_locomotion", "qdq": "iql_antmaze", "cped": "iql_antmaze"}
    for algo, transform in transforms.items():
        entries = read_yaml(own_file(ALGOS[algo]))
        mazes = {name: entry for name, entry in entries.items() if "antmaze" in name}
        assert {entry.get("reward_transform") for entry in mazes.values()} == {transform}
        for maze in ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse"):
            assert f"D4RL/antmaze/{maze}-v1" in mazes
        assert "genoffline/antmaze/umaze-v0" in mazes


@pytest.mark.parametrize(
    ("env_id", "kwargs", "told"),
    [
        ("Pendulum-v1", {}, None),
        ("Pendulum-v1", {"g": 9.5}, {"max_episode_steps": 200, "kwargs": {"g": 9.5}}),
        ("Pendulum-v1", {"max_episode_steps": 7}, {"max_episode_steps": 7, "kwargs": {}}),
        ("Pendulum-v1", {"g": np.float32(9.5)}, None),  # cannot be written down
        (TOY, {}, None),
    ],
)
def test_what_the_id_does_not_say_of_an_environment_is_told(env_id: str, kwargs: dict[str, Any], told: Any) -> None:
    found = own_spec(eval_envs(env_factory(None, env_id, kwargs), 1))
    assert (found is None) if told is None else found == told | {"entry_point": gym.spec(env_id).entry_point}
