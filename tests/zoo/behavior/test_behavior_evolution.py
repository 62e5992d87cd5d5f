"""Evolution strategies train an actor on by the returns of whole episodes."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from zoo.behavior import SquashedPolicy, evolution
from zoo.behavior.ladder import score_ladder
from zoo.behavior.rungs import Standard
from zoo.behavior.train import main as train_behavior
from zoo.behavior.trainers import EXPERT, TRAINERS

START = Path(evolution.__file__).parent / "halfcheetah" / "tqc_0110000.safetensors"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evolution, "STEPS", 5)
    monkeypatch.setattr(evolution, "EVERY", 1)
    monkeypatch.setattr(evolution, "SETTINGS", evolution.SETTINGS | {"n_pairs": 2, "learning_rate": 0.05, "averaging": 0.0})


def test_the_last_layer_moves_by_the_rate_and_no_other_does(short: None, tmp_path: Path) -> None:
    evolution.train("HalfCheetah-v5", 0, 40, tmp_path, SquashedPolicy.load(START))
    assert sorted(int(path.stem) for path in tmp_path.glob("*.safetensors")) == [0, 20, 40]
    assert (tmp_path / "0.safetensors").read_bytes() == START.read_bytes()
    before, after = SquashedPolicy.load(START), SquashedPolicy.load(tmp_path / "20.safetensors")
    for one, other in zip(before.weights[:-1], after.weights[:-1], strict=True):
        np.testing.assert_array_equal(one, other)
    moved = np.abs(after.weights[-1] - before.weights[-1]) / before.weights[-1].std()
    assert 0.045 < np.median(moved) < 0.055  # Adam's first step is the rate, whatever the gradient


def test_what_is_kept_is_the_average_of_the_way(short: None, tmp_path: Path) -> None:
    layers = {}
    for averaging in (0.0, 0.75):
        evolution.SETTINGS["averaging"] = averaging
        ladder = tmp_path / str(averaging)
        ladder.mkdir()
        evolution.train("HalfCheetah-v5", 0, 40, ladder, SquashedPolicy.load(START))
        layers[averaging] = [SquashedPolicy.load(ladder / f"{steps}.safetensors").weights[-1] for steps in (0, 20, 40)]
    begun, first, second = layers[0.0]
    expected = 0.75 * (0.75 * begun + 0.25 * first) + 0.25 * second
    np.testing.assert_allclose(layers[0.75][2], expected, rtol=1e-3, atol=1e-4)  # stored in half precision
    assert np.abs(second - first).max() > 0.01


def test_a_return_is_that_of_the_actor_with_its_own_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evolution, "STEPS", 5)  # in the long run rounding leads apart
    actor = SquashedPolicy.load(START)
    layer = np.concatenate([actor.weights[-1], actor.biases[-1][None]])
    envs = [gym.make("HalfCheetah-v5").unwrapped for _ in range(2)]
    found = evolution.episode_returns(actor, np.stack([layer, 0 * layer]), envs, np.array([3, 4]))
    env = gym.make("HalfCheetah-v5")
    observation, total, noise = env.reset(seed=3)[0], 0.0, np.random.default_rng(3)
    for _ in range(5):
        observation, reward, *_ = env.step(actor.act(observation[None], "policy", noise)[0])
        total += float(reward)
    assert found[0] == pytest.approx(total, rel=1e-5) and found[1] != found[0]


def test_an_episode_ends_where_the_body_falls() -> None:
    actor = SquashedPolicy.load(START.parents[1] / "hopper" / "sac" / "sac_0170000.safetensors")
    layer = np.concatenate([actor.weights[-1], actor.biases[-1][None]])
    falls = evolution.episode_returns(actor, layer[None] * 0, [gym.make("Hopper-v5").unwrapped], np.array([0]))
    assert 0 < falls[0] < 200


def test_the_returns_of_a_pair_say_where_to_go(short: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A return that is the sum of the layer's biases makes all biases rise."""
    monkeypatch.setattr(evolution, "episode_returns", lambda actor, layers, envs, seeds: layers[:, -1].sum(-1))
    evolution.SETTINGS["n_pairs"] = 64
    evolution.train("HalfCheetah-v5", 0, 640, tmp_path, SquashedPolicy.load(START))
    before, after = SquashedPolicy.load(START), SquashedPolicy.load(tmp_path / "640.safetensors")
    assert (after.biases[-1] > before.biases[-1]).all()


