"""A Gaussian actor whose σ follows the state between fixed bounds, truncated to the box of actions or not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch as th
from torch import Tensor, nn
from torch.special import ndtr, ndtri

from sb3_genoffline.nets.layers import mlp_layers
from sb3_genoffline.nets.network import Network

_LOG_STD_MIN, _LOG_STD_MAX = -5.0, 0.0
_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Normal:
    """
    N(μ, diag σ²), of one action for each state.

    :param mean: μ, (B, A)
    :param std: σ, (B, A)
    """

    mean: Tensor
    std: Tensor

    def parameters_for(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """μ and σ as they broadcast with x, (B, A) or (B, n, A)."""
        return (self.mean, self.std) if x.ndim == 2 else (self.mean.unsqueeze(1), self.std.unsqueeze(1))

    def expectation(self) -> Tensor:
        """(B, A)"""
        return self.mean

    def sample(self, draws: Tensor) -> Tensor:
        """
        :param draws: standard normal, (B, A), or (B, n, A) for n actions of each state
        :return: as ``draws``, differentiable with respect to μ and σ
        """
        mean, std = self.parameters_for(draws)
        return mean + std * draws

    def log_prob(self, actions: Tensor) -> Tensor:
        """
        :param actions: (B, A) or (B, n, A)
        :return: summed over action dimensions, (B,) or (B, n)
        """
        mean, std = self.parameters_for(actions)
        return -(0.5 * ((actions - mean) / std).square() + std.log() + _LOG_SQRT_2PI).sum(-1)


class TruncatedNormal(Normal):
    """
    N(μ, diag σ²) given that all of the action lies in [−1, 1], where μ does too.

    :param mean: μ of the normal, (B, A) in [−1, 1], which is not the expectation
    :param std: σ of the normal, (B, A)
    """

    @staticmethod
    def _mass(mean: Tensor, std: Tensor) -> Tensor:
        """Z, what of the normal lies in [−1, 1]: both tails are small as μ lies inside, so nothing cancels."""
        mass: Tensor = 1.0 - ndtr((mean - 1.0) / std) - ndtr((-1.0 - mean) / std)
        return mass

    def expectation(self) -> Tensor:
        """μ + σ·(φ(low) − φ(high))/Z with φ the normal density, (B, A)"""
        low, high = (((edge - self.mean) / self.std).square() for edge in (-1.0, 1.0))
        difference = ((-0.5 * low).exp() - (-0.5 * high).exp()) / math.sqrt(2.0 * math.pi)
        return (self.mean + self.std * difference / self._mass(self.mean, self.std)).clamp(-1.0, 1.0)

    def sample(self, draws: Tensor) -> Tensor:
        """
        By the inverse of the distribution function.

        :param draws: uniform in [0, 1), (B, A), or (B, n, A) for n actions of each state
        :return: as ``draws``, in [−1, 1], differentiable with respect to μ and σ
        """
        mean, std = self.parameters_for(draws)
        mass, eps = self._mass(mean, std), th.finfo(draws.dtype).eps
        draws = draws.clamp(eps, 1.0 - eps)
        below = ndtr((-1.0 - mean) / std) + draws * mass
        above = ndtr((mean - 1.0) / std) + (1.0 - draws) * mass
        # from the nearer tail, whose probability is not rounded to 1
        quantile: Tensor = th.where(below < above, 1.0, -1.0) * ndtri(th.minimum(below, above))
        return (mean + std * quantile).clamp(-1.0, 1.0)

    def log_prob(self, actions: Tensor) -> Tensor:
        """
        :param actions: (B, A) or (B, n, A), in [−1, 1]
        :return: summed over action dimensions, (B,) or (B, n)
        """
        return super().log_prob(actions) - self._mass(*self.parameters_for(actions)).log().sum(-1)


class BoundedGaussianActor(Network):
    """
    One network with two outputs h, l for each action dimension: μ(s) = tanh h, and log σ(s) = −5 + 2.5·(tanh l + 1), between
    −5 and 0. It starts as ``nn.Linear`` does.

    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths; none for a linear network
    :param activation_fn: activation class
    :param truncated: the normal is truncated to [−1, 1], whose bounds samples of the plain one pass
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
        truncated: bool = True,
    ) -> None:
        super().__init__()
        self.truncated = truncated
        self.net = nn.Sequential(*mlp_layers(state_dim, 2 * action_dim, net_arch, activation_fn))

    def distribution(self, states: Tensor) -> Normal:
        """Of the actions for states (B, S)."""
        raw_mean, raw_log_std = self.net(states).chunk(2, dim=-1)
        half_range = 0.5 * (_LOG_STD_MAX - _LOG_STD_MIN)
        std = (_LOG_STD_MIN + half_range * (raw_log_std.tanh() + 1.0)).exp()
        return (TruncatedNormal if self.truncated else Normal)(raw_mean.tanh(), std)

    def forward(self, states: Tensor) -> Tensor:
        """The expected action, which is not μ where the normal is truncated: (B, S) -> (B, A)"""
        return self.distribution(states).expectation()

    def draws(self, *shape: int, generator: th.Generator) -> Tensor:
        """
        The random numbers of :meth:`Normal.sample`.

        :param shape: (B, A) or (B, n, A)
        :param generator: on the network's device
        :return: uniform or standard normal, by the distribution
        """
        like = next(self.parameters())
        draw = th.rand if self.truncated else th.randn
        return draw(shape, generator=generator, device=like.device, dtype=like.dtype)
