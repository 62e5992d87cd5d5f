"""The committed behaviour policies: they load without code, and play as their index says."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_genoffline.data.scores import reference_scores
from zoo.behavior import GaussianPolicy, SquashedPolicy, load_policy, tables
from zoo.behavior.episode import Episode
from zoo.behavior.rollout import Segment, evaluate, rollout
from zoo.behavior.rungs import choose_expert, choose_medium, choose_rungs
from zoo.behavior.train import main as train_behavior
from zoo.behavior.trainers import TRAINERS
from zoo.recipes.locomotion import BEHAVIOR

FOLDERS = sorted(path.parent for path in BEHAVIOR.rglob("index.json"))  # SAC's are in folders of their own
STANDARD = TRAINERS["trpo"].standard
HOPPER_POLICIES = sorted((BEHAVIOR / "hopper" / "sac").glob("*.safetensors"))
POLICIES = sorted(path for folder in FOLDERS for path in folder.glob("*.safetensors"))


def name_of(path: Path) -> str:
    return str(path.relative_to(BEHAVIOR)).removesuffix(".safetensors")


def read_index(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / "index.json").read_text())
    return index


def rung(index: dict[str, Any], role: str) -> dict[str, Any]:
    (found,) = [entry for entry in index["rungs"] if entry["role"] == role]
    return dict(found)


@pytest.mark.parametrize("path", POLICIES, ids=name_of)
def test_every_committed_policy_acts_inside_the_action_space(path: Path) -> None:
    policy = load_policy(path)
    observations = np.random.default_rng(0).normal(0, 5, (64, policy.obs_dim))
    for noise in ("none", "policy", 0.1):
        actions = policy.act(observations, noise, np.random.default_rng(1))
        assert actions.shape == (64, policy.act_dim) and actions.dtype == np.float32
        assert (actions >= policy.action_low).all() and (actions <= policy.action_high).all()
    assert len(np.unique(policy.act(observations / 5, "none"))) > 64


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_the_folder_is_small_and_holds_no_pickles(folder: Path) -> None:
    files = [path for path in folder.iterdir() if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) < 1_200_000
    for path in folder.glob("*.safetensors"):
        header_length = int.from_bytes(path.read_bytes()[:8], "little")
        json.loads(path.read_bytes()[8 : 8 + header_length])  # a safetensors file starts with JSON


def test_all_that_is_committed_of_behaviour_is_below_25_megabytes() -> None:
    assert sum(path.stat().st_size for path in BEHAVIOR.rglob("*") if path.is_file()) < 25e6


@pytest.mark.parametrize("env", ["halfcheetah", "hopper", "walker2d"])
def test_the_data_of_sacs_levels_are_at_them(env: str) -> None:
    """Of the inspected datasets: what the policies' own scores promise, over a million steps."""
    index = read_index(BEHAVIOR / env / "sac")
    found = {
        level: json.loads((BEHAVIOR.parent / "figures" / "datasets" / f"genoffline-{env}-{level}-v1.json").read_text())
        for level in index["levels"]
    }
    assert max(found["medium"]["actions"]["clipped"]) < 0.02
    low, high = index["standard"]["medium"]
    assert low <= found["medium"]["returns"]["score_mean"] <= high
    assert found["expert"]["returns"]["score_mean"] >= index["standard"]["expert"]
    assert len([entry for entry in index["rungs"] if entry["role"] == "replay"]) >= 20


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_the_index_and_the_files_name_each_other(folder: Path) -> None:
    index = read_index(folder)
    files = {entry["file"] for entry in index["rungs"]}
    used = {s["policy"] for level in index["levels"].values() for part in level["parts"] for s in part} - {None}
    assert files == used == {path.name for path in folder.glob("*.safetensors")}
    assert (index["ref_min_score"], index["ref_max_score"]) == reference_scores(index["env_id"])
    expert = {"expert", "medium-expert"} if index["standard"]["expert"] is not None else set()
    assert set(index["levels"]) in ({"clipped-noise"}, {"random", "medium", "medium-replay"} | expert)


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_medium_is_medium_with_and_without_noise_and_so_is_all_that_leads_to_it(folder: Path) -> None:
    index = read_index(folder)
    medium = rung(index, "medium")
    low, high = index["standard"]["medium"]
    kinds = index["scored"]["columns"][1:]
    for kind in kinds:
        assert low <= medium[kind]["normalized"] <= high, kind
    if index["standard"]["expert"] is not None:
        assert min(rung(index, "expert")[kind]["normalized"] for kind in kinds[:2]) >= index["standard"]["expert"]
    for entry in index["rungs"]:
        if entry["role"] == "replay":
            assert entry["steps"] < medium["steps"]
            assert max(entry[kind]["normalized"] for kind in kinds) < index["standard"]["not_expert"] + 5


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_a_fresh_evaluation_agrees_with_the_recorded_scores(folder: Path) -> None:
    index = read_index(folder)
    for entry in index["rungs"]:
        kind = "stochastic" if entry["role"] == "medium" else "deterministic"
        if entry["role"] != "replay":
            returns = evaluate(load_policy(folder / entry["file"]), index["env_id"], entry[kind]["noise"], 2, seed=77)
            tolerance = 4 * entry[kind]["std"] / np.sqrt(2) + 0.05 * entry[kind]["mean"]
            assert abs(returns.mean() - entry[kind]["mean"]) < tolerance, (entry["role"], kind)


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_every_rung_of_the_replay_set_acts_for_the_steps_training_spent_around_it(folder: Path) -> None:
    index = read_index(folder)
    level = index["levels"].get("clipped-noise") or index["levels"]["medium-replay"]
    (segments,) = level["parts"]
    medium = rung(index, "medium")["steps"]
    assert level["steps"] == sum(s["weight"] for s in segments) == medium
    start = sum(s["weight"] for s in segments if s["policy"] is None)
    assert start == TRAINERS[index["algorithm"].partition(" ")[0].lower()].n_uniform
    segments = [s for s in segments if s["policy"] is not None]
    steps = {entry["file"]: entry["steps"] for entry in index["rungs"]}
    places = [steps[s["policy"]] for s in segments]
    nearest = np.abs(np.array(places)[:, None] - np.arange(start, medium) - 0.5).argmin(axis=0)
    assert np.bincount(nearest).tolist() == [s["weight"] for s in segments]


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


