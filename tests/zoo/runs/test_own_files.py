"""A file of your own: its actions have any bounds, its run goes on by itself, and a known environment gives it a scale."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from sb3_genoffline.registry import load_agent
from zoo.__main__ import main
from zoo.runs.folders import Run, list_runs

WIDE = (-2.0, 2.0)


def rows(env_id: str, low: float, high: float, n: int = 60) -> dict[str, np.ndarray]:
    """Random numbers in the shape of an environment's."""
    env = gym.make(env_id)
    n_states, n_actions = env.observation_space.shape[0], env.action_space.shape[0]  # type: ignore[index]
    env.close()
    random = np.random.default_rng(0)
    states = random.uniform(-1, 1, (n + 1, n_states))
    return {
        "observations": states[:-1],
        "actions": random.uniform(low, high, (n, n_actions)),
        "rewards": random.normal(size=n),
        "next_observations": states[1:],
        "terminals": np.zeros(n),
        "timeouts": np.arange(n) % 20 == 19,
    }


def write(path: Path, arrays: dict[str, Any]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


def train(path: Path, *extra: str) -> Run:
    quiet = ["--profile", "tiny", "-n", "2", "--eval-freq", "0", "--verbose", "0", "-f", str(path.parent / "logs")]
    main(["train", "--algo", "td3_bc", "--dataset", str(path), *quiet, *extra])
    return list_runs(path.parent / "logs", "td3_bc", path)[-1]


@pytest.mark.parametrize("name", ["own.npz", "own.hdf5"])
def test_the_environment_that_is_named_brings_its_spaces(name: str, tmp_path: Path) -> None:
    run = train(write(tmp_path / name, rows("Pendulum-v1", *WIDE)), "--env", "Pendulum-v1")
    agent = load_agent(run.model_path)
    assert agent.action_space == gym.make("Pendulum-v1").action_space
    assert agent.observation_space == gym.make("Pendulum-v1").observation_space


@pytest.mark.parametrize("name", ["own.npz", "own.hdf5"])
def test_without_one_the_file_says_the_bounds_of_its_actions(name: str, tmp_path: Path) -> None:
    arrays = rows("Pendulum-v1", *WIDE)
    with pytest.raises(SystemExit, match=r"actions\[.*is outside \[-1, 1\].*--env.*action_space=\[low, high\]"):
        train(write(tmp_path / name, arrays))
    run = train(write(tmp_path / name, arrays | {"action_space": WIDE}))
    assert load_agent(run.model_path).action_space == gym.make("Pendulum-v1").action_space
    main(["evaluate", "--model", str(run.model_path), "--env", "Pendulum-v1", "-n", "1"])
    assert json.loads((run.folder / "results.json").read_text())["lengths"] == [200]


@pytest.mark.parametrize("extra", [["--env", "Pendulum-v1"], []])
def test_a_run_on_a_file_goes_on_without_being_told_again(
    extra: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    arrays = rows("Pendulum-v1", *WIDE)
    del arrays["timeouts"], arrays["next_observations"]  # the step limit is the environment's
    arrays |= {} if extra else {"timeouts": np.arange(60) % 20 == 19, "action_space": WIDE}
    monkeypatch.chdir(tmp_path)
    write(Path("own.npz"), arrays)
    run = train(Path("own.npz"), *extra)
    monkeypatch.chdir("/")
    for n in ("3", "4"):
        main(["train", "-i", str(tmp_path / run.model_path), "-n", n, "--eval-freq", "0", "--verbose", "0"])
    assert load_agent(tmp_path / run.model_path).num_timesteps == 4
    assert len(list((tmp_path / "logs" / "td3_bc").iterdir())) == 1
    main(["evaluate", "--model", str(tmp_path / run.model_path), "-n", "1", *([] if extra else ["--env", "Pendulum-v1"])])
    assert "Pendulum-v1" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"observations has shape \(60, 3\), but the observation space says \(N, 2\)"):
        main(["train", "-i", str(tmp_path / run.model_path), "-n", "5", "--env", "MountainCarContinuous-v0"])


def test_a_run_on_observations_that_are_no_vectors_goes_on(tmp_path: Path) -> None:
    arrays = rows("Pendulum-v1", -1, 1)
    for name in ("observations", "next_observations"):
        arrays[name] = np.stack([arrays[name], -arrays[name]], axis=1)
    run = train(write(tmp_path / "own.npz", arrays))
    main(["train", "-i", str(run.model_path), "-n", "3", "--eval-freq", "0", "--verbose", "0"])
    assert load_agent(run.model_path).num_timesteps == 3 and len(list(run.folder.parent.iterdir())) == 1


def test_a_known_environment_gives_a_file_of_ones_own_its_scale(tmp_path: Path, capsys: Any) -> None:
    run = train(write(tmp_path / "own.npz", rows("Hopper-v5", -1, 1)), "--env", "Hopper-v5")
    config = run.config()["dataset"]
    assert (config["ref_min_score"], config["ref_max_score"]) == (-20.272305, 3234.3)
    main(["evaluate", "--model", str(run.model_path), "-n", "1"])
    results = json.loads((run.folder / "results.json").read_text())
    assert results["normalized_score"] == pytest.approx(100 * (results["mean_reward"] + 20.272305) / 3254.572305)
    assert "normalised" in capsys.readouterr().out
    plain = train(write(tmp_path / "plain.npz", rows("Hopper-v5", -1, 1)))
    assert plain.config()["dataset"]["ref_min_score"] is None
    main(["evaluate", "--model", str(plain.model_path), "-n", "1", "--env", "Hopper-v5"])
    assert json.loads((plain.folder / "results.json").read_text())["normalized_score"] is not None