SAC = START.parent / "sac"
OWN = {"stochastic": {"normalized": 95.0, "n_episodes": 100}}


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    given = ["train", "--env", "HalfCheetah-v5", "--algo", "es", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", given)
    train_behavior()


def test_a_ladder_is_of_one_training_and_whole_or_made_anew(
    short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ladder = tmp_path / "sac", tmp_path / "ladder"
    shutil.copytree(SAC, folder)
    monkeypatch.setattr("zoo.behavior.ladder.score", lambda *_: {"normalized": 95.0})
    monkeypatch.setattr("zoo.behavior.ladder.score_candidate", lambda *_: {"deterministic": OWN["stochastic"]} | OWN)
    rest = ("--folder", folder, "--ladder", ladder, "--expert-only", "--score-every", 1)
    command(monkeypatch, "-n", 21, "--start", START, *rest)
    rungs = sorted(int(path.stem) for path in ladder.glob("*.safetensors"))
    assert rungs == [0, 20, 40]  # the last one counts though above 21
    first = json.loads((folder / "index.json").read_text())
    assert first["expert"]["scored"]["rows"][-1][0] == 40 and first["rungs"][-1]["file"].startswith("es_")
    for differs in (("--start", START.with_name("tqc_0090000.safetensors")), ("--start", START, "--seed", 2)):
        with pytest.raises(SystemExit, match="has actors of another training"):
            command(monkeypatch, "-n", 20, *differs, *rest)
    assert sorted(int(path.stem) for path in ladder.glob("*.safetensors")) == rungs
    (ladder / "curve.json").unlink()  # as after a kill
    monkeypatch.setattr(evolution, "train", lambda *_: pytest.fail("trained again"))
    monkeypatch.setitem(TRAINERS, "es", replace(TRAINERS["es"], train=evolution.train))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        command(monkeypatch, "-n", 20, "--start", START, *rest)


@pytest.mark.parametrize(
    ("content", "said"), [("{", "is not a valid index of behaviour policies"), ("{}", "rungs"), ('{"rungs": 3}', "rungs")]
)
def test_a_broken_index_is_one_line(content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(SystemExit, match=said):
        command(monkeypatch, "--start", START, "--expert-only", "--folder", tmp_path, "--ladder", tmp_path / "ladder")


def test_a_ladder_that_is_a_file_and_a_state_that_is_not_there_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="can't be a folder"):
        command(monkeypatch, "--start", START, "--expert-only", "--ladder", tmp_path / "file")
    for flag in ("--keep-state", "--resume-from-state"):
        with pytest.raises(SystemExit, match="is not there: --keep-state makes a state"):
            command(monkeypatch, "--algo", "sac", flag, "--folder", tmp_path / "none", "--ladder", tmp_path / "ladder")


def test_scores_of_another_standard_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []

    def scored(policy: object, env_id: str, standard: Standard) -> dict[str, dict[str, object]]:
        asked.append(standard.expert)
        kinds = ["deterministic", *standard.kinds_beside(88.0)]
        return {kind: {"normalized": 88.0, "n_episodes": standard.n_episodes} for kind in kinds}

    monkeypatch.setattr("zoo.behavior.ladder.score_candidate", scored)
    shutil.copy(START, tmp_path / "0.safetensors")
    for expert in (90.0, 90.0, 80.0, 80.0):
        score_ladder(tmp_path, "HalfCheetah-v5", 1, replace(EXPERT, expert=expert))
    assert asked == [90.0, 80.0]  # only the lower one asks for its own noise too
    score_ladder(tmp_path, "HalfCheetah-v5", 1, replace(EXPERT, expert=80.0, n_episodes=20))
    assert asked == [90.0, 80.0, 80.0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--start", START), "makes an expert alone: add --expert-only"),
        (("--start", START, "--expert-only", "-n", -5), "-n -5: train for at least one step"),
        (("--start", START, "--expert-only", "--folder", "nowhere"), "nowhere, which has no index.json"),
        (("--start", SAC / "es_57600000.safetensors", "--expert-only"), "is the expert that a new one replaces"),
        (("--start", SAC, "--expert-only"), "can't be read as an actor: it is a folder"),
        (("--algo", "sac", "--expert-only"), "needs --expert SCORE"),
        (("--start", START, "--expert-only", "--score-every", 0), "--score-every 0: score one actor of so many"),
        (("--start", START, "--expert-only", "--resume-from-state"), "--resume-from-state is for --algo sac, not es"),
        (("--env", "CartPole-v1", "--start", START, "--expert-only"), "CartPole-v1"),
    ],
)
def test_what_can_not_be_is_one_line_before_anything_is_made(
    arguments: tuple[object, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=said):
        command(monkeypatch, "--ladder", tmp_path / "ladder", *arguments)
    assert not (tmp_path / "ladder").exists()