def test_the_squashed_policy_acts_as_the_sb3_model_it_came_from() -> None:
    import torch
    from sb3_contrib import TQC

    model = TQC("MlpPolicy", "HalfCheetah-v5", policy_kwargs={"net_arch": [32, 16]}, buffer_size=10, seed=0, device="cpu")
    policy = SquashedPolicy.from_sb3(model)
    observations = np.random.default_rng(0).normal(0, 2, (32, 17)).astype(np.float32)
    wanted, _ = model.predict(observations, deterministic=True)
    np.testing.assert_allclose(policy.act(observations, "none"), wanted, atol=1e-6)
    mean, log_std, _ = model.actor.get_action_dist_params(torch.as_tensor(observations))
    drawn = np.random.default_rng(1).standard_normal((32, 6), dtype=np.float32)
    sampled = np.tanh(mean.detach().numpy() + np.exp(log_std.detach().numpy()) * drawn)
    np.testing.assert_allclose(policy.act(observations, "policy", np.random.default_rng(1)), sampled, atol=1e-6)
    noisy = policy.act(observations, 0.3, np.random.default_rng(1))
    np.testing.assert_allclose(noisy, np.clip(wanted + 0.3 * drawn, -1, 1), atol=1e-6)


KINDS = [next(path for path in POLICIES if path.name.startswith(kind)) for kind in ("trpo", "tqc")]


@pytest.mark.parametrize("path", KINDS, ids=lambda path: path.stem)
@pytest.mark.parametrize("noise", ["gaussian", -0.1, float("nan")])
def test_an_unknown_noise_is_refused(path: Path, noise: str | float) -> None:
    policy = load_policy(path)
    with pytest.raises(ValueError, match="use 'none', 'policy' or a standard deviation"):
        policy.act(np.zeros((1, policy.obs_dim)), noise, np.random.default_rng(0))


@pytest.mark.parametrize("path", KINDS, ids=lambda path: path.stem)
def test_a_batch_of_the_wrong_shape_and_a_missing_generator_are_refused(path: Path) -> None:
    policy = load_policy(path)
    with pytest.raises(ValueError, match=rf"takes \(n, {policy.obs_dim}\)"):
        policy.act(np.zeros(policy.obs_dim), "none")
    with pytest.raises(ValueError, match="Generator"):
        policy.act(np.zeros((1, policy.obs_dim)), "policy")


@pytest.mark.parametrize("path", KINDS, ids=lambda path: path.stem)
def test_saving_and_loading_give_the_same_policy_back(path: Path, tmp_path: Path) -> None:
    load_policy(path).save(tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["copy.safetensors"]


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
    policy = load_policy(HOPPER_POLICIES[-1])
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
    folder = BEHAVIOR / "hopper" / "sac"
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
    assert choose_medium(table, STANDARD) == 20 and choose_expert(table, STANDARD) == 30
    assert choose_rungs(table, medium=20, n_rungs=3, standard=STANDARD) == [0, 20]
    del table[20]
    with pytest.raises(ValueError, match="another seed"):
        choose_medium(table, STANDARD)


def test_an_expert_can_be_added_later_from_a_ladder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, ladder = tmp_path / "halfcheetah", tmp_path / "ladder"
    shutil.copytree(BEHAVIOR / "halfcheetah", folder)
    before = read_index(folder)
    old = rung(before, "expert")
    ladder.mkdir()
    shutil.copy(folder / old["file"], ladder / "300000.safetensors")
    (ladder / "curve.json").write_text("[[300000, 3000.0]]")
    known = {kind: {"normalized": 100.0, "n_episodes": 20} for kind in STANDARD.noises}
    (ladder / "scores.json").write_text(json.dumps({"300000": known}))
    monkeypatch.setattr("zoo.behavior.ladder.score", lambda *_: {"normalized": 99.0})
    command = f"train --env HalfCheetah-v5 --algo tqc -n 300000 --expert-only --expert 90 --folder {folder} --ladder {ladder}"
    monkeypatch.setattr(sys, "argv", command.split())
    train_behavior()
    index = read_index(folder)
    assert rung(index, "expert")["file"] == "tqc_0300000.safetensors" and not (folder / old["file"]).exists()
    assert index["rungs"][:-1] == [entry for entry in before["rungs"] if entry["role"] != "expert"]
    changed = {name: level for name, level in index["levels"].items() if level != before["levels"][name]}
    assert set(changed) == {"medium-expert", "expert"} and "tqc_0300000" in json.dumps(changed["expert"])
    assert "--expert-only --expert 90" in index["expert"]["command"] and index["command"] == before["command"]


@pytest.mark.slow
def test_training_twice_with_one_seed_writes_the_same_policy(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        code = "import sys; from pathlib import Path; from zoo.behavior.trpo import train; "
        code += "train('Hopper-v5', 3, 4096, Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert (tmp_path / "a" / "4096.safetensors").read_bytes() == (tmp_path / "b" / "4096.safetensors").read_bytes()


def test_the_tables_of_the_page_are_those_of_the_index_files() -> None:
    assert tables.tables() in (BEHAVIOR / "README.md").read_text()
