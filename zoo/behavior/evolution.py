"""Evolution strategies, which go on from an actor by the returns of whole episodes, so that a rare fall counts in full."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from ..runs.writing import write_text
from .squashed import LOG_STD_MAX, LOG_STD_MIN, SquashedPolicy

# Salimans et al. 2017, of the last layer alone, in units of its weights' standard deviation
SETTINGS: dict[str, Any] = {
    "n_pairs": 48,
    "noise_std": 0.03,
    "learning_rate": 0.005,
    "betas": (0.9, 0.99),
    "clip": 2.0,
    "averaging": 0.99,  # falls are rare: one update's pairs may have seen none
}
EVERY = 25
STEPS = 1000  # of an episode


def train(env_id: str, seed: int, n_timesteps: int, ladder: Path, actor: SquashedPolicy) -> None:
    """
    :param env_id: A registered MuJoCo environment
    :param seed: Seed of the perturbations and the episodes
    :param n_timesteps: Environment steps, all episodes together
    :param ladder: Folder that gets the actor every 25 updates, ``<steps>.safetensors``, its layer a moving average over the
        updates, and ``curve.json``: [steps, mean return of the last update's perturbed actors]
    :param actor: That it begins with, of SAC, TQC or PPO
    """
    generator = np.random.default_rng(seed)
    n_pairs, noise_std = SETTINGS["n_pairs"], SETTINGS["noise_std"]
    envs = [gym.make(env_id).unwrapped for _ in range(2 * n_pairs)]
    begun = np.concatenate([actor.weights[-1], actor.biases[-1][None]])  # the layer, its biases as one more row
    unit = actor.weights[-1].std()
    moved, average = th.zeros(begun.shape), th.zeros(begun.shape)
    optimizer = th.optim.Adam([moved], SETTINGS["learning_rate"], SETTINGS["betas"], maximize=True)
    per_update = 2 * n_pairs * STEPS
    curve: list[list[float]] = []

    def keep(steps: int) -> None:
        layer = begun + unit * average.numpy()
        kept = replace(actor, weights=(*actor.weights[:-1], layer[:-1]), biases=(*actor.biases[:-1], layer[-1]))
        kept.save(ladder / f"{steps}.safetensors")

    keep(0)
    for update in range(1, -(-n_timesteps // per_update) + 1):
        directions = generator.standard_normal((n_pairs, *begun.shape), dtype=np.float32)
        both = np.concatenate([directions, -directions])
        seeds = np.tile(generator.integers(2**31, size=n_pairs), 2)  # a pair starts alike and draws the same noise
        returns = episode_returns(actor, begun + unit * (moved.numpy() + noise_std * both), envs, seeds)
        differences = returns[:n_pairs] - returns[n_pairs:]
        clipped = np.clip(differences / (np.abs(differences).mean() + 1e-8), -SETTINGS["clip"], SETTINGS["clip"])
        moved.grad = th.from_numpy((clipped[:, None, None] * directions).mean(0).astype(np.float32))
        optimizer.step()
        average.lerp_(moved, 1 - SETTINGS["averaging"])
        curve.append([update * per_update, round(float(returns.mean()), 1)])
        if update % EVERY == 0:
            keep(update * per_update)
    write_text(ladder / "curve.json", json.dumps(curve))
    keep(update * per_update)  # which says that it is whole


def episode_returns(actor: SquashedPolicy, layers: np.ndarray, envs: list[Any], seeds: np.ndarray) -> np.ndarray:
    """
    :param actor: Whose layers but the last are used
    :param layers: ``(n, hidden + 1, 2 · act_dim)`` last layers, one for each environment, biases as the last row
    :param envs: n environments without a time limit
    :param seeds: ``(n,)`` of the states that episodes start from, and of the actors' noise
    :return: ``(n,)`` returns of one episode each, of at most 1,000 steps, with the actors' own noise
    """
    observations = np.stack([env.reset(seed=int(seed))[0] for env, seed in zip(envs, seeds, strict=True)])
    shape = (STEPS, actor.act_dim)
    noises = np.stack([np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in seeds], axis=1)
    low, half = actor.action_low, (actor.action_high - actor.action_low) / 2
    returns, running = np.zeros(len(envs)), np.ones(len(envs), bool)
    for noise in noises:
        hidden = observations.astype(np.float32)
        for weight, bias in zip(actor.weights[:-1], actor.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ weight + bias, 0)
        mean, log_std = np.split(np.einsum("ni,nio->no", hidden, layers[:, :-1]) + layers[:, -1], 2, axis=1)
        drawn = np.tanh(mean + np.exp(np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)) * noise)
        actions = low + half * (drawn + 1)
        for i in np.flatnonzero(running):
            observations[i], reward, terminated, _, _ = envs[i].step(actions[i])
            returns[i] += reward
            running[i] = not terminated
        if not running.any():
            break
    return returns
