"""PPO, which trains an actor of SAC or TQC on, without their critics and their buffer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from ..runs.writing import write_text
from .squashed import LOG_STD_MAX, LOG_STD_MIN, SquashedPolicy

# small steps, and the critic first: what the actor can do shall not be lost while it learns. The rate falls to 0
SETTINGS: dict[str, Any] = {
    "n_envs": 64,
    "n_steps": 256,
    "batch_size": 2048,
    "n_epochs": 5,
    "gamma": 0.98,
    "gae_lambda": 0.92,
    "clip_range": 0.2,
    "learning_rate": 3e-4,
    "target_kl": 0.03,
    "vf_net_arch": [128, 128],
    "critic_alone": {"n_updates": 20, "learning_rate": 5e-4},
}
EVERY = 10  # updates
BEFORE_TANH = 20.0  # largest action that the Gaussian may draw; its tanh is 1


class StateDependentGaussian(ActorCriticPolicy):
    """The actor of :class:`~zoo.behavior.squashed.SquashedPolicy` up to its tanh, which is the environment's here."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        assert self.action_space.shape is not None
        self.action_net = th.nn.Linear(self.mlp_extractor.latent_dim_pi, 2 * self.action_space.shape[0])
        self.log_std.requires_grad_(False)  # the spread is the state's
        self.optimizer = th.optim.Adam(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Distribution:
        mean, log_std = self.action_net(latent_pi).chunk(2, dim=-1)
        return self.action_dist.proba_distribution(mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX))

    def actor_layers(self) -> list[th.nn.Linear]:
        """From the observation to means and log spreads."""
        return [layer for layer in (*self.mlp_extractor.policy_net, self.action_net) if isinstance(layer, th.nn.Linear)]


def copy_actor(actor: SquashedPolicy, policy: StateDependentGaussian) -> None:
    """:param policy: gets the weights of ``actor``, which has layers as wide"""
    for layer, weight, bias in zip(policy.actor_layers(), actor.weights, actor.biases, strict=True):
        layer.weight.data.copy_(th.from_numpy(weight.T))
        layer.bias.data.copy_(th.from_numpy(bias))


def read_actor(policy: StateDependentGaussian, space: gym.spaces.Box) -> SquashedPolicy:
    """:param space: of the actions behind the tanh"""
    layers = policy.actor_layers()
    weights = tuple(layer.weight.detach().numpy().T.copy() for layer in layers)
    return SquashedPolicy(weights, tuple(layer.bias.detach().numpy().copy() for layer in layers), space.low, space.high)


def train(env_id: str, seed: int, n_timesteps: int, ladder: Path, actor: SquashedPolicy) -> None:
    """
    :param env_id: A registered MuJoCo environment
    :param seed: Seed of the critic, the environments and the sampling
    :param n_timesteps: Environment steps, all copies together
    :param ladder: Folder that gets the actor every 10 updates, ``<steps>.safetensors``, and ``curve.json``: [steps, mean
        return of the last 100 episodes as collected]
    :param actor: That it begins with, of SAC or TQC
    """
    th.set_num_threads(1)
    settings = dict(SETTINGS)
    alone = settings.pop("critic_alone")
    env, bounds = _before_tanh(env_id, settings.pop("n_envs"), seed, settings["gamma"])
    policy_kwargs = {
        "net_arch": {"pi": [len(bias) for bias in actor.biases[:-1]], "vf": settings.pop("vf_net_arch")},
        "activation_fn": th.nn.ReLU,
    }
    model = PPO(StateDependentGaussian, env, policy_kwargs=policy_kwargs, seed=seed, device="cpu", **settings)
    policy = cast("StateDependentGaussian", model.policy)
    copy_actor(actor, policy)
    curve: list[list[float]] = []

    class Keep(BaseCallback):
        def _on_rollout_start(self) -> None:
            if self.num_timesteps % (EVERY * SETTINGS["n_steps"] * self.training_env.num_envs) == 0:
                self.keep()

        def keep(self) -> None:
            read_actor(policy, bounds).save(ladder / f"{self.num_timesteps}.safetensors")
            if model.ep_info_buffer:
                curve.append([self.num_timesteps, round(float(np.mean([e["r"] for e in model.ep_info_buffer])), 1)])

        def _on_step(self) -> bool:
            return True

    callback, falling = Keep(), FloatSchedule(LinearSchedule(settings["learning_rate"], 0.0, 1.0))
    for n_steps, rate, actor_learns in (
        (alone["n_updates"] * model.n_steps * env.num_envs, FloatSchedule(alone["learning_rate"]), False),
        (n_timesteps, falling, True),
    ):
        model.lr_schedule = rate
        for layer in policy.actor_layers():
            layer.requires_grad_(actor_learns)
        model.learn(min(n_steps, n_timesteps) - model.num_timesteps, callback=callback, reset_num_timesteps=False)
    write_text(ladder / "curve.json", json.dumps(curve))
    callback.keep()  # which says that it is whole


def _before_tanh(env_id: str, n_envs: int, seed: int, gamma: float) -> tuple[VecNormalize, gym.spaces.Box]:
    """Environments that take actions from before the tanh, rewards scaled; and the bounds of their real actions."""
    space = gym.make(env_id).action_space
    assert isinstance(space, gym.spaces.Box)
    wide = gym.spaces.Box(-BEFORE_TANH, BEFORE_TANH, space.shape, np.float32)
    middle, half = (space.high + space.low) / 2, (space.high - space.low) / 2

    def squashed(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        return gym.wrappers.TransformAction(env, lambda action: middle + half * np.tanh(action), wide)

    envs = make_vec_env(env_id, n_envs=n_envs, seed=seed, wrapper_class=squashed)
    return VecNormalize(envs, norm_obs=False, gamma=gamma), space
