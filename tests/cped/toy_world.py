"""
The two-mode bandit on which CPED's claims are checked: the behaviour's density is known, and the best action lies outside it.

One state s ~ U(−1, 1) per episode. The behaviour aims at one of two opposite points ± 0.6·u(s) of the action square, where u
turns with the state, and misses by normal noise of std 0.08. The value 50·a·u(s) grows towards the corner behind one of them.
"""

import math

import torch as th
from torch import Tensor

from sb3_genoffline.generative.density import Density

STATE_DIM, ACTION_DIM = 1, 2
NOISE_STD = 0.08
RADIUS = 0.6
MEAN_NLL = math.log(2) + math.log(2 * math.pi * NOISE_STD**2) + 1
"""−1.52 nats: entropy of the behaviour; the modes do not overlap."""


def direction(states: Tensor) -> Tensor:
    """u(s) = (cos ½πs, sin ½πs), from (B, 1) to (B, 2)."""
    return th.cat([(0.5 * math.pi * states).cos(), (0.5 * math.pi * states).sin()], dim=-1)


def draw_states(n_rows: int, generator: th.Generator) -> Tensor:
    """(B, 1) within (−1, 1)"""
    return 2 * th.rand(n_rows, STATE_DIM, generator=generator) - 1


def draw_behaviour(n_rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """
    :return: states (B, 1) and the behaviour's actions (B, 2)
    """
    generator = th.Generator().manual_seed(seed)
    states = draw_states(n_rows, generator)
    signs = 2.0 * th.randint(2, (n_rows, 1), generator=generator) - 1
    misses = NOISE_STD * th.randn(n_rows, ACTION_DIM, generator=generator)
    return states, (RADIUS * signs * direction(states) + misses).clamp(-1, 1)


def draw_unsupported(n_rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """
    :return: states (up to B, 1) and actions uniform in the square but farther than 4 std from both modes
    """
    generator = th.Generator().manual_seed(seed)
    states = draw_states(n_rows, generator)
    actions = 2 * th.rand(n_rows, ACTION_DIM, generator=generator) - 1
    modes = RADIUS * direction(states)
    distance = th.minimum((actions - modes).norm(dim=-1), (actions + modes).norm(dim=-1))
    return states[distance > 4 * NOISE_STD], actions[distance > 4 * NOISE_STD]


def true_log_prob(states: Tensor, actions: Tensor) -> Tensor:
    """log p(a | s) of the behaviour before its clamp, (B,)."""
    modes = RADIUS * direction(states)
    squared = th.stack([(actions - modes).square().sum(-1), (actions + modes).square().sum(-1)])
    return th.logsumexp(-0.5 * squared / NOISE_STD**2, dim=0) - math.log(2) - math.log(2 * math.pi * NOISE_STD**2)


def value(states: Tensor, actions: Tensor) -> Tensor:
    """Q(s, a) = 50·a·u(s), (B,); 30 at the centre of the better mode."""
    return 50 * (actions * direction(states)).sum(-1)


def fit(density: Density, states: Tensor, actions: Tensor, n_steps: int = 1500, width: float = 0.0, seed: int = 0) -> Density:
    """
    Maximum likelihood by Adam at 3e-4 on batches of 256.

    :param width: of the dequantisation noise
    """
    generator = th.Generator().manual_seed(seed)
    optimizer = th.optim.Adam(density.parameters(), lr=3e-4)
    for _ in range(n_steps):
        rows = th.randint(len(states), (256,), generator=generator)
        batch = density.dequantise(actions[rows], width, generator)
        loss = -density.log_prob(states[rows], batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return density
