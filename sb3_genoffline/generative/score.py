"""SfBC's model of behaviour: a diffusion in continuous time whose noise a dense U-net predicts, sampled by DPM-Solver."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch as th
from torch import Tensor, nn

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.behavior import BehaviourModel
from sb3_genoffline.generative.dpm_solver import ContinuousVP, dpm_solver
from sb3_genoffline.nets.blocks import fits_cache, state_blocks
from sb3_genoffline.nets.network import Network
from sb3_genoffline.nets.widths import checked_widths

_FREQUENCY_STD = 30.0
_EARLIEST = 1e-5  # t that is trained on
_LAST = 1e-3  # t that sampling ends at


class TimedBlock(nn.Module):
    """
    act(W₂(act(W₁x) + W_t·act(e))) + x, or + W_r·x where the widths differ. The embedding e comes in behind the first
    activation.

    :param n_inputs: width in
    :param n_outputs: width out
    :param embed_dim: width of e
    :param activation_fn: activation class
    """

    def __init__(self, n_inputs: int, n_outputs: int, embed_dim: int, activation_fn: type[nn.Module]) -> None:
        super().__init__()
        self.first = nn.Linear(n_inputs, n_outputs)
        self.time = nn.Linear(embed_dim, n_outputs)
        self.second = nn.Linear(n_outputs, n_outputs)
        self.skip = nn.Identity() if n_inputs == n_outputs else nn.Linear(n_inputs, n_outputs)
        self.activation = activation_fn()

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        """
        :param x: (..., in)
        :param activated: act(e), (..., embed_dim); it may be one for several x
        :return: (..., out)
        """
        hidden = self.activation(self.first(x)) + self.time(activated)
        out: Tensor = self.activation(self.second(hidden)) + self.skip(x)
        return out


class ScoreUNet(Network):
    """
    ε_θ(s, x_t, t) for t in [0, 1]: a dense U-net on the noisy action; state and time enter each block by an embedding. Layers
    start as ``nn.Linear`` does. The score is −ε/σ_t.

    :param state_dim: S
    :param action_dim: A
    :param net_arch: widths on the way down, the largest first in the reference; the way up mirrors them
    :param time_dim: features of the time (even), and of the state
    :param embed_dim: width of the embedding
    :param activation_fn: activation class
    :raises UserError: for an odd ``time_dim``
    """

    frequencies: Tensor

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        net_arch: Sequence[int] = (512, 256, 128),
        time_dim: int = 32,
        embed_dim: int = 128,
        activation_fn: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        widths = checked_widths(net_arch, "behavior_net_arch")
        if time_dim % 2:
            raise UserError(f"time_dim={time_dim} must be even: it is made of sines and cosines.")
        if not widths:
            raise UserError("behavior_net_arch=[] has no layer; use a list of widths, such as [512, 256, 128].")
        self.register_buffer("frequencies", _FREQUENCY_STD * th.randn(time_dim // 2))
        self.time_net = nn.Linear(time_dim, time_dim)
        self.state_net = nn.Sequential(nn.Linear(state_dim, time_dim), activation_fn())
        # the last activation is that of all blocks, which see act(e) alone
        self.embed_net = nn.Sequential(
            nn.Linear(2 * time_dim, embed_dim), activation_fn(), nn.Linear(embed_dim, embed_dim), activation_fn()
        )
        ins, shape = [action_dim, *widths[:-1]], (embed_dim, activation_fn)
        self.down = nn.ModuleList(TimedBlock(i, o, *shape) for i, o in zip(ins, widths, strict=True))
        self.middle = TimedBlock(widths[-1], widths[-1], *shape)
        self.up = nn.ModuleList(
            TimedBlock(2 * below, width, *shape) for width, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.output = nn.Linear(2 * widths[0], action_dim)

    def time_features(self, t: Tensor) -> Tensor:
        """(...) -> (..., time_dim), sines and cosines of 2π·w·t"""
        angles = 2.0 * math.pi * t.unsqueeze(-1) * self.frequencies
        return th.cat([angles.sin(), angles.cos()], dim=-1)

    def embed_states(self, states: Tensor) -> Tensor:
        """(..., S) -> (..., time_dim), the same for all times"""
        embedded: Tensor = self.state_net(states)
        return embedded

    def forward(self, states: Tensor, noisy_actions: Tensor, t: Tensor) -> Tensor:
        """
        :param states: (..., S)
        :param noisy_actions: (..., A)
        :param t: (...), or one for all
        :return: predicted noise (..., A)
        """
        return self.predict(self.embed_states(states), noisy_actions, t)

    def predict(self, embedded: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """
        :param embedded: of :meth:`embed_states`, (..., time_dim); (B, 1, time_dim) for n actions per state
        :param x: (..., A), or (B, n, A)
        :param t: (...), or one for all
        :return: predicted noise like ``x``
        """
        time = self.time_net(self.time_features(t)).expand_as(embedded)
        activated = self.embed_net(th.cat([embedded, time], dim=-1))
        kept = []
        for block in self.down:
            x = block(x, activated)
            kept.append(x)
        x = self.middle(x, activated)
        for block in self.up:
            x = block(th.cat([kept.pop(), x], dim=-1), activated)
        predicted: Tensor = -self.output(th.cat([kept.pop(), x], dim=-1))
        return predicted


class ScoreBehaviour(BehaviourModel):
    """
    p(a | s) as a variance-preserving diffusion in continuous time (β from 0.1 to 20). It samples; it does not say how likely
    an action is.

    :param state_dim: S
    :param action_dim: A
    :param net_arch: see :class:`ScoreUNet`
    :param time_dim: likewise
    :param embed_dim: likewise
    :param activation_fn: likewise
    """

    kind: ClassVar[str] = "ScoreBehaviour"
    process: ClassVar[ContinuousVP] = ContinuousVP()

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        net_arch: Sequence[int] = (512, 256, 128),
        time_dim: int = 32,
        embed_dim: int = 128,
        activation_fn: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__(state_dim, action_dim)
        self.noise_net = ScoreUNet(state_dim, action_dim, net_arch, time_dim, embed_dim, activation_fn)
        self.shape = {
            "net_arch": list(net_arch),
            "time_dim": time_dim,
            "embed_dim": embed_dim,
            "activation_fn": activation_fn.__name__,
        }

    @property
    def settings(self) -> dict[str, Any]:
        """See :attr:`BehaviourModel.settings`."""
        return {"state_dim": self.state_dim, "action_dim": self.action_dim, **self.shape}

    def draw_noise(self, n_rows: int, generator: th.Generator) -> Tensor:
        """(B, 1 + A): a uniform number that sets the time, and standard normal ones"""
        like = self.state_mean
        options: dict[str, Any] = {"generator": generator, "device": like.device, "dtype": like.dtype}
        return th.cat([th.rand((n_rows, 1), **options), th.randn((n_rows, self.action_dim), **options)], dim=1)

    def loss(self, states: Tensor, actions: Tensor, noise: Tensor | None = None) -> Tensor:
        """
        E[Σ_A (z − ε̂(α_t·a + σ_t·z, t | s))²], the weighted denoising score matching of the paper.

        :param states: (B, S)
        :param actions: (B, A)
        :param noise: (B, 1 + A), see :meth:`draw_noise`
        :return: scalar
        """
        if noise is None:
            raise ValueError("A diffusion's loss needs noise (B, 1 + A), see draw_noise.")
        t, z = noise[:, 0] * (1.0 - _EARLIEST) + _EARLIEST, noise[:, 1:]
        alpha, sigma = self.process.at(t)
        noisy = alpha.unsqueeze(1) * actions + sigma.unsqueeze(1) * z
        predicted: Tensor = self.noise_net(self.standardise(states), noisy, t)
        return (z - predicted).square().sum(-1).mean()

    def draw_latents(self, n_rows: int, generator: th.Generator) -> Tensor:
        """(B, A) standard normal"""
        like = self.state_mean
        return th.randn((n_rows, self.action_dim), generator=generator, device=like.device, dtype=like.dtype)

    def sample(self, states: Tensor, noise: Tensor, *, n_steps: int = 15, order: int = 3) -> Tensor:
        """
        The ODE's solution from x_1 = ``noise`` to t = 0.001, on a uniform grid of times; on a CPU, without gradients, in
        blocks that stay in its cache.

        :param states: (B, S)
        :param noise: (B, A), or (B, n, A) for n actions per state, standard normal
        :param n_steps: evaluations of the network
        :param order: of the solver, 1 to 3
        :return: like ``noise``; not clipped
        """
        if noise.ndim == states.ndim:
            return self.sample(states, noise.unsqueeze(-2), n_steps=n_steps, order=order).squeeze(-2)
        times = np.linspace(1.0, _LAST, n_steps + 1)
        alphas, sigmas = self.process.levels(times)

        def draw(part: slice) -> Tensor:
            embedded = self.noise_net.embed_states(self.standardise(states[part])).unsqueeze(-2)

            def predict(x: Tensor, k: int) -> Tensor:
                return self.noise_net.predict(embedded, x, x.new_tensor(float(times[k])))

            return dpm_solver(predict, alphas, sigmas, noise[part], order)

        if fits_cache(states, noise.shape[-2]):
            return draw(slice(None))
        return th.cat([draw(part) for part in state_blocks(len(states), noise.shape[-2])])

    def log_prob(self, states: Tensor, actions: Tensor, noise: Tensor | None = None) -> Tensor:
        """:raises UserError: always"""
        raise UserError(
            "ScoreBehaviour samples actions and can't say how likely given ones are: fit a density or a VAE for that."
        )
