"""The actor of SAC and TQC without SB3, in plain numpy: relu layers, a Gaussian whose spread depends on the state, a tanh."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from sb3_genoffline.errors import UserError
from sb3_genoffline.files.writing import replace_file

from .policy import Noise

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # SB3's bounds


@dataclass(frozen=True, eq=False, repr=False)
class SquashedPolicy:
    """
    ``tanh(mean(s) + std(s) · ε)``, scaled to the action space.

    :param weights: One ``(in, out)`` matrix per layer, the last one ``(hidden, 2 · act_dim)``: means, then log spreads
    :param biases: One ``(out,)`` vector per layer
    :param action_low: ``(act_dim,)`` lower bound of the action space
    :param action_high: ``(act_dim,)`` upper bound of the action space
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    action_low: np.ndarray
    action_high: np.ndarray

    @property
    def obs_dim(self) -> int:
        return len(self.weights[0])

    @property
    def act_dim(self) -> int:
        return len(self.action_low)

    def distribution(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        :param observations: ``(n, obs_dim)`` raw observations
        :return: ``(n, act_dim)`` float32 means and standard deviations before the tanh
        """
        hidden = observations.astype(np.float32)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ weight + bias, 0)
        mean, log_std = np.split(hidden @ self.weights[-1] + self.biases[-1], 2, axis=1)
        return mean, np.exp(np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))

    def act(self, observations: np.ndarray, noise: Noise, generator: np.random.Generator | None = None) -> np.ndarray:
        """
        Act on a batch.

        :param observations: ``(n, obs_dim)`` raw observations
        :param noise: ``"none"``: the squashed mean; ``"policy"``: sampled as it was trained; a number: the squashed mean plus
            Gaussian noise of this standard deviation in action units
        :param generator: Draws the noise; needed unless ``noise`` is ``"none"`` or 0
        :return: ``(n, act_dim)`` float32 actions inside the action space
        """
        if observations.ndim != 2 or observations.shape[1] != self.obs_dim:
            raise UserError(f"observations have shape {observations.shape}; this policy takes (n, {self.obs_dim})")
        known = noise in ("none", "policy") if isinstance(noise, str) else 0 <= noise < np.inf
        if not known:
            raise UserError(f"noise is {noise!r}; use 'none', 'policy' or a standard deviation >= 0")
        mean, std = self.distribution(observations)
        if noise in ("none", 0):
            return self._scale(np.tanh(mean))
        if generator is None:
            raise UserError(f"noise {noise!r} needs a numpy Generator; pass generator=np.random.default_rng(seed)")
        drawn = generator.standard_normal(mean.shape, dtype=np.float32)
        if noise == "policy":
            return self._scale(np.tanh(mean + std * drawn))
        return np.clip(self._scale(np.tanh(mean)) + np.float32(noise) * drawn, self.action_low, self.action_high)

    def _scale(self, squashed: np.ndarray) -> np.ndarray:
        """[-1, 1] to the action space."""
        return self.action_low + np.float32(0.5) * (squashed + 1) * (self.action_high - self.action_low)

    def save(self, path: str | Path, dtype: type = np.float16) -> None:
        """
        Write the policy as one safetensors file, in one step: a killed process leaves the old file or the new one.

        :param path: Where to
        :param dtype: Half precision halves the file; what acts is what was written, rounded
        """
        tensors = {"action_low": self.action_low, "action_high": self.action_high}
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            tensors[f"squashed{i}.weight"] = weight.astype(dtype)
            tensors[f"squashed{i}.bias"] = bias.astype(dtype)
        replace_file(Path(path), save({name: np.ascontiguousarray(array) for name, array in tensors.items()}))

    @classmethod
    def load(cls, path: str | Path) -> SquashedPolicy:
        """
        :param path: A file written by :meth:`save`; only arrays are read from it, no code
        """
        tensors = load_file(path)
        n_layers = sum(name.startswith("squashed") for name in tensors) // 2
        try:
            return cls(
                weights=tuple(tensors[f"squashed{i}.weight"].astype(np.float32) for i in range(n_layers)),
                biases=tuple(tensors[f"squashed{i}.bias"].astype(np.float32) for i in range(n_layers)),
                action_low=tensors["action_low"],
                action_high=tensors["action_high"],
            )
        except KeyError as error:
            raise UserError(f"{path} is not a behaviour policy: it has no tensor {error}") from error

    @classmethod
    def from_sb3(cls, model: Any) -> SquashedPolicy:
        """
        :param model: An SB3 SAC or sb3-contrib TQC model with ``MlpPolicy`` and relu layers
        """
        actor = model.actor
        layers = [layer for layer in actor.latent_pi if hasattr(layer, "weight")]
        weights = [layer.weight.detach().numpy().T.copy() for layer in layers]
        biases = [layer.bias.detach().numpy().copy() for layer in layers]
        heads = (actor.mu, actor.log_std)
        weights.append(np.concatenate([head.weight.detach().numpy().T for head in heads], axis=1))
        biases.append(np.concatenate([head.bias.detach().numpy() for head in heads]))
        return cls(tuple(weights), tuple(biases), model.action_space.low.copy(), model.action_space.high.copy())
