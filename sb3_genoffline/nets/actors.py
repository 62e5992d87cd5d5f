"""Actors that several algorithms share: deterministic, Gaussian, and tanh-squashed Gaussian."""

import math
from collections.abc import Sequence

import torch as th
from stable_baselines3.common.torch_layers import create_mlp
from torch import Tensor, nn
from torch.nn.functional import softplus

_LOG_STD_MIN, _LOG_STD_MAX = -5.0, 2.0
_SQUASHED_LOG_STD_MIN, _SQUASHED_LOG_STD_MAX = -20.0, 2.0  # SAC's


class DeterministicActor(nn.Module):
    """
    π(s) = tanh(net(s)), with PyTorch's initialisation.

    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths
    :param activation_fn: activation class
    """

    def __init__(
        self, state_dim: int, action_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(*create_mlp(state_dim, action_dim, list(net_arch), activation_fn, squash_output=True))

    def forward(self, states: Tensor) -> Tensor:
        """(B, S) -> (B, A)"""
        return self.net(states)


class GaussianActor(nn.Module):
    """
    N(μ(s), diag σ²) with μ(s) = tanh(net(s)) and one σ for all states. The Gaussian is on the action itself: no Jacobian of
    the tanh in the log-likelihood, and samples may leave [−1, 1].

    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths
    :param activation_fn: activation class
    :param torch_init: start as ``nn.Linear`` does, instead of Xavier weights, zero biases and an orthogonal last layer
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
        torch_init: bool = False,
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(*create_mlp(state_dim, action_dim, list(net_arch), activation_fn))
        if not torch_init:
            linear = [module for module in self.net if isinstance(module, nn.Linear)]
            for layer in linear:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
            nn.init.orthogonal_(linear[-1].weight, math.sqrt(2.0))
        self.log_std = nn.Parameter(th.zeros(action_dim))

    def forward(self, states: Tensor) -> Tensor:
        """μ(s): (B, S) -> (B, A)"""
        return th.tanh(self.net(states))

    def std(self) -> Tensor:
        """σ, (A,)"""
        return self.log_std.clamp(_LOG_STD_MIN, _LOG_STD_MAX).exp()

    def log_prob(self, states: Tensor, actions: Tensor) -> Tensor:
        """log N(a; μ(s), σ²), summed over action dimensions: (B,)"""
        std = self.std()
        return -(0.5 * ((actions - self(states)) / std).square() + std.log() + 0.5 * math.log(2.0 * math.pi)).sum(-1)

    def sample(self, states: Tensor, noise: Tensor) -> Tensor:
        """
        :param states: (B, S)
        :param noise: (B, A), or (B, n, A) for n actions per state
        :return: as ``noise``, unclipped
        """
        mean = self(states)
        return (mean if noise.ndim == 2 else mean.unsqueeze(1)) + self.std() * noise


class SquashedGaussianActor(nn.Module):
    """
    SAC's actor: a = tanh(u), u ~ N(μ(s), diag σ(s)²), with the tanh's Jacobian in the log-likelihood.

    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths
    :param activation_fn: activation class
    """

    def __init__(
        self, state_dim: int, action_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(*create_mlp(state_dim, 2 * action_dim, list(net_arch), activation_fn))

    def distribution(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """μ(s) and σ(s) before the tanh: (B, S) -> (B, A), (B, A)"""
        mean, log_std = self.net(states).chunk(2, dim=-1)
        return mean, log_std.clamp(_SQUASHED_LOG_STD_MIN, _SQUASHED_LOG_STD_MAX).exp()

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
        mean, std = self.distribution(states)
        if noise.ndim == 3:
            mean, std = mean.unsqueeze(1), std.unsqueeze(1)
        raw = mean + std * noise
        return th.tanh(raw), self._log_prob(raw, noise, std)

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
