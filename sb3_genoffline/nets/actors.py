"""Actors that several algorithms share: deterministic ones, changers of given actions, Gaussian, tanh-squashed Gaussian."""

import math
from collections.abc import Sequence

import torch as th
from torch import Tensor, nn
from torch.nn.functional import softplus

from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.layers import mlp_layers
from sb3_genoffline.nets.network import Network
from sb3_genoffline.nets.widths import checked_widths

_LOG_STD_MIN, _LOG_STD_MAX = -5.0, 2.0
SQUASHED_LOG_STD = (-20.0, 2.0)
"""SAC's bounds of log σ."""


class DeterministicActor(Network):
    """
    π(s) = tanh(net(s)), with PyTorch's initialisation.

    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths; none for a linear network
    :param activation_fn: activation class
    """

    def __init__(
        self, state_dim: int, action_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(*mlp_layers(state_dim, action_dim, net_arch, activation_fn, squash_output=True))

    def forward(self, states: Tensor) -> Tensor:
        """(B, S) -> (B, A)"""
        actions: Tensor = self.net(states)
        return actions


class DropoutActor(DeterministicActor):
    """
    A deterministic actor that drops hidden units where it is told to, and only there: without random numbers it is the whole
    network, whatever the module's mode.

    :param dropout: p, the share of hidden units that are dropped, in [0, 1)
    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths; none for a linear network, of which nothing is dropped
    :param activation_fn: activation class
    :raises UserError: for a p outside [0, 1)
    """

    def __init__(
        self,
        dropout: float,
        state_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__(state_dim, action_dim, net_arch, activation_fn)
        if not 0.0 <= dropout < 1.0:
            raise UserError(f"dropout={dropout} must lie in [0, 1).")
        self.dropout, self.hidden_widths = dropout, checked_widths(net_arch)

    def forward(self, states: Tensor, uniform: Tensor | None = None) -> Tensor:
        """
        :param states: (B, S)
        :param uniform: (B, sum of the hidden widths) within [0, 1): a unit is dropped where its number is below p
        :return: (B, A)
        """
        if uniform is None:
            return super().forward(states)
        *hidden, head, squash = self.net.children()
        actions: Tensor = squash(head(_with_dropout(hidden, states, uniform, self.dropout)))
        return actions


def _with_dropout(hidden: Sequence[nn.Module], x: Tensor, uniform: Tensor, dropout: float) -> Tensor:
    """
    The output of hidden layers of which units are dropped.

    :param hidden: linear layers, each with its activation behind it
    :param x: (B, width in)
    :param uniform: (B, sum of the hidden widths) within [0, 1): a unit is dropped where its number is below ``dropout``
    :param dropout: share of the units
    """
    kept = (uniform >= dropout).to(x.dtype) / (1.0 - dropout)
    parts = th.split(kept, [int(linear.out_features) for linear in hidden[::2]], -1)  # type: ignore[arg-type]
    for linear, activation, factors in zip(hidden[::2], hidden[1::2], parts, strict=True):
        x = activation(linear(x)) * factors
    return x


class PerturbationActor(Network):
    """
    BCQ's actor: a + Φ·tanh(net(s, a)), clipped to [−1, 1], changes an action by at most Φ. With PyTorch's initialisation.

    :param max_perturbation: Φ
    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths; none for a linear network
    :param activation_fn: activation class
    """

    def __init__(
        self,
        max_perturbation: float,
        state_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.max_perturbation = max_perturbation
        self.net = nn.Sequential(*mlp_layers(state_dim + action_dim, action_dim, net_arch, activation_fn, squash_output=True))

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """
        :param states: (B, S)
        :param actions: (B, A), or (B, n, A) for n actions per state
        :return: as ``actions``
        """
        if actions.ndim > states.ndim:
            states = states.unsqueeze(1).expand(-1, actions.shape[1], -1)
        change: Tensor = self.net(th.cat([states, actions], dim=-1))
        return (actions + self.max_perturbation * change).clamp(-1.0, 1.0)


class GaussianActor(Network):
    """
    N(μ(s), diag σ²) with μ(s) = tanh(net(s)) and one σ for all states. The Gaussian is on the action itself: no Jacobian of
    the tanh in the log-likelihood, and samples may leave [−1, 1].

    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths; none for a linear network
    :param activation_fn: activation class
    :param torch_init: start as ``nn.Linear`` does, instead of Xavier weights, zero biases and an orthogonal last layer
    :param dropout: share of the hidden units that are dropped where random numbers are given, and only there
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
        torch_init: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout, self.hidden_widths = dropout, checked_widths(net_arch)
        self.net = nn.Sequential(*mlp_layers(state_dim, action_dim, net_arch, activation_fn))
        if not torch_init:
            linear = [module for module in self.net if isinstance(module, nn.Linear)]
            for layer in linear:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
            nn.init.orthogonal_(linear[-1].weight, math.sqrt(2.0))
        self.log_std = nn.Parameter(th.zeros(action_dim))

    def forward(self, states: Tensor, uniform: Tensor | None = None) -> Tensor:
        """
        :param states: (B, S)
        :param uniform: (B, sum of the hidden widths) within [0, 1), for dropout; None: the whole network
        :return: μ(s), (B, A)
        """
        if uniform is None:
            return th.tanh(self.net(states))
        *hidden, head = self.net.children()
        return th.tanh(head(_with_dropout(hidden, states, uniform, self.dropout)))

    def std(self) -> Tensor:
        """σ, (A,)"""
        return self.log_std.clamp(_LOG_STD_MIN, _LOG_STD_MAX).exp()

    def log_prob(self, states: Tensor, actions: Tensor, uniform: Tensor | None = None) -> Tensor:
        """
        log N(a; μ(s), σ²), summed over action dimensions.

        :param states: (B, S)
        :param actions: (B, A)
        :param uniform: see :meth:`forward`
        :return: (B,)
        """
        std = self.std()
        mean: Tensor = self(states, uniform)
        return -(0.5 * ((actions - mean) / std).square() + std.log() + 0.5 * math.log(2.0 * math.pi)).sum(-1)

    def sample(self, states: Tensor, noise: Tensor) -> Tensor:
        """
        :param states: (B, S)
        :param noise: (B, A), or (B, n, A) for n actions per state
        :return: as ``noise``, unclipped
        """
        mean: Tensor = self(states)
        return (mean if noise.ndim == 2 else mean.unsqueeze(1)) + self.std() * noise


class SquashedGaussianActor(Network):
    """
    SAC's actor: a = tanh(u), u ~ N(μ(s), diag σ(s)²), with the tanh's Jacobian in the log-likelihood.

    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths; none for a linear network
    :param activation_fn: activation class
    :param log_std_bounds: smallest and largest log σ (None: unbounded)
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
        log_std_bounds: tuple[float, float] | None = SQUASHED_LOG_STD,
    ) -> None:
        super().__init__()
        self.log_std_bounds = log_std_bounds
        self.net = nn.Sequential(*mlp_layers(state_dim, 2 * action_dim, net_arch, activation_fn))

    def distribution(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """μ(s) and σ(s) before the tanh: (B, S) -> (B, A), (B, A)"""
        mean, log_std = self.net(states).chunk(2, dim=-1)
        return mean, (log_std if self.log_std_bounds is None else log_std.clamp(*self.log_std_bounds)).exp()

    def forward(self, states: Tensor) -> Tensor:
        """tanh(μ(s)), the mode before the tanh: (B, S) -> (B, A)"""
        return th.tanh(self.distribution(states)[0])

    def sample(self, states: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """
        Reparametrised actions and their log-likelihood.

        :param states: (B, S)
        :param noise: (B, A), or (B, n, A) for n actions per state
        :return: as ``noise``, and the same without its last axis
        """
        raw, std = self._raw_sample(states, noise)
        return th.tanh(raw), self._log_prob(raw, noise, std)

    def raw_sample(self, states: Tensor, noise: Tensor) -> Tensor:
        """
        Reparametrised actions before the tanh.

        :param states: (B, S)
        :param noise: (B, A), or (B, n, A) for n actions per state
        :return: as ``noise``
        """
        return self._raw_sample(states, noise)[0]

    def _raw_sample(self, states: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Samples before the tanh, and their σ."""
        mean, std = self.distribution(states)
        if noise.ndim == 3:
            mean, std = mean.unsqueeze(1), std.unsqueeze(1)
        return mean + std * noise, std

    def log_prob(self, states: Tensor, actions: Tensor, edge: float = 1e-6) -> Tensor:
        """
        log π(a | s), summed over action dimensions.

        :param states: (B, S)
        :param actions: (B, A); kept ``edge`` away from ±1, where the inverse of the tanh is infinite
        :param edge: smallest distance to ±1
        :return: (B,)
        """
        mean, std = self.distribution(states)
        raw = th.atanh(actions.clamp(-1.0 + edge, 1.0 - edge))
        return self._log_prob(raw, (raw - mean) / std, std)

    @staticmethod
    def _log_prob(raw: Tensor, noise: Tensor, std: Tensor) -> Tensor:
        gaussian = -(0.5 * noise.square() + std.log() + 0.5 * math.log(2.0 * math.pi))
        # log(1 − tanh²u) = 2(log 2 − u − softplus(−2u)), which does not underflow where the tanh saturates
        return (gaussian - 2.0 * (math.log(2.0) - raw - softplus(-2.0 * raw))).sum(-1)
