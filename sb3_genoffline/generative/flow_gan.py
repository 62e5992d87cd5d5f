"""
Flow-GAN (Grover et al. 2018): a flow trained by likelihood and, as the generator of a GAN, against a discriminator.

Losses and the discriminator; optimizers, and which side steps when, are the caller's. L_flow = w·L_generator − mean log p,
and w = 0 is maximum likelihood. CPED writes λ on the likelihood instead, λ = 1/w.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch as th
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.behavior import Density
from sb3_genoffline.nets.widths import checked_widths

Divergence = Literal["wgan", "ce", "hellinger", "rkl", "kl", "tv", "lsgan"]
Interpolation = Literal["uniform", "normal"]
REAL_LABEL = 0.9
"""Target of least-squares scores on data; samples have 0."""


class CentredNorm(nn.Module):
    """
    (h − mean)/(deviation + 1e-6) + bias over the last axis, the deviation with n − 1: the norm of CPED's released code, and of
    rlkit. No gain.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(th.zeros(width))

    def forward(self, h: Tensor) -> Tensor:
        return (h - h.mean(-1, keepdim=True)) / (h.std(-1, keepdim=True) + 1e-6) + self.bias


class Discriminator(nn.Module):
    """
    Scores of state-action pairs, high on data: Linear, :class:`CentredNorm`, LeakyReLU(0.01) per hidden layer, no sigmoid.
    Initialised as in CPED's second release: hidden weights of U(± 1/√width), hidden biases 0.1, the last layer of U(± 3e-3).

    :param pair_dim: S + A
    :param net_arch: hidden widths (None: 2(S + A) and 4(S + A), as CPED's)
    :param n_scores: 1; CPED's released code has S + A, averages them in the loss and sums them in the gradient penalty, which
        shrinks the adversarial gradient to 1/(S + A)
    """

    def __init__(self, pair_dim: int, net_arch: Sequence[int] | None = None, n_scores: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width_in = pair_dim
        for width in (2 * pair_dim, 4 * pair_dim) if net_arch is None else checked_widths(net_arch):
            linear = nn.Linear(width_in, width)
            nn.init.uniform_(linear.weight, -(width**-0.5), width**-0.5)
            nn.init.constant_(linear.bias, 0.1)
            layers += [linear, CentredNorm(width), nn.LeakyReLU(0.01)]
            width_in = width
        last = nn.Linear(width_in, n_scores)
        nn.init.uniform_(last.weight, -3e-3, 3e-3)
        nn.init.uniform_(last.bias, -3e-3, 3e-3)
        self.net = nn.Sequential(*layers, last)

    def forward(self, pairs: Tensor) -> Tensor:
        """(..., S + A) to (..., n_scores)"""
        scores: Tensor = self.net(pairs)
        return scores


def discriminator_divergence(divergence: Divergence, real: Tensor, fake: Tensor) -> Tensor:
    """
    What the discriminator descends. All but ``"lsgan"`` are minus a variational bound of a divergence of data and samples, in
    the forms of Nowozin et al. 2016 with the signs that make scores high on data: at the best scores the loss is −W₁
    (under the gradient penalty), log 4 − 2 JS, −H² (squared Hellinger, up to 2), −KL(samples‖data), −KL(data‖samples), −TV.

    :param divergence: ``"wgan"``, ``"ce"``, ``"hellinger"``, ``"rkl"``, ``"kl"``, ``"tv"`` or ``"lsgan"``
    :param real: scores of data, any shape
    :param fake: scores of samples
    """
    if divergence == "wgan":
        return fake.mean() - real.mean()
    if divergence == "ce":
        return softplus(-real).mean() + softplus(fake).mean()
    if divergence == "hellinger":
        return (-real).exp().mean() + fake.exp().mean() - 2
    if divergence == "rkl":
        return (-real).exp().mean() + (fake - 1).mean()
    if divergence == "kl":
        return (fake - 1).exp().mean() - real.mean()
    if divergence == "tv":
        return 0.5 * (fake.tanh().mean() - real.tanh().mean())
    return 0.5 * (((real - REAL_LABEL) ** 2).mean() + (fake**2).mean())


def generator_divergence(divergence: Divergence, fake: Tensor) -> Tensor:
    """
    What the flow descends on the scores of its samples: the samples' part of :func:`discriminator_divergence` with the sign
    turned, up to ``"ce"`` (not saturating) and ``"lsgan"`` (towards the label of data).

    :param divergence: see there
    :param fake: scores of samples, any shape
    """
    if divergence == "wgan":
        return -fake.mean()
    if divergence == "ce":
        return softplus(-fake).mean()
    if divergence == "hellinger":
        return 1 - fake.exp().mean()
    if divergence == "rkl":
        return (1 - fake).mean()
    if divergence == "kl":
        return -(fake - 1).exp().mean()
    if divergence == "tv":
        return -0.5 * fake.tanh().mean()
    return 0.5 * ((fake - REAL_LABEL) ** 2).mean()


def gradient_penalty(
    scores: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, weights: Tensor, n_fixed: int = 0
) -> Tensor:
    """
    mean (‖∇ Σ_j D_j(x̂)‖ − 1)² at x̂ = u·x + (1 − u)·x̃ (Gulrajani et al. 2017).

    :param scores: D
    :param real: x, (B, P)
    :param fake: x̃, (B, P)
    :param weights: u, (B, 1)
    :param n_fixed: leading columns that x and x̃ share: the states, where actions alone are sampled. The gradient is taken
        with respect to the others, as the distance in question is one between actions, state by state.
    """
    mixed = (weights * real + (1 - weights) * fake).detach()
    fixed, free = mixed[:, :n_fixed], mixed[:, n_fixed:].requires_grad_(True)
    (gradient,) = th.autograd.grad(scores(th.cat([fixed, free], dim=-1)).sum(), free, create_graph=True)
    norms: Tensor = th.linalg.vector_norm(gradient, dim=-1)
    return ((norms - 1) ** 2).mean()


class FlowGANNoise(NamedTuple):
    """
    All random numbers of one loss.

    :param latents: (B, D), from the base of the density
    :param weights: (B, 1), of the gradient penalty's interpolation
    :param on_data: (B, S + A) normal with std ``instance_noise``, added to the data that the discriminator sees
    """

    latents: Tensor
    weights: Tensor
    on_data: Tensor


@dataclass(frozen=True)
class FlowGAN:
    """
    The switches of the hybrid loss, and the losses. The defaults are WGAN-GP as published; ``FlowGAN.official()`` is what
    CPED's second release computes, together with a :class:`Discriminator` of S + A scores. A conditional density is compared
    at the states of the data, a joint one with states of its own.

    :param divergence: see :func:`discriminator_divergence`
    :param adv_weight: w, of the adversarial term; at 0 no sample is drawn and the discriminator is never called
    :param gp_weight: of the gradient penalty, for ``"wgan"`` alone
    :param interpolation: distribution of the penalty's u. ``"normal"`` is what CPED's code has: x̂ then lies beyond the
        segment from sample to data more often than on it.
    :param instance_noise: std of normal noise on the data that the discriminator sees (1 in CPED's first release)
    """

    divergence: Divergence = "wgan"
    adv_weight: float = 1.0
    gp_weight: float = 10.0
    interpolation: Interpolation = "uniform"
    instance_noise: float = 0.0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("divergence", self.divergence, get_args(Divergence)),
            ("interpolation", self.interpolation, get_args(Interpolation)),
        ):
            if value not in known:
                raise UserError(f"{name}={value!r} is not known; use one of {', '.join(map(repr, known))}.")
        for name in ("adv_weight", "gp_weight", "instance_noise"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}={getattr(self, name)} must not be negative.")

    @classmethod
    def official(cls) -> "FlowGAN":
        """The loss of CPED's second release."""
        return cls(gp_weight=0.5, interpolation="normal")

    def draw_noise(self, density: Density, n_rows: int, generator: th.Generator) -> FlowGANNoise:
        """
        :param density: the flow
        :param n_rows: B
        :param generator: on the density's device
        """
        latents = density.draw_latents(n_rows, generator)
        weights = latents.new_empty(n_rows, 1)
        if self.interpolation == "uniform":
            weights.uniform_(generator=generator)
        else:
            weights.normal_(generator=generator)
        on_data = latents.new_zeros(n_rows, density.state_dim + density.action_dim)
        if self.instance_noise > 0:
            on_data.normal_(std=self.instance_noise, generator=generator)
        return FlowGANNoise(latents, weights, on_data)

    def discriminator_loss(
        self, discriminator: Discriminator, density: Density, states: Tensor, actions: Tensor, noise: FlowGANNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        What the discriminator descends. No gradient reaches the density.

        :param discriminator: D
        :param density: the flow
        :param states: (B, S)
        :param actions: (B, A)
        :param noise: see :meth:`draw_noise`
        :return: the loss, and detached ``score_gap`` (mean D on data minus mean D on samples, for ``"wgan"`` the estimated
            distance) and, for ``"wgan"``, ``gradient_penalty``
        """
        with th.no_grad():
            real = density.pair(states, actions) + noise.on_data
            fake = density.pair(*density.decode(states, noise.latents))
        real_scores, fake_scores = discriminator(real), discriminator(fake)
        loss = discriminator_divergence(self.divergence, real_scores, fake_scores)
        info = {"score_gap": (real_scores.mean() - fake_scores.mean()).detach()}
        if self.divergence == "wgan":
            n_fixed = 0 if density.joint or self.instance_noise > 0 else density.state_dim
            penalty = gradient_penalty(discriminator, real, fake, noise.weights, n_fixed)
            loss = loss + self.gp_weight * penalty
            info["gradient_penalty"] = penalty.detach()
        return loss, info

    def flow_loss(
        self,
        discriminator: Discriminator | None,
        density: Density,
        states: Tensor,
        actions: Tensor,
        noise: FlowGANNoise | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        What the flow descends. No gradient reaches the discriminator.

        :param discriminator: D; None is enough if ``adv_weight`` is 0
        :param density: the flow
        :param states: (B, S)
        :param actions: (B, A)
        :param noise: see :meth:`draw_noise`; None is enough if ``adv_weight`` is 0
        :return: the loss, and detached ``nll`` (mean, in nats) and, unless ``adv_weight`` is 0, ``adversarial``
        """
        nll = -density.log_prob(states, actions).mean()
        info = {"nll": nll.detach()}
        if self.adv_weight == 0:
            return nll, info
        if discriminator is None or noise is None:
            raise ValueError(f"adv_weight={self.adv_weight} needs a discriminator and noise.")
        fake = density.pair(*density.decode(states, noise.latents))
        held = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
        adversarial = generator_divergence(self.divergence, functional_call(discriminator, held, (fake,)))
        info["adversarial"] = adversarial.detach()
        return nll + self.adv_weight * adversarial, info


__all__ = [
    "Discriminator",
    "Divergence",
    "FlowGAN",
    "FlowGANNoise",
    "Interpolation",
    "discriminator_divergence",
    "generator_divergence",
    "gradient_penalty",
]
