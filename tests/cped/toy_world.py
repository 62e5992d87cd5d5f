"""
What the tests need of the two-mode bandit beside the zoo's: actions that the behaviour never takes, and maximum likelihood.
"""

import torch as th
from torch import Tensor

from sb3_genoffline.generative.behavior import Density
from zoo.toys.density_toy import (
    ACTION_DIM,
    MEAN_NLL,
    NOISE_STD,
    RADIUS,
    STATE_DIM,
    direction,
    draw_behaviour,
    draw_states,
    true_log_prob,
    value,
)

__all__ = [
    "ACTION_DIM",
    "MEAN_NLL",
    "NOISE_STD",
    "RADIUS",
    "STATE_DIM",
    "direction",
    "draw_behaviour",
    "draw_states",
    "draw_unsupported",
    "fit",
    "true_log_prob",
    "value",
]


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
