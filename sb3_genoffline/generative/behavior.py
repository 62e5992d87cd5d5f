"""What all models of behaviour share: one interface to fit, sample and evaluate them, state statistics, base distributions."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch as th
from torch import Tensor
from torch.nn.functional import logsigmoid

from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.network import Network


@dataclass(frozen=True)
class Base:
    """
    The distribution of a flow's latents: independent, centred, of one scale.

    :param family: ``"normal"`` or ``"logistic"``; the logistic's tails are linear, |∂ log p/∂z| < 1/scale, so that gradients
        stay bounded however far a point lies from the data
    :param scale: σ of the normal, s of the logistic
    """

    family: Literal["normal", "logistic"]
    scale: float = 1.0

    def log_prob(self, latents: Tensor) -> Tensor:
        """
        Summed over the last dimension.

        :param latents: (..., D)
        :return: (...)
        """
        z = latents / self.scale
        log_scale = math.log(self.scale)
        if self.family == "normal":
            return (-0.5 * z**2 - (0.5 * math.log(2 * math.pi) + log_scale)).sum(-1)
        return (logsigmoid(z) + logsigmoid(-z) - log_scale).sum(-1)

    def draw(self, like: Tensor, generator: th.Generator) -> Tensor:
        """
        :param like: gives shape, dtype and device
        :param generator: on the same device
        """
        if self.family == "normal":
            return self.scale * th.empty_like(like).normal_(generator=generator)
        smallest = th.finfo(like.dtype).eps
        uniform = th.empty_like(like).uniform_(smallest, 1 - smallest, generator=generator)
        return self.scale * uniform.logit()


class BehaviourModel(Network):
    """
    A model of the behaviour's actions that reads raw states: the statistics it standardises them with are buffers (0 and 1
    until :meth:`set_state_statistics`). Actions are those of a buffer, scaled to [−1, 1].

    It is fitted by descending :meth:`loss`, by an optimizer of the caller's; then :meth:`sample` draws actions and
    :meth:`log_prob` says how likely given ones are. Draws no random numbers but from a generator that is passed in.

    :param state_dim: S
    :param action_dim: A
    """

    kind: ClassVar[str]
    """What a file of the model calls it."""
    state_mean: Tensor
    state_std: Tensor

    def __init__(self, state_dim: int, action_dim: int) -> None:
        super().__init__()
        self.state_dim, self.action_dim = state_dim, action_dim
        self.register_buffer("state_mean", th.zeros(state_dim))
        self.register_buffer("state_std", th.ones(state_dim))

    def set_state_statistics(self, mean: Tensor, std: Tensor) -> None:
        """
        :param mean: (S,)
        :param std: (S,); a constant column gets std 1
        """
        self.state_mean.copy_(mean)
        self.state_std.copy_(th.where(std > 1e-6, std, th.ones_like(std)))

    def standardise(self, states: Tensor) -> Tensor:
        """(..., S) to (..., S)"""
        return (states - self.state_mean) / self.state_std

    @property
    def settings(self) -> dict[str, Any]:
        """What makes an equal, untrained model; plain JSON."""
        raise NotImplementedError

    def draw_noise(self, n_rows: int, generator: th.Generator) -> Tensor | None:
        """
        The random numbers of one :meth:`loss`.

        :param n_rows: B
        :param generator: on the model's device
        :return: (B, ...), or None if the loss needs none
        """
        raise NotImplementedError

    def loss(self, states: Tensor, actions: Tensor, noise: Tensor | None = None) -> Tensor:
        """
        What fitting descends.

        :param states: (B, S)
        :param actions: (B, A)
        :param noise: see :meth:`draw_noise`
        :return: scalar
        """
        raise NotImplementedError

    def draw_latents(self, n_rows: int, generator: th.Generator) -> Tensor:
        """
        The random numbers of one :meth:`sample`.

        :param n_rows: B
        :param generator: on the model's device
        :return: (B, D)
        """
        raise NotImplementedError

    def sample(self, states: Tensor, noise: Tensor) -> Tensor:
        """
        One action of the behaviour's for each state, differentiable.

        :param states: (..., S)
        :param noise: (..., D), see :meth:`draw_latents`
        :return: (..., A)
        """
        raise NotImplementedError

    def log_prob(self, states: Tensor, actions: Tensor, noise: Tensor | None = None) -> Tensor:
        """
        How likely actions are, or an estimate of that from below.

        :param states: (B, S)
        :param actions: (B, A)
        :param noise: of a model that estimates; others ignore it
        :return: (B,), in nats
        """
        raise NotImplementedError


class Density(BehaviourModel):
    """
    An explicit density of behaviour, log p(a | s) or log p(s, a), with an exact inverse from latents to actions;
    :func:`~sb3_genoffline.generative.flow.make_density` makes one from its ``settings``.

    Evaluating it touches no state at all.

    :param state_dim: S
    :param action_dim: A
    """

    kind: ClassVar[str] = "Density"
    joint: ClassVar[bool]
    """Whether it models p(s, a) rather than p(a | s). ∇_a log p is the same in both; a comparison of log p with one threshold
    for all states is not, as a joint density also ranks the states."""
    base: Base

    @property
    def latent_dim(self) -> int:
        """D: A, or S + A of a joint density."""
        return self.state_dim + self.action_dim if self.joint else self.action_dim

    def encode(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """
        The flow, from data to latents.

        :param states: (..., S)
        :param actions: (..., A)
        :return: latents (..., D) and log |∂ latents/∂ data| (...), where the data are the actions, or states and actions
        """
        raise NotImplementedError

    def decode(self, states: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """
        The exact inverse of :meth:`encode`, differentiable.

        :param states: (..., S); a joint density ignores all but their shape
        :param latents: (..., D)
        :return: states (..., S) and actions (..., A): the given states, or states of its own from a joint density
        """
        raise NotImplementedError

    def log_prob(self, states: Tensor, actions: Tensor, noise: Tensor | None = None) -> Tensor:
        """
        log p(a | s), or log p(s, a) of a joint density, in nats per row.

        :param states: (..., S)
        :param actions: (..., A)
        :param noise: unused: the density is exact
        :return: (...)
        """
        latents, log_det = self.encode(states, actions)
        return self.base.log_prob(latents) + log_det

    def draw_noise(self, n_rows: int, generator: th.Generator) -> None:
        """None: the likelihood needs no random numbers."""
        return None

    def loss(self, states: Tensor, actions: Tensor, noise: Tensor | None = None) -> Tensor:
        """
        Mean −:meth:`log_prob`: maximum likelihood. :class:`~sb3_genoffline.generative.flow_gan.FlowGAN` adds an adversary.

        :param states: (B, S)
        :param actions: (B, A)
        :param noise: unused
        :return: scalar, in nats
        """
        return -self.log_prob(states, actions).mean()

    def sample(self, states: Tensor, noise: Tensor) -> Tensor:
        """
        See :meth:`~sb3_genoffline.generative.behavior.BehaviourModel.sample`.

        :param states: (..., S)
        :param noise: (..., D) latents
        :return: (..., A)
        :raises UserError: for a joint density, which draws states of its own: see :meth:`decode`
        """
        if self.joint:
            raise UserError(
                f"{type(self).__name__} models states and actions together, so it cannot sample actions for given states; use "
                "a conditional density ('spline' or 'affine'), or decode() for pairs of its own."
            )
        return self.decode(states, noise)[1]

    def draw_latents(self, n_rows: int, generator: th.Generator) -> Tensor:
        """
        Draws from the base, the only randomness of a sample: ``decode(states, draw_latents(len(states), generator))``.

        :param n_rows: B
        :param generator: on the density's device
        :return: (B, D)
        """
        return self.base.draw(self.state_mean.new_empty(n_rows, self.latent_dim), generator)

    def pair(self, states: Tensor, actions: Tensor) -> Tensor:
        """What a discriminator sees: standardised states beside actions, (..., S + A)."""
        return th.cat([self.standardise(states), actions], dim=-1)

    def dequantise(self, actions: Tensor, width: float, generator: th.Generator) -> Tensor:
        """
        Actions with uniform noise, for training alone: a value that many actions share, as the bounds of the action space
        are, is a point mass whose density a flow raises without limit.

        :param actions: (B, A), not changed
        :param width: the noise is within ± width
        :param generator: on the same device
        """
        return actions + th.empty_like(actions).uniform_(-width, width, generator=generator)
