"""
Weights and inputs for comparisons with numbers of the authors' functions, which were given the same; all in float64.

Numbers named ``b`` count rows, ``i`` and ``j`` columns.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import exact
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import Tensor, nn

from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import EnsembleLinear, EnsembleQ

B, S, A = 6, 3, 2
SPACES = (spaces.Box(-np.inf, np.inf, (S,)), spaces.Box(-1, 1, (A,)))


def close(actual: Any, expected: Any, tolerance: float = 2e-10) -> None:
    """See :func:`exact.close`; the numbers have ten digits."""
    exact.close(actual, expected, tolerance)


def grid(*shape: int) -> list[Tensor]:
    """The index along each axis, everywhere."""
    return list(th.meshgrid(*(th.arange(n, dtype=th.float64) for n in shape), indexing="ij"))


@th.no_grad()
def fill(weight: Tensor, bias: Tensor, layer: int, member: int, factor: float = 1.0) -> None:
    """weight[i, j] = sin(1 + 1.3i + 0.7j + 2.1l + 0.9m)/√fan_in with i the input, bias[j] = 0.1·cos(j + l + 0.9m), times f."""
    i, j = grid(*weight.shape)
    weight.copy_(factor * th.sin(1 + 1.3 * i + 0.7 * j + 2.1 * layer + 0.9 * member) / math.sqrt(weight.shape[0]))
    bias.copy_(factor * 0.1 * th.cos(th.arange(weight.shape[1]) + layer + 0.9 * member))


def fill_network(network: nn.Module | Sequence[nn.Module], member: int, factor: float = 1.0) -> None:
    """Fill all linear layers of a network, numbered in order."""
    modules = network.modules() if isinstance(network, nn.Module) else network
    for layer, linear in enumerate(module for module in modules if isinstance(module, nn.Linear)):
        fill(linear.weight.T, linear.bias, layer, member, factor)


def fill_critics(critics: EnsembleQ, factor: float = 1.0) -> None:
    """Fill the members of an ensemble, which are networks 0, 1, ..."""
    for layer, linear in enumerate(module for module in critics.modules() if isinstance(module, EnsembleLinear)):
        for member in range(critics.n_critics):
            fill(linear.weight[member], linear.bias[member, 0], layer, member, factor)


def golden_batch() -> TransitionBatch:
    """Six transitions, of which the second ends an episode for good."""
    b, i = grid(B, S)
    row, column = grid(B, A)
    return TransitionBatch(
        observations=th.sin(0.5 * b + i),
        actions=0.8 * th.cos(row + 2 * column),
        rewards=th.cos(b[:, 0]),
        next_observations=th.sin(0.5 * b + i + 0.3),
        masks=th.tensor([1.0, 0.0, 1.0, 1.0, 1.0, 1.0], dtype=th.float64),
    )


def gradient_norm(network: nn.Module) -> float:
    """Of the gradients that the last step left behind."""
    return math.sqrt(sum(float(p.grad.square().sum()) for p in network.parameters() if p.grad is not None))


@contextmanager
def recorded_norms() -> Iterator[list[float]]:
    """The norms of the gradients that are clipped, as they are before."""
    norms: list[float] = []
    clip = th.nn.utils.clip_grad_norm_

    def recording_clip(parameters: Any, max_norm: float) -> Tensor:
        norm = clip(parameters, max_norm)
        norms.append(norm.item())
        return norm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(th.nn.utils, "clip_grad_norm_", recording_clip)
        yield norms
