"""TRPO, whose wide Gaussian the action space clips: the policies of the hard set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.writing import write_text
from .gaussian import GaussianPolicy

# rl-zoo's MuJoCo settings (2 x 1024 steps per update there), with the steps spread over 8 environments
SETTINGS: dict[str, Any] = {
    "n_envs": 8,
    "n_steps": 256,
    "batch_size": 128,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "sub_sampling_factor": 1,
    "cg_max_steps": 25,
    "cg_damping": 0.1,
    "n_critic_updates": 20,
    "learning_rate": 1e-3,
    "net_arch": [64, 64],
}


def train(env_id: str, seed: int, n_timesteps: int, ladder: Path) -> None:
    """
    :param env_id: A registered MuJoCo environment
    :param seed: Seed of the networks, the environments and the sampling
    :param n_timesteps: Environment steps, all copies together
    :param ladder: Folder that gets the actor before each update, ``<steps>.safetensors``, and ``curve.json``: [steps, mean
        return of the last 100 episodes as collected]
    """
    import torch
    from sb3_contrib import TRPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)  # sums in another order on other threads would be another policy
    settings = dict(SETTINGS)
    env = VecNormalize(make_vec_env(env_id, n_envs=settings.pop("n_envs"), seed=seed), gamma=settings["gamma"])
    policy_kwargs = {"net_arch": settings.pop("net_arch")}
    model = TRPO("MlpPolicy", env, policy_kwargs=policy_kwargs, seed=seed, device="cpu", **settings)
    curve: list[list[float]] = []

    class Keep(BaseCallback):
        def _on_rollout_start(self) -> None:
            GaussianPolicy.from_sb3(model, env).save(ladder / f"{self.num_timesteps}.safetensors")
            if model.ep_info_buffer:
                curve.append([self.num_timesteps, round(float(np.mean([e["r"] for e in model.ep_info_buffer])), 1)])

        def _on_step(self) -> bool:
            return True

    model.learn(n_timesteps, callback=Keep())
    write_text(ladder / "curve.json", json.dumps(curve))
    GaussianPolicy.from_sb3(model, env).save(ladder / f"{model.num_timesteps}.safetensors")  # which says that it is whole
