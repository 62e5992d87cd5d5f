"""A behaviour policy without SB3: a small tanh actor behind an observation normaliser, in plain numpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from sb3_genoffline.errors import UserError
from sb3_genoffline.files.writing import replace_file

from .policy import Noise

EPSILON = 1e-8  # what VecNormalize adds to the variance


@dataclass(frozen=True, eq=False, repr=False)
class GaussianPolicy:
    """
    A Gaussian actor as TRPO trained it: normalise the observation, two tanh layers, a linear mean, a state-independent spread.

    :param weights: One ``(in, out)`` matrix per layer, float32
    :param biases: One ``(out,)`` vector per layer, float32
    :param log_std: ``(act_dim,)`` logarithm of the spread the policy was trained with
    :param obs_mean: ``(obs_dim,)`` running mean of the observations, float64
    :param obs_var: ``(obs_dim,)`` running variance of the observations, float64
    :param clip_obs: Normalised observations are clipped to plus and minus this
    :param action_low: ``(act_dim,)`` lower bound of the action space
    :param action_high: ``(act_dim,)`` upper bound of the action space
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    log_std: np.ndarray
    obs_mean: np.ndarray
    obs_var: np.ndarray
    clip_obs: float
    action_low: np.ndarray
    action_high: np.ndarray

    @property
    def obs_dim(self) -> int:
        return len(self.obs_mean)

    @property
    def act_dim(self) -> int:
        return len(self.log_std)

    def mean_action(self, observations: np.ndarray) -> np.ndarray:
        """
        :param observations: ``(n, obs_dim)`` raw observations
        :return: ``(n, act_dim)`` float32 means of the Gaussian, not clipped
        """
        scaled = (observations - self.obs_mean) / np.sqrt(self.obs_var + EPSILON)
        hidden = np.clip(scaled, -self.clip_obs, self.clip_obs).astype(np.float32)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.tanh(hidden @ weight + bias)
        return hidden @ self.weights[-1] + self.biases[-1]

    def std(self, noise: Noise) -> np.ndarray:
        """
        :param noise: ``"none"``, ``"policy"`` (the spread the policy was trained with) or a standard deviation in action units
        :return: ``(act_dim,)`` float32 standard deviation of the action noise
        """
        if noise == "policy":
            return np.exp(self.log_std)
        if noise == "none":
            return np.zeros_like(self.log_std)
        if isinstance(noise, str) or not np.isfinite(noise) or noise < 0:
            raise UserError(f"noise is {noise!r}; use 'none', 'policy' or a standard deviation >= 0")
        return np.full_like(self.log_std, noise)

    def act(self, observations: np.ndarray, noise: Noise, generator: np.random.Generator | None = None) -> np.ndarray:
        """
        Act on a batch.

        :param observations: ``(n, obs_dim)`` raw observations
        :param noise: ``"none"``, ``"policy"`` or a standard deviation, see :meth:`std`
        :param generator: Draws the noise; needed unless ``noise`` is ``"none"`` or 0
        :return: ``(n, act_dim)`` float32 actions, clipped to the action space
        """
        if observations.ndim != 2 or observations.shape[1] != self.obs_dim:
            raise UserError(f"observations have shape {observations.shape}; this policy takes (n, {self.obs_dim})")
        actions = self.mean_action(observations)
        std = self.std(noise)
        if std.any():
            if generator is None:
                raise UserError(f"noise {noise!r} needs a numpy Generator; pass generator=np.random.default_rng(seed)")
            actions = actions + std * generator.standard_normal(actions.shape, dtype=np.float32)
        return np.clip(actions, self.action_low, self.action_high)

    def save(self, path: str | Path) -> None:
        """Write the policy as one safetensors file, in one step: a killed process leaves the old file or the new one."""
        tensors = {
            "log_std": self.log_std,
            "obs_mean": self.obs_mean,
            "obs_var": self.obs_var,
            "clip_obs": np.array([self.clip_obs], dtype=np.float64),
            "action_low": self.action_low,
            "action_high": self.action_high,
        }
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            tensors[f"layer{i}.weight"] = weight
            tensors[f"layer{i}.bias"] = bias
        replace_file(Path(path), save({name: np.ascontiguousarray(array) for name, array in tensors.items()}))

    @classmethod
    def load(cls, path: str | Path) -> GaussianPolicy:
        """
        :param path: A file written by :meth:`save`; only arrays are read from it, no code
        """
        tensors = load_file(path)
        n_layers = sum(name.startswith("layer") for name in tensors) // 2
        try:
            return cls(
                weights=tuple(tensors[f"layer{i}.weight"] for i in range(n_layers)),
                biases=tuple(tensors[f"layer{i}.bias"] for i in range(n_layers)),
                log_std=tensors["log_std"],
                obs_mean=tensors["obs_mean"],
                obs_var=tensors["obs_var"],
                clip_obs=float(tensors["clip_obs"][0]),
                action_low=tensors["action_low"],
                action_high=tensors["action_high"],
            )
        except KeyError as error:
            raise UserError(f"{path} is not a behaviour policy: it has no tensor {error}") from error

    @classmethod
    def from_sb3(cls, model: Any, vec_normalize: Any) -> GaussianPolicy:
        """
        :param model: An SB3 on-policy model with ``MlpPolicy`` and tanh layers
        :param vec_normalize: The ``VecNormalize`` it was trained behind
        """
        linears = [layer for layer in model.policy.mlp_extractor.policy_net if hasattr(layer, "weight")]
        linears.append(model.policy.action_net)
        return cls(
            weights=tuple(layer.weight.detach().numpy().T.copy() for layer in linears),
            biases=tuple(layer.bias.detach().numpy().copy() for layer in linears),
            log_std=model.policy.log_std.detach().numpy().copy(),
            obs_mean=vec_normalize.obs_rms.mean.copy(),
            obs_var=vec_normalize.obs_rms.var.copy(),
            clip_obs=float(vec_normalize.clip_obs),
            action_low=model.action_space.low.copy(),
            action_high=model.action_space.high.copy(),
        )
