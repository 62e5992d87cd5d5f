"""PPO trains an actor on: it begins as that actor, waits for its critic, and then moves."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from sb3_genoffline.errors import UserError
from zoo.behavior import SquashedPolicy, ppo
from zoo.behavior.train import make
from zoo.behavior.trainers import TRAINERS

START = Path(ppo.__file__).parent / "halfcheetah" / "tqc_0110000.safetensors"
SMALL = {
    "learning_rate": 1e-3,
    "n_envs": 2,
    "n_steps": 4,
    "batch_size": 4,
    "n_epochs": 1,
    "critic_alone": {"n_updates": 2, "learning_rate": 5e-4},
}


def test_an_actor_waits_for_the_critic_and_moves_a_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppo, "SETTINGS", ppo.SETTINGS | SMALL)
    monkeypatch.setattr(ppo, "EVERY", 1)
    ppo.train("HalfCheetah-v5", 0, 32, tmp_path, SquashedPolicy.load(START))
    assert sorted(int(path.stem) for path in tmp_path.glob("*.safetensors")) == [0, 8, 16, 24, 32]
    begun = START.read_bytes()
    kept = [(tmp_path / f"{steps}.safetensors").read_bytes() == begun for steps in (0, 8, 16, 24, 32)]
    assert kept == [True, True, True, False, False]
    before, after = (SquashedPolicy.load(path) for path in (START, tmp_path / "32.safetensors"))
    observations = np.random.default_rng(0).normal(size=(5, before.obs_dim)).astype(np.float32)
    np.testing.assert_allclose(after.act(observations, "none"), before.act(observations, "none"), atol=0.1)


def test_the_gaussian_before_the_tanh_is_the_actors() -> None:
    import torch as th

    env, space = ppo._before_tanh("HalfCheetah-v5", 1, 0, 0.99)
    actor = SquashedPolicy.load(START)
    kwargs = {"net_arch": {"pi": [128, 128], "vf": [8]}, "activation_fn": th.nn.ReLU}
    policy = ppo.StateDependentGaussian(env.observation_space, env.action_space, lambda _: 1e-3, **kwargs)
    ppo.copy_actor(actor, policy)
    observations = np.random.default_rng(0).normal(size=(5, actor.obs_dim)).astype(np.float32)
    drawn = policy.get_distribution(th.from_numpy(observations)).distribution
    mean, std = actor.distribution(observations)
    np.testing.assert_allclose(drawn.mean.detach(), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(drawn.stddev.detach(), std, rtol=1e-4)
    np.testing.assert_array_equal(ppo.read_actor(policy, space).act(observations, "none"), actor.act(observations, "none"))


@pytest.mark.parametrize(
    ("algo", "start", "said"),
    [("ppo", None, "add --start FILE"), ("es", None, "add --start FILE"), ("sac", START, "--start is for ppo and es")],
)
def test_only_what_trains_on_begins_with_an_actor(algo: str, start: Path | None, said: str) -> None:
    assert TRAINERS[algo].trains_on == (start is None)
    with pytest.raises(UserError, match=said):
        make(argparse.Namespace(algo=algo, start=start))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("nowhere.safetensors", "can't be read as an actor"),
        ("README.md", "can't be read as an actor"),
        ("hopper/sac/sac_0170000.safetensors", "is an actor of 11 observations and 3 actions; HalfCheetah-v5 needs"),
        ("walker2d/trpo_0000000.safetensors", "is an unsquashed actor of 17 observations"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_before_anything_is_made(start: str, said: str, tmp_path: Path) -> None:
    path = Path(ppo.__file__).parent / start
    with pytest.raises(UserError, match=said):
        rest = {"score_every": 1, "resume_from_state": False, "keep_state": False, "ladder": tmp_path / "ladder"}
        make(argparse.Namespace(algo="es", start=path, env="HalfCheetah-v5", n_timesteps=None, **rest))
    assert not (tmp_path / "ladder").exists()
