"""
What exact-update tests need: comparison with known numbers, tiny agents in double precision, a batch, and their networks,
gradients and Adam in numpy.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.data.buffers import TransitionBatch

S, A, B, GAMMA = 3, 2, 7, 0.97
SPACES = (spaces.Box(-np.inf, np.inf, (S,)), spaces.Box(-1.0, 1.0, (A,)))
OBS_MEAN, OBS_STD = np.array([0.5, -1.0, 0.2]), np.array([2.0, 0.7, 1.3])
Weights = dict[str, np.ndarray]


def close(actual: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """Equal up to an absolute error; tensors, arrays, lists and numbers alike."""
    actual, expected = (x.detach() if isinstance(x, th.Tensor) else x for x in (actual, expected))
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=tolerance)


def make_agent(cls: type[OfflineAlgorithm], **changes: Any) -> Any:
    """An agent with observation statistics and targets that are not its online networks; needs the fixture ``float64``."""
    settings = {"gamma": GAMMA, "seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [6, 5]}}
    model = cls("MlpPolicy", SPACES, **(settings | changes))
    model.policy.set_observation_statistics(th.as_tensor(OBS_MEAN), th.as_tensor(OBS_STD))
    generator = th.Generator().manual_seed(3)
    for name, parameter in model.policy.named_parameters():
        if "target" in name:
            parameter.data += 0.3 * th.randn(parameter.shape, generator=generator)
    return model


def make_batch(seed: int = 0) -> TransitionBatch:
    """Seven transitions, of which three end an episode for good."""
    rng = np.random.default_rng(seed)
    observations, next_observations = OBS_MEAN + OBS_STD * rng.normal(size=(2, B, S))
    arrays = (observations, rng.uniform(-1, 1, (B, A)), rng.normal(size=B), next_observations, np.arange(B) % 3 > 0)
    return TransitionBatch(*(th.as_tensor(array, dtype=th.float64) for array in arrays))


def standardised(observations: th.Tensor) -> np.ndarray:
    return (observations.numpy() - OBS_MEAN) / OBS_STD


def weights_of(module: th.nn.Module) -> Weights:
    """Parameters by name, in PyTorch's order."""
    return {name: parameter.detach().numpy().copy() for name, parameter in module.named_parameters()}


def gradient_of(module: th.nn.Module) -> np.ndarray:
    """Of the last step, flat."""
    return np.concatenate([parameter.grad.numpy().ravel() for parameter in module.parameters()])  # type: ignore[union-attr]


def flat(weights: Weights) -> np.ndarray:
    return np.concatenate([array.ravel() for array in weights.values()])


def mlp(weights: Weights, x: np.ndarray) -> np.ndarray:
    """Linear layers with ReLU between them; those of an ensemble, (H, in, out), give (H, B, out)."""
    layers = [name.removesuffix("weight") for name in weights if name.endswith("weight")]
    for layer in layers:
        weight = weights[f"{layer}weight"]
        x = x @ (weight if weight.ndim == 3 else weight.T) + weights[f"{layer}bias"]
        x = x if layer == layers[-1] else np.maximum(x, 0.0)
    return x


def q_values(critics: Weights, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """(H, B)"""
    return mlp(critics, np.concatenate([states, actions], axis=1))[..., 0]


def std_of(actor: Weights) -> np.ndarray:
    """σ: that of AWAC's actor is bounded by a sigmoid, that of the others clipped."""
    if "std_logit" in actor:
        return np.exp(6 / (1 + np.exp(-actor["std_logit"])) - 6)
    return np.exp(np.clip(actor["log_std"], -5, 2))


def log_normal(actor: Weights, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """log N(a; tanh(net(s)), σ²), summed over action dimensions: (B,)"""
    std = std_of(actor)
    z = (actions - np.tanh(mlp(actor, states))) / std
    return (-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(1)


def gaussian_sample(actor: Weights, states: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Clipped to the box."""
    return np.clip(np.tanh(mlp(actor, states)) + std_of(actor) * noise, -1, 1)


def numeric_gradient(weights: Weights, loss: Callable[[Weights], float], step: float = 1e-6) -> np.ndarray:
    """Central differences of a loss with respect to every weight, flat."""
    gradient = []
    for array in weights.values():
        for index in np.ndindex(array.shape):
            old, values = array[index], []
            for sign in (1.0, -1.0):
                array[index] = old + sign * step
                values.append(loss(weights))
            array[index] = old
            gradient.append((values[0] - values[1]) / (2 * step))
    return np.array(gradient)


def adam_first_step(weights: Weights, gradient: np.ndarray, rate: float, weight_decay: float = 0.0) -> np.ndarray:
    """Flat weights after Adam's first step, in which both moments are unbiased estimates of one gradient."""
    gradient = gradient + weight_decay * flat(weights)
    return flat(weights) - rate * gradient / (np.abs(gradient) + 1e-8)


def assert_close(found: Any, expected: Any, rtol: float = 1e-6, atol: float = 1e-8) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol, atol=atol)
