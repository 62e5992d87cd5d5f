"""The committed behaviour policies: they load without code, and play as their index says."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_genoffline.data.scores import reference_scores
from zoo.behavior import GaussianPolicy, load_policy
from zoo.behavior.rollout import Segment, evaluate, rollout
from zoo.behavior.selection import choose, choose_rungs
from zoo.behavior.train import TRAINERS
from zoo.episodes import Episode
from zoo.recipes.locomotion import BEHAVIOR

FOLDERS = sorted(path.parent for path in BEHAVIOR.glob("*/index.json"))
STANDARD = TRAINERS["trpo"].standard
POLICIES = sorted(BEHAVIOR.glob("*/*.safetensors"))


def read_index(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / "index.json").read_text())
    return index


def rung(index: dict[str, Any], role: str) -> dict[str, Any]:
    (found,) = [entry for entry in index["rungs"] if entry["role"] == role]
    return dict(found)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_committed_policy_acts_inside_the_action_space(path: Path) -> None:
    policy = load_policy(path)
    observations = np.random.default_rng(0).normal(0, 5, (64, policy.obs_dim))
    for noise in ("none", "policy", 0.1):
        actions = policy.act(observations, noise, np.random.default_rng(1))
        assert actions.shape == (64, policy.act_dim) and actions.dtype == np.float32
        assert (actions >= policy.action_low).all() and (actions <= policy.action_high).all()
    assert len(np.unique(policy.mean_action(observations))) > 64


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_folder_is_small_and_holds_no_pickles(folder: Path) -> None:
    files = list(folder.iterdir())
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) < 600_000
    for path in folder.glob("*.safetensors"):
        header_length = int.from_bytes(path.read_bytes()[:8], "little")
        json.loads(path.read_bytes()[8 : 8 + header_length])  # a safetensors file starts with JSON


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_index_and_the_files_name_each_other(folder: Path) -> None:
    index = read_index(folder)
    files = {entry["file"] for entry in index["rungs"]}
    used = {s["policy"] for level in index["levels"].values() for part in level["parts"] for s in part} - {None}
    assert files == used == {path.name for path in folder.glob("*.safetensors")}
    assert (index["ref_min_score"], index["ref_max_score"]) == reference_scores(index["env_id"])
    assert set(index["levels"]) == {"random", "medium", "expert", "medium-expert", "medium-replay"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_medium_is_medium_with_and_without_noise_and_so_is_all_that_leads_to_it(folder: Path) -> None:
    index = read_index(folder)
    medium, expert = rung(index, "medium"), rung(index, "expert")
    low, high = index["standard"]["medium"]
    kinds = index["scored"]["columns"][1:]
    for kind in kinds:
        assert low <= medium[kind]["normalized"] <= high, kind
    assert min(expert[kind]["normalized"] for kind in kinds[:2]) >= index["standard"]["expert"]
    for entry in index["rungs"]:
        if entry["role"] == "replay":
            assert entry["steps"] < medium["steps"]
            assert max(entry[kind]["normalized"] for kind in kinds) < index["standard"]["not_expert"] + 5


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize(
    ("role", "kind"), [("medium", "deterministic"), ("medium", "stochastic"), ("expert", "deterministic")]
)
def test_a_fresh_evaluation_agrees_with_the_recorded_score(folder: Path, role: str, kind: str) -> None:
    index = read_index(folder)
    entry = rung(index, role)
    returns = evaluate(load_policy(folder / entry["file"]), index["env_id"], entry[kind]["noise"], 4, seed=77)
    tolerance = 4 * entry[kind]["std"] / np.sqrt(4) + 0.05 * entry[kind]["mean"]
    assert abs(returns.mean() - entry[kind]["mean"]) < tolerance


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_rung_of_the_replay_set_acts_for_the_steps_training_spent_around_it(folder: Path) -> None:
    index = read_index(folder)
    (segments,) = index["levels"]["medium-replay"]["parts"]
    medium = rung(index, "medium")["steps"]
    assert index["levels"]["medium-replay"]["steps"] == sum(s["weight"] for s in segments) == medium
    steps = {entry["file"]: entry["steps"] for entry in index["rungs"]}
    places = [steps[s["policy"]] for s in segments]
    nearest = [min(places, key=lambda place: abs(place - step - 0.5)) for step in range(medium)]
    assert [nearest.count(place) for place in places] == [s["weight"] for s in segments]


def test_the_policy_normalises_and_acts_as_the_sb3_model_it_came_from() -> None:
    import torch
    from sb3_contrib import TRPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    env = VecNormalize(make_vec_env("Hopper-v5", n_envs=2, seed=0))
    model = TRPO("MlpPolicy", env, n_steps=64, batch_size=32, seed=0, device="cpu").learn(128)
    policy = GaussianPolicy.from_sb3(model, env)
    observations = np.random.default_rng(0).normal(0, 2, (32, 11))
    wanted, _ = model.predict(env.normalize_obs(observations), deterministic=True)
    np.testing.assert_allclose(policy.act(observations, "none"), wanted, atol=1e-6)
    np.testing.assert_allclose(policy.std("policy"), torch.exp(model.policy.log_std).detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize("noise", ["gaussian", -0.1, float("nan")])
def test_an_unknown_noise_is_refused(noise: str | float) -> None:
    with pytest.raises(ValueError, match="use 'none', 'policy' or a standard deviation"):
        load_policy(POLICIES[0]).act(np.zeros((1, 11)), noise, np.random.default_rng(0))


def test_a_batch_of_the_wrong_shape_and_a_missing_generator_are_refused() -> None:
    policy = load_policy(POLICIES[0])
    with pytest.raises(ValueError, match=r"takes \(n, 11\)"):
        policy.act(np.zeros(11), "none")
    with pytest.raises(ValueError, match="Generator"):
        policy.act(np.zeros((1, 11)), "policy")


def test_saving_and_loading_give_the_same_policy_back(tmp_path: Path) -> None:
    policy = load_policy(POLICIES[-1])
    policy.save(tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == POLICIES[-1].read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["copy.safetensors"]


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a behaviour policy"):
        load_policy(tmp_path / "other.safetensors")


def check_chain(episodes: list[Episode], n_steps: int, limit: int) -> None:
    assert sum(len(e.rewards) for e in episodes) == n_steps
    for episode in episodes:
        assert len(episode.observations) == len(episode.rewards) + 1 == len(episode.actions) + 1 <= limit + 1
        assert episode.terminated != episode.truncated


@pytest.mark.parametrize("n_envs", [1, 3, 8])
def test_no_step_is_lost_whatever_the_number_of_copies_and_the_border_of_segments(n_envs: int) -> None:
    policy = load_policy(POLICIES[-1])
    segments = [
        Segment(None, "none", 101),
        Segment(policy, 0.1, 57),
        Segment(policy, "policy", 0),
        Segment(policy, "none", 43),
    ]
    check_chain(list(rollout("Hopper-v5", segments, (0,), n_envs)), 201, 1000)


@pytest.fixture
def short_hopper() -> Iterator[str]:
    """Hopper with episodes of 60 steps."""
    gym.register("ShortHopper-v5", entry_point="gymnasium.envs.mujoco.hopper_v5:HopperEnv", max_episode_steps=60)
    yield "ShortHopper-v5"
    del gym.registry["ShortHopper-v5"]


def test_time_limits_truncate_and_falls_terminate_in_every_copy(short_hopper: str) -> None:
    folder = BEHAVIOR / "hopper"
    expert = load_policy(folder / rung(read_index(folder), "expert")["file"])
    episodes = list(rollout(short_hopper, [Segment(expert, "none", 360)], (0,), n_envs=3))
    check_chain(episodes, 360, 60)
    assert [len(e.rewards) for e in episodes] == [60] * 6 and all(e.truncated for e in episodes)

    episodes = list(rollout(short_hopper, [Segment(None, "none", 400)], (0,), n_envs=3))
    check_chain(episodes, 400, 60)
    fell = [e for e in episodes if e.terminated]
    assert len(fell) > 5
    for episode in episodes:
        unhealthy = (episode.observations[:, 0] < 0.7) | (abs(episode.observations[:, 1]) > 0.2)
        assert not unhealthy[:-1].any() and unhealthy[-1] == episode.terminated


def test_actions_and_observations_replay_in_a_wrapped_environment() -> None:
    (episode, *_) = rollout("Hopper-v5", [Segment(None, "none", 200)], (5,), n_envs=1)
    env = gym.make("Hopper-v5")
    env.reset(seed=0)
    base: Any = env.unwrapped
    position, velocity = episode.observations[0][:5], episode.observations[0][5:]
    base.set_state(np.concatenate([[0.0], position]), velocity)
    for t, action in enumerate(episode.actions):
        observation, reward, terminated, _, _ = env.step(action)
        np.testing.assert_allclose(observation, episode.observations[t + 1], atol=1e-8)
        assert abs(float(reward) - episode.rewards[t]) < 1e-6 and terminated == (t + 1 == len(episode.actions))


def scores(**values: float) -> dict[str, Any]:
    return {kind: {"normalized": values.get(kind, values["rest"])} for kind in STANDARD.noises}


def test_a_policy_that_is_an_expert_without_its_noise_is_never_medium() -> None:
    table = {0: scores(rest=1.0), 10: scores(deterministic=100.0, rest=40.0), 20: scores(rest=46.0), 30: scores(rest=105.0)}
    assert choose(table, STANDARD) == (20, 30)
    assert choose_rungs(table, medium=20, n_rungs=3, standard=STANDARD) == [0, 20]
    del table[20]
    with pytest.raises(ValueError, match="another seed"):
        choose(table, STANDARD)


@pytest.mark.slow
def test_training_twice_with_one_seed_writes_the_same_policy(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        code = "import sys; from pathlib import Path; from zoo.behavior.trpo import train; "
        code += "train('Hopper-v5', 3, 4096, Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert (tmp_path / "a" / "4096.safetensors").read_bytes() == (tmp_path / "b" / "4096.safetensors").read_bytes()
