"""
The set-up of known numbers that were computed with an algorithm's official code in double precision: a batch, random numbers
and weights from sines and cosines. k counts an array's entries, row by row.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from exact import SPACES
from torch import Tensor

from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import EnsembleLinear

B, S, A, Z = 4, 3, 2, 4


def counted(*shape: int) -> Tensor:
    """k."""
    return th.arange(np.prod(shape), dtype=th.float64).view(shape)


def normal(shape: Sequence[int], shift: float) -> Tensor:
    """In the place of standard normal numbers."""
    return 1.5 * th.sin(shift + counted(*shape))


def uniform(shape: Sequence[int], shift: float) -> Tensor:
    """In the place of uniform numbers."""
    return 0.5 + 0.45 * th.sin(shift + counted(*shape))


def golden_batch() -> TransitionBatch:
    """Four transitions, of which the third ends an episode."""
    return TransitionBatch(
        observations=th.sin(1 + counted(B, S)),
        actions=0.9 * th.cos(2 + counted(B, A)),
        rewards=th.cos(counted(B)),
        next_observations=th.sin(0.5 + counted(B, S)),
        masks=th.tensor([1.0, 1.0, 0.0, 1.0], dtype=th.float64),
    )


def fill(network: th.nn.Module, *shifts: float, heads: int = 1) -> None:
    """
    Give a network the weights of the set-up.

    :param network: its linear layers stand in the order in which they are applied
    :param shifts: of the network, or of each member of an ensemble
    :param heads: of the last layer, each of which counts its rows, and as a layer, on its own
    """
    layers = [layer for layer in network.modules() if isinstance(layer, th.nn.Linear | EnsembleLinear)]
    for t, layer in enumerate(layers):
        stacked = isinstance(layer, EnsembleLinear)
        assert stacked or len(shifts) == 1
        for member, shift in enumerate(shifts):
            weight = layer.weight.data[member].T if stacked else layer.weight.data
            bias = layer.bias.data[member, 0] if stacked else layer.bias.data
            n_heads = heads if layer is layers[-1] else 1
            for head, (w, b) in enumerate(zip(weight.chunk(n_heads), bias.chunk(n_heads), strict=True)):
                row, column = counted(len(w)), counted(w.shape[1])
                w.copy_(th.sin(0.37 * row[:, None] + 0.71 * column + t + head + shift) / w.shape[1] ** 0.5)
                b.copy_(0.1 * th.cos(0.5 * row + t + head + shift))


def golden_agent(cls: Any, vae: str = "vae", actor_heads: int = 1, **settings: Any) -> Any:
    """
    An agent with the weights of the set-up.

    :param cls: of an algorithm whose policy has actor, critics and a VAE
    :param vae: name of the VAE in the policy
    :param actor_heads: see :func:`fill`
    :param settings: arguments of the algorithm
    """
    model = cls("MlpPolicy", SPACES, seed=0, device="cpu", **settings)
    policy = model.policy
    fill(policy.actor, 0.1, heads=actor_heads)
    if hasattr(policy, "actor_target"):
        fill(policy.actor_target, 0.15, heads=actor_heads)
    fill(policy.critic, 0.2, 0.3)
    fill(policy.critic_target, 0.25, 0.35)
    fill(getattr(policy, vae).encoder, 0.4, heads=2)
    fill(getattr(policy, vae).decoder, 0.5)
    return model


def step_and_targets(model: Any, batch: TransitionBatch, noise: Any) -> tuple[dict[str, Tensor], Tensor]:
    """
    :return: what an update logs, and what the critics' regression was given as targets (B,)
    """
    found: list[Tensor] = []
    step = model.critic_step
    model.critic_step = lambda states, actions, target: found.append(target) or step(states, actions, target)
    info = model.step(batch, noise)
    model.critic_step = step
    return info, found[0]


def state_of(model: Any, *names: str) -> dict[str, Tensor]:
    """All parameters of each of an agent's networks, flat, as they are now."""
    return {name: th.cat([p.detach().flatten() for p in getattr(model, name).parameters()]) for name in names}
