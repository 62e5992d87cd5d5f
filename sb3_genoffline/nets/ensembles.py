"""Ensembles of Q-functions as stacked weights: one batched matrix product per layer instead of one per member."""

from collections.abc import Sequence
from itertools import pairwise

import torch as th
from torch import Tensor, nn

from sb3_genoffline.nets.activations import Mish, replacing
from sb3_genoffline.nets.blocks import fits_cache, state_blocks
from sb3_genoffline.nets.layers import Layers
from sb3_genoffline.nets.network import Network, parameters_of
from sb3_genoffline.nets.widths import checked_widths

_MANY_ROWS = 2048
"""So many rows keep a CPU busy, member by member; fewer do so for all members together."""


class EnsembleLinear(nn.Module):
    """
    H linear layers side by side.

    :param n_members: H
    :param n_inputs: width in
    :param n_outputs: width out
    :param torch_init: start as ``nn.Linear`` does, U(± 1/√in), instead of Xavier weights and zero biases
    """

    def __init__(self, n_members: int, n_inputs: int, n_outputs: int, torch_init: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(th.empty(n_members, n_inputs, n_outputs))
        self.bias = nn.Parameter(th.zeros(n_members, 1, n_outputs))
        if torch_init:
            bound = n_inputs**-0.5
            nn.init.uniform_(self.weight, -bound, bound)
            nn.init.uniform_(self.bias, -bound, bound)
            return
        for member in self.weight:  # the fans are one member's, not the stack's
            nn.init.xavier_uniform_(member.data)

    def forward(self, x: Tensor, member: int | None = None) -> Tensor:
        """
        :param x: (H, B, in), or (..., in) for one member
        :param member: which one; None: all
        :return: (H, B, out) or (..., out)
        """
        if member is None:
            return th.baddbmm(self.bias, x, self.weight)
        return nn.functional.linear(x, self.weight[member].T, self.bias[member, 0])

    def halves(self, x: Tensor, member: int | None = None) -> tuple[Tensor, Tensor]:
        """The product and the bias whose sum :meth:`forward` is."""
        if member is None:
            return th.bmm(x, self.weight), self.bias
        return x @ self.weight[member], self.bias[member]


class EnsembleQ(Network):
    """
    H independent Q-functions Q_h(s, a): MLPs on ``[state, action]``, each member initialised on its own.

    :param n_critics: H
    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths; none for linear Q-functions
    :param activation_fn: activation class
    :param layer_norm: LayerNorm without scale and shift before each activation (not in the DAC paper)
    :param torch_init: start as ``nn.Linear`` does
    :raises UserError: for widths that are not positive whole numbers
    """

    def __init__(
        self,
        n_critics: int,
        state_dim: int,
        action_dim: int,
        net_arch: Sequence[int] = (256, 256, 256),
        activation_fn: type[nn.Module] = Mish,
        layer_norm: bool = False,
        torch_init: bool = False,
    ) -> None:
        super().__init__()
        self.n_critics, self.state_dim = n_critics, state_dim
        widths = [*checked_widths(net_arch), 1]
        self.input_layer = EnsembleLinear(n_critics, state_dim + action_dim, widths[0], torch_init)
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            if layer_norm:
                layers.append(nn.LayerNorm(width_in, elementwise_affine=False))
            layers += [replacing(activation_fn), EnsembleLinear(n_critics, width_in, width_out, torch_init)]
        self.trunk = Layers(*layers)

    @property
    def output_layer(self) -> EnsembleLinear:
        """The last layer, which is the first too if there are no hidden ones."""
        layer = self.trunk[-1] if len(self.trunk) > 0 else self.input_layer
        assert isinstance(layer, EnsembleLinear)
        return layer

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """
        :param states: (B, S)
        :param actions: (B, A)
        :return: (H, B)
        """
        x = th.cat([states, actions], dim=-1)
        values: Tensor = self.trunk(x.expand(self.n_critics, *x.shape), first=self.input_layer)
        return values.squeeze(-1)

    def of_member(self, member: int, states: Tensor, actions: Tensor) -> Tensor:
        """
        Q of one member, at the cost of one.

        :param member: h
        :param states: (B, S)
        :param actions: (B, A)
        :return: (B,)
        """
        values: Tensor = self.trunk(th.cat([states, actions], dim=-1), first=self.input_layer, member=member)
        return values.squeeze(-1)

    def of_samples(self, states: Tensor, actions: Tensor) -> Tensor:
        """
        Q of n actions per state, with gradients. Of few pairs, the states' part of the first layer is computed once per state.

        :param states: (B, S)
        :param actions: (B, n, A)
        :return: (H, B, n)
        """
        n_states, n_samples, action_dim = actions.shape
        if n_samples == 1:
            return self(states, actions.squeeze(1)).unsqueeze(-1)  # type: ignore[no-any-return]
        if th.is_grad_enabled() and actions.device.type == "cpu" and n_states * n_samples >= _MANY_ROWS:
            pairs = th.cat([states.repeat_interleave(n_samples, 0), actions.flatten(0, 1)], dim=-1)
            each = [self.trunk(pairs, first=self.input_layer, member=member) for member in range(self.n_critics)]
            return th.stack(each).view(self.n_critics, n_states, n_samples)
        w_action, state_part = self._first_layer(states)
        rows = actions.reshape(1, -1, action_dim).expand(self.n_critics, -1, -1)  # (H, B·n, A)
        hidden = th.unflatten(th.bmm(rows, w_action), 1, (-1, n_samples)).add_(state_part.unsqueeze(2))
        values: Tensor = self.trunk(hidden.flatten(1, 2))
        return values.view(self.n_critics, n_states, n_samples)

    def _first_layer(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's weights of actions (H, A, h), and its output for action 0: (H, B, h)."""
        n_actions = self.input_layer.weight.shape[1] - self.state_dim
        w_state, w_action = th.split(self.input_layer.weight, [self.state_dim, n_actions], dim=1)
        return w_action, th.baddbmm(self.input_layer.bias, states.expand(self.n_critics, *states.shape), w_state)

    @th.no_grad()
    def score_samples(self, states: Tensor, actions: Tensor) -> Tensor:
        """
        :meth:`of_samples` without gradients, in blocks that stay in a CPU's cache.

        :param states: (B, S)
        :param actions: (B, n, A)
        :return: (H, B, n)
        """
        n_states, n_samples, action_dim = actions.shape
        if fits_cache(states, n_samples):
            return self.of_samples(states, actions)
        w_action, state_part = self._first_layer(states)
        scores = actions.new_empty(self.n_critics, n_states, n_samples)
        for part in state_blocks(n_states, n_samples):
            rows = actions[part].reshape(-1, action_dim)  # (b·n, A)
            for member in range(self.n_critics):
                hidden = th.unflatten(rows @ w_action[member], 0, (-1, n_samples))
                given = state_part[member, part].unsqueeze(1)  # (b, 1, h)
                scores[member, part] = self.trunk(hidden, given, member=member).squeeze(-1)
        return scores


@th.no_grad()
def soft_update(online: nn.Module, target: nn.Module, tau: float) -> None:
    """
    φ̄ ← τφ + (1 − τ)φ̄ for all parameters in one call. (SB3's ``polyak_update`` makes two calls a parameter.)

    :param online: φ
    :param target: φ̄
    :param tau: τ, the share of the online parameters
    """
    th._foreach_lerp_(parameters_of(target), parameters_of(online), tau)


def soft_minimum(values: Tensor, share: float) -> Tensor:
    """
    BCQ's soft clipping of values: λ·min + (1 − λ)·max over the members of an ensemble.

    :param values: (H, ...)
    :param share: λ, of the minimum
    :return: (...)
    """
    return share * values.amin(0) + (1.0 - share) * values.amax(0)


def start_small(layer: nn.Module, half_width: float) -> None:
    """
    Draw a linear layer's weights and biases from U(± half_width).

    :param layer: ``nn.Linear`` or :class:`EnsembleLinear`
    :param half_width: ≥ 0
    """
    assert isinstance(layer, nn.Linear | EnsembleLinear)
    nn.init.uniform_(layer.weight, -half_width, half_width)
    nn.init.uniform_(layer.bias, -half_width, half_width)
