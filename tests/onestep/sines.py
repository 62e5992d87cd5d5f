"""The inputs of the known numbers, all of them sines and cosines: rows, random numbers, weights."""

from typing import Any

import numpy as np
import torch as th
from exact import SPACES
from torch import Tensor, nn

from sb3_genoffline import Onestep
from sb3_genoffline.data.batches import SarsaBatch
from sb3_genoffline.nets.ensembles import EnsembleLinear

B, S, A = 4, 3, 2


def counted(*shape: int) -> Tensor:
    """0, 1, 2, ... row by row."""
    return th.arange(np.prod(shape), dtype=th.float64).view(shape)


def normal(c: float, *shape: int) -> Tensor:
    """In the place of standard normal numbers."""
    return 1.5 * (c + counted(*shape)).sin()


def uniform(c: float, *shape: int) -> Tensor:
    """In the place of uniform numbers."""
    return 0.5 + 0.45 * (c + counted(*shape)).sin()


def sarsa_batch() -> SarsaBatch:
    """Four transitions, of which the third ends an episode."""
    return SarsaBatch(
        observations=(1.0 + counted(B, S)).sin(),
        actions=0.9 * (2.0 + counted(B, A)).cos(),
        rewards=counted(B).cos(),
        next_observations=(0.5 + counted(B, S)).sin(),
        masks=th.tensor([1.0, 1.0, 0.0, 1.0], dtype=th.float64),
        next_actions=0.9 * (3.0 + counted(B, A)).cos(),
    )


def fill(network: nn.Module, shift: float) -> None:
    """
    :param network: its linear layers stand in the order in which they are applied; an ensemble has one member
    :param shift: of all their numbers
    """
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | EnsembleLinear)]
    for t, layer in enumerate(layers):
        weight = layer.weight.data if isinstance(layer, nn.Linear) else layer.weight.data[0].T
        row, column = counted(len(weight)), counted(weight.shape[1])
        weight.copy_((0.37 * row[:, None] + 0.71 * column + t + shift).sin() / len(column) ** 0.5)
        layer.bias.data.view(-1).copy_(0.1 * (0.5 * row + t + shift).cos())


def make_onestep(**settings: Any) -> Onestep:
    """An agent with such weights: π 0.45, β̂ 0.4, Q 0.2."""
    model = Onestep("MlpPolicy", SPACES, seed=0, device="cpu", policy_kwargs={"net_arch": [32, 32]}, **settings)
    models = model.policy.behavior_and_q
    for network, shift in ((model.actor, 0.45), (models.behavior, 0.4), (models.critic, 0.2)):
        fill(network, shift)
    return model
