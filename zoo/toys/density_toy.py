"""
The two-mode bandit on which CPED is shown and its claims are checked: the behaviour's density is known, and the best action
lies outside it.

One state s ~ U(−1, 1) per episode. The behaviour aims at one of two opposite points ± 0.6·u(s) of the action square, where u
turns with the state, and misses by normal noise of std 0.08. The value 50·a·u(s) grows towards the corner behind one of them.
"""

import math
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch import Tensor, nn

from sb3_genoffline.cped import CPED
from sb3_genoffline.generative.behavior import Density

STATE_DIM, ACTION_DIM = 1, 2
NOISE_STD = 0.08
RADIUS = 0.6
SLOPE = 50.0
N_ROWS = 100_000
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
    return states, behave(states, generator)


def behave(states: Tensor, generator: th.Generator) -> Tensor:
    """The behaviour's actions (B, 2) in states (B, 1)."""
    signs = 2.0 * th.randint(2, (len(states), 1), generator=generator) - 1
    misses = NOISE_STD * th.randn(len(states), ACTION_DIM, generator=generator)
    return (RADIUS * signs * direction(states) + misses).clamp(-1, 1)


def true_log_prob(states: Tensor, actions: Tensor) -> Tensor:
    """log p(a | s) of the behaviour before its clamp, (B,)."""
    modes = RADIUS * direction(states)
    squared = th.stack([(actions - modes).square().sum(-1), (actions + modes).square().sum(-1)])
    return th.logsumexp(-0.5 * squared / NOISE_STD**2, dim=0) - math.log(2) - math.log(2 * math.pi * NOISE_STD**2)


def value(states: Tensor, actions: Tensor, slope: float | Tensor = SLOPE) -> Tensor:
    """Q(s, a) = 50·a·u(s), (B,); 30 at the centre of the better mode."""
    return slope * (actions * direction(states)).sum(-1)


class KnownValue(nn.Module):
    """The true value instead of twin critics: both are right from the start, and never trained."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(th.tensor(SLOPE), requires_grad=False)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """(B, 1), (B, 2) -> (2, B)"""
        return value(states, actions, self.slope).expand(2, -1)


class ToyCPED(CPED):
    """CPED with the true value as its critics, so that all that acts on the actor is known."""

    def declare_state(self) -> None:
        super().declare_state()
        self.critic = self.critic_target = KnownValue()  # type: ignore[assignment]


def make_data(n_rows: int = N_ROWS, seed: int = 0) -> dict[str, np.ndarray]:
    """Episodes of one step, as ``learn_offline`` takes them."""
    states, actions = draw_behaviour(n_rows, seed)
    return {
        "observations": states.numpy(),
        "actions": actions.numpy(),
        "rewards": value(states, actions).numpy(),
        "next_observations": states.numpy(),
        "terminals": np.ones(n_rows, dtype=bool),
        "timeouts": np.zeros(n_rows, dtype=bool),
    }


def make_agent(steps: int, constrained: bool = True, density: Density | None = None, seed: int = 0, **kwargs: Any) -> ToyCPED:
    """
    :param steps: updates it will be trained for, of which a fifth only lowers the NLL
    :param constrained: by dual descent from α = 1, or not at all (α = 0)
    :param density: a fitted one
    :param seed: of the agent
    :param kwargs: arguments over these
    """
    box = spaces.Box(-1.0, 1.0, (STATE_DIM,)), spaces.Box(-1.0, 1.0, (ACTION_DIM,))
    arguments: dict[str, Any] = {
        "learning_rate": 1e-3,
        "alpha_mode": "dual" if constrained else "fixed",
        "alpha": 1.0 if constrained else 0.0,
        "alpha_sgd": True,
        "alpha_learning_rate": 0.01,
        "critic_start": steps,
        "q_start": steps // 5,
        "policy_delay": 1,
        "flow_learning_rate": 1e-3,
        "policy_kwargs": {"net_arch": [64, 64], "flow_net_arch": [64, 64]},
    }
    return ToyCPED("FlowDensityPolicy", box, density=density, seed=seed, device="cpu", **{**arguments, **kwargs})


@th.no_grad()
def measure(states: Tensor, actions: Tensor, judge: CPED) -> dict[str, float]:
    """
    :param states: (B, 1)
    :param actions: (B, 2)
    :param judge: an agent with a fitted density
    :return: means of the learned NLL, the true NLL and the value; ``within_q99``, the share whose learned NLL is below the
        99% quantile of the data's
    """
    nll = judge.policy.nll_of_rows(states, actions)
    return {
        "nll": nll.mean().item(),
        "true_nll": -true_log_prob(states, actions).mean().item(),
        "within_q99": (nll <= judge.policy.nll_q99).double().mean().item(),
        "q": value(states, actions).mean().item(),
    }
