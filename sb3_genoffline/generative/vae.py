"""The conditional variational auto-encoder of actions that BCQ and its successors share, and SPOT's bounds on log p(a | s)."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch as th
from torch import Tensor, nn

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.behavior import BehaviourModel
from sb3_genoffline.nets.widths import checked_widths

_LOG_STD_MIN, _LOG_STD_MAX = -4.0, 15.0


class ConditionalVAE(BehaviourModel):
    """
    p(a | s) = ∫ p(a | s, z) p(z) dz with z ~ N(0, I), a decoder N(tanh net(s, z), σ_a²·I) and an encoder
    q(z | s, a) = N(μ, diag σ²).

    The released loss of BCQ, BEAR, PLAS and SPOT, mean_A (μ_a − a)² + β·mean_Z KL, is β/Z times −ELBO in nats where
    σ_a² = βA/(2Z), up to a constant (:attr:`unit`); with Z = 2A this is the σ_a² = β/4 of SPOT's density estimate. So β sets
    how finely actions are told apart, and no density here is higher than that of the decoder's normal at its centre.

    The only randomness is the noise that is passed in.

    :param state_dim: S
    :param action_dim: A
    :param latent_dim: Z (None: 2A)
    :param net_arch: hidden widths of encoder and decoder; none for linear ones
    :param beta: β > 0
    """

    kind: ClassVar[str] = "ConditionalVAE"

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        latent_dim: int | None = None,
        net_arch: Sequence[int] = (750, 750),
        beta: float = 0.5,
    ) -> None:
        super().__init__(state_dim, action_dim)
        net_arch = checked_widths(net_arch)
        if not beta > 0:
            raise UserError(f"beta={beta} must be positive: it is the weight of the KL term and sets the decoder's variance.")
        if latent_dim is not None and latent_dim < 1:
            raise UserError(f"latent_dim={latent_dim} must be at least 1.")
        self.latent_dim, self.net_arch, self.beta = latent_dim or 2 * action_dim, tuple(net_arch), beta
        self.encoder = _mlp([state_dim + action_dim, *net_arch, 2 * self.latent_dim])
        self.decoder = _mlp([state_dim + self.latent_dim, *net_arch, action_dim])

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "state_dim": self.state_dim,
            "action_dim": self.action_dim,
            "latent_dim": self.latent_dim,
            "net_arch": list(self.net_arch),
            "beta": self.beta,
        }

    @property
    def unit(self) -> float:
        """β/Z: a nat in the unit of the released loss, which SPOT's λ is made for."""
        return self.beta / self.latent_dim

    @property
    def action_variance(self) -> float:
        """σ_a² of the decoder."""
        return self.beta * self.action_dim / (2.0 * self.latent_dim)

    def encode(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """
        :param states: (..., S)
        :param actions: (..., A)
        :return: μ and σ of q(z | s, a), (..., Z)
        """
        mean, log_std = self.encoder(th.cat([self.standardise(states), actions], dim=-1)).chunk(2, dim=-1)
        return mean, log_std.clamp(_LOG_STD_MIN, _LOG_STD_MAX).exp()

    def decode(self, states: Tensor, latents: Tensor) -> Tensor:
        """
        :param states: (..., S)
        :param latents: (..., Z), or (..., n, Z) for n actions per state; standard normal ones give samples of the behaviour's
            actions, without the decoder's noise
        :return: the decoder's mean, (..., A) or (..., n, A), within [−1, 1]
        """
        return self.decode_raw(states, latents).tanh()

    def decode_raw(self, states: Tensor, latents: Tensor) -> Tensor:
        """
        :meth:`decode` before the tanh.

        :param states: (..., S)
        :param latents: (..., Z), or (..., n, Z) for n actions per state
        :return: (..., A) or (..., n, A), unbounded
        """
        states = self.standardise(states)
        if latents.ndim > states.ndim:
            states = states.unsqueeze(-2).expand(*latents.shape[:-1], -1)
        raw: Tensor = self.decoder(th.cat([states, latents], dim=-1))
        return raw

    def elbo(self, states: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        """
        E_q[log p(a | s, z)] − KL[q(z | s, a) ‖ p(z)], the expectation over L draws: at most log p(a | s).

        :param states: (B, S)
        :param actions: (B, A)
        :param noise: (B, L, Z) standard normal
        :return: (B,), in nats
        """
        reconstruction, divergence = self.elbo_terms(states, actions, noise)
        return reconstruction - divergence

    def elbo_terms(self, states: Tensor, actions: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """
        The terms of :meth:`elbo`.

        :param states: (B, S)
        :param actions: (B, A)
        :param noise: (B, L, Z) standard normal
        :return: E_q[log p(a | s, z)] and KL[q(z | s, a) ‖ p(z)], (B,) each, in nats
        """
        mean, std = self.encode(states, actions)
        reconstruction = self._decoded_log_prob(states, actions, mean.unsqueeze(1) + std.unsqueeze(1) * noise).mean(1)
        divergence = 0.5 * (mean.square() + std.square() - 1.0 - 2.0 * std.log()).sum(-1)
        return reconstruction, divergence

    def draw_noise(self, n_rows: int, generator: th.Generator) -> Tensor:
        """
        :param n_rows: B
        :param generator: on the model's device
        :return: (B, 1, Z) standard normal: one draw of the ELBO for each row
        """
        like = self.state_mean
        return th.randn((n_rows, 1, self.latent_dim), generator=generator, device=like.device, dtype=like.dtype)

    def loss(self, states: Tensor, actions: Tensor, noise: Tensor | None = None) -> Tensor:
        """
        The released loss, mean_A (μ_a − a)² + β·mean_Z KL: −:meth:`elbo` in its unit, less a constant.

        :param states: (B, S)
        :param actions: (B, A)
        :param noise: (B, L, Z) standard normal
        :return: scalar
        """
        return self.released_loss(self.elbo(states, actions, _needed(noise)).mean())

    def released_loss(self, elbo: Tensor) -> Tensor:
        """
        :param elbo: in nats
        :return: mean_A (μ_a − a)² + β·mean_Z KL
        """
        return -self.unit * (elbo + self._normaliser)

    def draw_latents(self, n_rows: int, generator: th.Generator) -> Tensor:
        """
        :param n_rows: B
        :param generator: on the model's device
        :return: (B, Z) standard normal
        """
        like = self.state_mean
        return th.randn((n_rows, self.latent_dim), generator=generator, device=like.device, dtype=like.dtype)

    def sample(self, states: Tensor, noise: Tensor) -> Tensor:
        """
        The decoder's mean, as BCQ and its successors sample: without the decoder's own noise.

        :param states: (..., S)
        :param noise: (..., Z) standard normal
        :return: (..., A) within [−1, 1]
        """
        return self.decode(states, noise)

    def log_prob(self, states: Tensor, actions: Tensor, noise: Tensor | None = None) -> Tensor:
        """
        log (1/L) Σ_l p(a, z_l | s)/q(z_l | s, a), z_l ~ q: the larger L, the tighter a lower bound in expectation.

        :param states: (B, S)
        :param actions: (B, A)
        :param noise: (B, L, Z) standard normal
        :return: (B,), in nats
        """
        noise = _needed(noise)
        mean, std = self.encode(states, actions)
        latents = mean.unsqueeze(1) + std.unsqueeze(1) * noise  # (B, L, Z)
        # p(z)/q(z): the normalising constants cancel but for σ
        ratio = (0.5 * (noise.square() - latents.square()) + std.log().unsqueeze(1)).sum(-1)
        weights = self._decoded_log_prob(states, actions, latents) + ratio  # (B, L)
        return weights.logsumexp(1) - math.log(noise.shape[1])

    def _decoded_log_prob(self, states: Tensor, actions: Tensor, latents: Tensor) -> Tensor:
        """log p(a | s, z) of (B, L, Z) latents, (B, L)."""
        squared = (actions.unsqueeze(1) - self.decode(states, latents)).square().sum(-1)
        return -squared / (2.0 * self.action_variance) - self._normaliser

    @property
    def _normaliser(self) -> float:
        """−log p(a | s, z) at the decoder's centre."""
        return 0.5 * self.action_dim * math.log(2.0 * math.pi * self.action_variance)


def _needed(noise: Tensor | None) -> Tensor:
    if noise is None:
        raise ValueError("A VAE's loss and log_prob are estimates: they need noise (B, L, Z), see draw_noise.")
    return noise


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


__all__ = ["ConditionalVAE"]
