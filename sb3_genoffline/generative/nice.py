"""The density that CPED's released code fits: a joint additive NICE flow with a logistic prior and one diagonal scale."""

from collections.abc import Sequence
from typing import Any

import torch as th
from torch import Tensor, nn

from sb3_genoffline.generative.behavior import Base, Density
from sb3_genoffline.nets.widths import checked_widths


def shift_network(dim_in: int, dim_out: int, net_arch: Sequence[int]) -> nn.Sequential:
    """
    LeakyReLU after every layer, the last included, and weights of U(−0.01, 0.01), as CPED's released code has it: each shift
    is nearly one-sided.
    """
    layers: list[nn.Module] = []
    for width in (*net_arch, dim_out):
        linear = nn.Linear(dim_in, width)
        nn.init.uniform_(linear.weight, -0.01, 0.01)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LeakyReLU(0.01)]
        dim_in = width
    return nn.Sequential(*layers)


class JointNICE(Density):
    """
    log p(s, a) by additive couplings of the two halves of x = [s, a] and one scaling z = y·exp(g) (Dinh et al. 2014).

    log |∂z/∂x| is one constant, so the model spreads where a state needs it only through the bends of its couplings, and
    under-fits where the spread of actions depends on the state. Kept for replicating the released code of CPED, whose
    inverse is exact only at g = 0 and whose couplings remember across calls whose turn it is; neither holds here.

    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths of the shift networks
    :param n_couplings: number of couplings (4 in CPED's second release, 2 in its first)
    """

    joint = True
    base = Base("logistic")

    def __init__(self, state_dim: int, action_dim: int, net_arch: Sequence[int] = (750, 750), n_couplings: int = 4) -> None:
        super().__init__(state_dim, action_dim)
        self.net_arch = tuple(checked_widths(net_arch))
        first = (state_dim + action_dim) // 2
        self.halves = (first, state_dim + action_dim - first)
        self.shifts = nn.ModuleList(
            shift_network(self.halves[i % 2], self.halves[1 - i % 2], net_arch) for i in range(n_couplings)
        )
        self.log_scale = nn.Parameter(th.zeros(state_dim + action_dim))

    @property
    def settings(self) -> dict[str, Any]:
        """See :attr:`Density.settings`."""
        return {
            "flow": "nice",
            "state_dim": self.state_dim,
            "action_dim": self.action_dim,
            "net_arch": list(self.net_arch),
            "n_transforms": len(self.shifts),
        }

    def encode(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Density.encode`."""
        x = th.cat([self.standardise(states), actions], dim=-1)
        halves = list(th.split(x, list(self.halves), dim=-1))
        for i, shift in enumerate(self.shifts):
            given, moved = i % 2, 1 - i % 2
            halves[moved] = halves[moved] + shift(halves[given])
        log_det = self.log_scale.sum() - self.state_std.log().sum()
        return th.cat(halves, dim=-1) * self.log_scale.exp(), log_det.expand(x.shape[:-1])

    def decode(self, states: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Density.decode`."""
        halves = list(th.split(latents * (-self.log_scale).exp(), list(self.halves), dim=-1))
        for i, shift in reversed(list(enumerate(self.shifts))):
            given, moved = i % 2, 1 - i % 2
            halves[moved] = halves[moved] - shift(halves[given])
        own_states, actions = th.split(th.cat(halves, dim=-1), [self.state_dim, self.action_dim], dim=-1)
        return own_states * self.state_std + self.state_mean, actions
