"""
Conditional diffusion over actions: the noise network ε_θ(s, x_t, t), and the DDPM, DDIM and
DPM-Solver samplers.

Plain modules and pure functions: no optimizer, no EMA, no environment. Index 0 of every schedule is the clean action, so
``t = 1..T`` index it directly. All randomness of a sample is one tensor the caller draws, see :func:`ddpm_sample`.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch as th
from torch import Tensor, nn

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.dpm_solver import dpm_solver
from sb3_genoffline.generative.schedules import BetaSchedule, NoiseSchedule, ReverseVariance, beta_schedule
from sb3_genoffline.nets.activations import Mish, mish
from sb3_genoffline.nets.blocks import fits_cache, state_blocks
from sb3_genoffline.nets.layers import Layers
from sb3_genoffline.nets.network import Network
from sb3_genoffline.nets.widths import checked_widths

SamplerName = Literal["ddpm", "ddim", "dpm_solver"]
SampleClip = Literal["clean", "step", "none"]
"""What a sampler clamps to [−1, 1] in each step: the prediction x̂0, the next x_t, or nothing."""
NoisePrediction = Callable[[Tensor, int], Tensor]
"""Maps noisy actions ``x_t`` and the integer ``t`` to the predicted noise, same shape."""


def predict_clean(schedule: NoiseSchedule, x: Tensor, eps: Tensor, t: int, clip: bool) -> Tensor:
    """x̂0 = (x_t − σ_t·ε̂)/√ᾱ_t, clamped to [−1, 1] if ``clip``."""
    root = math.sqrt(schedule.alpha_bars[t])
    clean = (x - float(schedule.sigmas[t]) * eps) * (1.0 / root)
    return clean.clamp(-1.0, 1.0) if clip else clean


def ddpm_sample(
    predict_noise: NoisePrediction,
    schedule: NoiseSchedule,
    noise: Tensor,
    *,
    clip: SampleClip = "clean",
    temperature: float = 1.0,
) -> Tensor:
    """
    Ancestral sampling (Ho et al. 2020, algorithm 2) with the schedule's reverse variances.

    :param predict_noise: ε̂(x_t, t)
    :param schedule: T steps
    :param noise: shape (T, ...): ``noise[0]`` is x_T, ``noise[k]`` the standard normal added at step t = T + 1 − k.
        The last step adds none.
    :param clip: ``"clean"`` clamps x̂0 (never x_t) to [−1, 1] at every step, ``"step"`` each x_t but x_T, as IDQL's reference;
        the result is inside either way, as ᾱ_0 = 1. ``"none"`` clamps nothing
    :param temperature: factor of the added noise
    :return: x_0, shape (...)
    """
    n_steps = schedule.n_steps
    clean_coefficients, noisy_coefficients = schedule.clean_coefficients, schedule.noisy_coefficients
    x = noise[0]
    for t in range(n_steps, 1, -1):
        root = math.sqrt(schedule.alpha_bars[t])
        clean = th.sub(x, predict_noise(x, t), alpha=float(schedule.sigmas[t]))  # √ᾱ_t·x̂0: a factor costs a pass
        if clip == "clean":
            clean = clean.clamp(-root, root)
        x = th.add(float(noisy_coefficients[t]) * x, clean, alpha=float(clean_coefficients[t]) / root)
        x = th.add(x, noise[n_steps + 1 - t], alpha=temperature * math.sqrt(schedule.reverse_variances[t]))
        if clip == "step":
            x = x.clamp(-1.0, 1.0)
    return predict_clean(schedule, x, predict_noise(x, 1), 1, clip != "none")  # the posterior mean at t = 1 is x̂0 itself


def ddim_sample(
    predict_noise: NoisePrediction,
    schedule: NoiseSchedule,
    noise: Tensor,
    *,
    stride: int = 1,
    clip: SampleClip = "clean",
) -> Tensor:
    """
    Deterministic DDIM (Song et al. 2021, η = 0) over the steps T, T − c, …, 0. Correct for every stride; the DAC reference
    divides by √α_t, which is right only for c = 1.

    :param predict_noise: ε̂(x_t, t)
    :param schedule: T steps
    :param noise: shape (≥ 1, ...): only ``noise[0]`` = x_T is used
    :param stride: c; T need not be a multiple of it, the last stride is then shorter
    :param clip: ``"clean"`` clamps x̂0 and keeps ε̂ consistent with it, ``"step"`` clamps each x_{t'} as the reference does,
        ``"none"`` nothing
    :return: x_0, shape (...)
    """
    alpha_bars, sigmas = schedule.alpha_bars, schedule.sigmas
    x = noise[0]
    for t, following in pairwise(_visited(schedule, stride)):
        eps = predict_noise(x, t)
        clean = predict_clean(schedule, x, eps, t, clip == "clean")
        if clip == "clean":
            eps = (x - math.sqrt(alpha_bars[t]) * clean) * (1.0 / float(sigmas[t]))
        x = math.sqrt(alpha_bars[following]) * clean + float(sigmas[following]) * eps
        if clip == "step":
            x = x.clamp(-1.0, 1.0)
    return x


def dpm_sample(
    predict_noise: NoisePrediction,
    schedule: NoiseSchedule,
    noise: Tensor,
    *,
    stride: int = 1,
    clip: SampleClip = "clean",
    order: int = 3,
) -> Tensor:
    """
    :func:`~sb3_genoffline.generative.dpm_solver.dpm_solver` over the steps T, T − c, …, 0. The last step, to 0, is x̂0.

    :param predict_noise: ε̂(x_t, t)
    :param schedule: T steps
    :param noise: shape (≥ 1, ...): only ``noise[0]`` = x_T is used
    :param stride: c; the network is called T/c times, rounded up
    :param clip: ``"clean"`` clamps each x̂0 to [−1, 1] and takes the ε̂ that goes with it, ``"step"`` clamps the result alone,
        ``"none"`` nothing
    :param order: largest order of a step, 1 to 3; 1 is DDIM
    :return: x_0, shape (...)
    """
    times = _visited(schedule, stride)
    alphas, sigmas = np.sqrt(schedule.alpha_bars[times]), schedule.sigmas[times]

    def predict(x: Tensor, k: int) -> Tensor:
        eps = predict_noise(x, times[k])
        if clip != "clean":
            return eps
        clean = predict_clean(schedule, x, eps, times[k], True)
        return (x - float(alphas[k]) * clean) * (1.0 / float(sigmas[k]))

    x = dpm_solver(predict, alphas, sigmas, noise[0], order)
    return x if clip == "none" else x.clamp(-1.0, 1.0)


def _visited(schedule: NoiseSchedule, stride: int) -> list[int]:
    """Steps that a deterministic sampler goes through, T to 0."""
    if stride < 1:
        raise UserError(f"stride={stride} must be at least 1.")
    return [*range(schedule.n_steps, 0, -stride), 0]


def time_embedding(n_steps: int, dim: int) -> Tensor:
    """
    Sinusoidal embedding of the unscaled integers 0..T: ``dim/2`` cosines, then as many sines, with the frequencies
    ``10000^(−k/(dim/2 − 1))``.

    :return: shape (T + 1, dim)
    """
    half = dim // 2
    frequencies = 10000.0 ** (-np.arange(half, dtype=np.float64) / max(half - 1, 1))
    angles = np.arange(n_steps + 1)[:, None] * frequencies
    return th.as_tensor(np.concatenate([np.cos(angles), np.sin(angles)], axis=1), dtype=th.get_default_dtype())


def xavier_init(module: nn.Module) -> None:
    """Xavier-uniform kernels and zero biases in every linear layer, output layers included (as the DAC reference)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


class ResidualBlock(nn.Module):
    """Pre-LayerNorm block ``h + W₂ mish(W₁ norm(h))`` of the reference's optional residual network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), Mish(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        change: Tensor = self.net(h)
        return h + change


class NoiseNetwork(Network):
    """
    ε_θ(s, x_t, t): an MLP on ``[state, noisy action, processed time]`` with Mish, no normalisation, linear output.

    :param state_dim: S
    :param action_dim: A
    :param n_diffusion_steps: T
    :param net_arch: hidden widths
    :param time_dim: width of the sinusoidal embedding (even)
    :param time_hidden: width of the two-layer time processor
    :param residual: replace the hidden layers by two residual blocks of width ``net_arch[0]``
    :param torch_init: start as ``nn.Linear`` does, instead of Xavier weights and zero biases
    """

    time_table: Tensor

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        n_diffusion_steps: int,
        net_arch: Sequence[int] = (256, 256, 256),
        time_dim: int = 16,
        time_hidden: int = 32,
        residual: bool = False,
        torch_init: bool = False,
    ) -> None:
        super().__init__()
        self.state_dim, self.action_dim = state_dim, action_dim
        self.register_buffer("time_table", time_embedding(n_diffusion_steps, time_dim), persistent=False)
        self.time_net = nn.Sequential(nn.Linear(time_dim, time_hidden), Mish(), nn.Linear(time_hidden, time_hidden))
        widths = [*checked_widths(net_arch), action_dim]
        if residual and len(widths) < 2:
            raise UserError("net_arch=[] has no hidden layer; residual=True needs the width of its blocks, such as [256].")
        self.input_layer = nn.Linear(state_dim + action_dim + time_hidden, widths[0])
        layers: list[nn.Module] = []
        if residual:
            layers = [ResidualBlock(widths[0]), ResidualBlock(widths[0]), Mish(), nn.Linear(widths[0], action_dim)]
        else:
            for width_in, width_out in pairwise(widths):
                layers += [Mish(), nn.Linear(width_in, width_out)]
        self.trunk = Layers(*layers)
        if not torch_init:
            xavier_init(self)

    def forward(self, states: Tensor, noisy_actions: Tensor, t: Tensor) -> Tensor:
        """
        :param states: (B, S)
        :param noisy_actions: (B, A)
        :param t: (B,) integers in 1..T
        :return: predicted noise (B, A)
        """
        time = nn.functional.embedding(t, self.time_net(self.time_table))  # the processor sees T + 1 rows, not B
        predicted: Tensor = self.trunk(th.cat([states, noisy_actions, time], dim=-1), first=self.input_layer)
        return predicted

    def conditioned_on(self, states: Tensor) -> NoisePrediction:
        """
        ε_θ(s, ·, ·) for fixed states. ``W₁[s; x; τ] = W_s s + W_x x + W_τ τ``: the state's part is computed once for all
        samples and steps, the time's part once per step.

        :param states: (B, S)
        :return: maps x_t of shape (B, n, A) and an integer t to noise of shape (B, n, A)
        """
        n_time = self.input_layer.in_features - self.state_dim - self.action_dim
        w_state, w_action, w_time = th.split(self.input_layer.weight, [self.state_dim, self.action_dim, n_time], dim=1)
        state_part = (states @ w_state.T).unsqueeze(1)  # (B, 1, h)
        time_part = nn.functional.linear(self.time_net(self.time_table), w_time, self.input_layer.bias)  # (T + 1, h)

        def predict_noise(x: Tensor, t: int) -> Tensor:
            given = state_part + time_part[t]  # (B, 1, h)
            predicted: Tensor = self.trunk(x @ w_action.T, given)  # (B, n, A)
            return predicted

        return predict_noise


class ActionDiffusion(Network):
    """
    A diffusion model p(a | s): a noise network together with its schedule.

    :param noise_net: called as :class:`NoiseNetwork`, with its ``action_dim`` and ``conditioned_on``
    :param n_diffusion_steps: T
    :param beta_schedule: ``"vp"``, ``"linear"`` or ``"cosine"``
    :param variance: of the reverse step's noise, see :class:`NoiseSchedule`
    """

    alpha_bars: Tensor
    sigmas: Tensor

    def __init__(
        self,
        noise_net: nn.Module,
        n_diffusion_steps: int = 5,
        beta_schedule: BetaSchedule = "vp",
        variance: ReverseVariance = "beta",
    ) -> None:
        super().__init__()
        self.schedule = NoiseSchedule.make(beta_schedule, n_diffusion_steps, variance)
        for name in ("alpha_bars", "sigmas"):
            constants = th.as_tensor(getattr(self.schedule, name), dtype=th.get_default_dtype())
            self.register_buffer(name, constants, persistent=False)
        self.noise_net = noise_net

    @property
    def n_steps(self) -> int:
        """T"""
        return self.schedule.n_steps

    def forward(self, states: Tensor, noisy_actions: Tensor, t: Tensor, uniform: Tensor | None = None) -> Tensor:
        """ε_θ(s, x_t, t), see :meth:`NoiseNetwork.forward`; ``uniform`` is for the dropout of a network that has any."""
        given = () if uniform is None else (uniform,)
        predicted: Tensor = self.noise_net(states, noisy_actions, t, *given)
        return predicted

    def add_noise(self, actions: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """
        x_t = √ᾱ_t·a + σ_t·ε

        :param actions: (B, A)
        :param noise: (B, A)
        :param t: (B,) integers in 1..T
        """
        return self.alpha_bars[t].sqrt().unsqueeze(-1) * actions + self.sigmas[t].unsqueeze(-1) * noise

    def noise_shape(self, n_states: int, n_samples: int) -> tuple[int, int, int, int]:
        """Shape of the ``noise`` argument of :meth:`sample`."""
        return (self.n_steps, n_states, n_samples, int(self.noise_net.action_dim))  # type: ignore[arg-type]

    def sample(
        self,
        states: Tensor,
        noise: Tensor,
        *,
        sampler: SamplerName = "ddpm",
        ddim_stride: int = 1,
        clip: SampleClip = "clean",
        temperature: float = 1.0,
    ) -> Tensor:
        """
        Draw n actions per state; on a CPU, without gradients, in blocks that stay in its cache.

        :param states: (B, S)
        :param noise: (T, B, n, A), see :func:`ddpm_sample`
        :param sampler: ``"ddpm"``, ``"ddim"`` or ``"dpm_solver"``
        :param ddim_stride: stride of the last two
        :param clip: what is clamped in each step
        :param temperature: factor of the noise that DDPM adds
        :return: (B, n, A)
        """

        def draw(part: slice) -> Tensor:
            predict_noise: NoisePrediction = self.noise_net.conditioned_on(states[part])  # type: ignore[operator]
            if sampler == "ddpm":
                return ddpm_sample(predict_noise, self.schedule, noise[:, part], clip=clip, temperature=temperature)
            deterministic = ddim_sample if sampler == "ddim" else dpm_sample
            return deterministic(predict_noise, self.schedule, noise[:, part], stride=ddim_stride, clip=clip)

        if fits_cache(states, noise.shape[2]):
            return draw(slice(None))
        return th.cat([draw(part) for part in state_blocks(len(states), noise.shape[2])])


class ConditionalDiffusion(ActionDiffusion):
    """
    The diffusion model of DAC and Diffusion-QL, whose noise network is a :class:`NoiseNetwork`.

    :param state_dim: S
    :param action_dim: A
    :param n_diffusion_steps: T
    :param beta_schedule: ``"vp"``, ``"linear"`` or ``"cosine"``
    :param net_arch: hidden widths of the noise network
    :param residual: use the residual noise network
    :param torch_init: start the noise network as ``nn.Linear`` does
    :param variance: of the reverse step's noise, see :class:`NoiseSchedule`
    """

    noise_net: NoiseNetwork

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        n_diffusion_steps: int = 5,
        beta_schedule: BetaSchedule = "vp",
        net_arch: Sequence[int] = (256, 256, 256),
        residual: bool = False,
        torch_init: bool = False,
        variance: ReverseVariance = "beta",
    ) -> None:
        network = NoiseNetwork(state_dim, action_dim, n_diffusion_steps, net_arch, residual=residual, torch_init=torch_init)
        super().__init__(network, n_diffusion_steps, beta_schedule, variance)


__all__ = [
    "ActionDiffusion",
    "BetaSchedule",
    "ConditionalDiffusion",
    "NoiseNetwork",
    "NoiseSchedule",
    "ReverseVariance",
    "SampleClip",
    "SamplerName",
    "beta_schedule",
    "ddim_sample",
    "ddpm_sample",
    "dpm_sample",
    "mish",
    "predict_clean",
    "time_embedding",
    "xavier_init",
]
