"""
Conditional consistency models of a scalar, distilled from an EDM diffusion teacher.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022 (teacher, noise grid, Heun step); Song
et al., "Consistency Models", 2023 (distillation); as QDQ uses them (Zhang et al., NeurIPS 2024, section 4 and appendix G).

Throughout: c (B, C) is the condition, x (B,) the noisy scalar, t (B,) the noise level = standard deviation of the noise.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch as th
from torch import Tensor, nn
from torch.nn.functional import mse_loss, silu

from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.blocks import state_blocks
from sb3_genoffline.nets.network import Network
from sb3_genoffline.nets.widths import checked_widths

T_MIN, T_MAX, RHO = 0.002, 80.0, 7.0
_CHANNELS_PER_GROUP = 8  # 32 groups at the paper's width of 256
_FOURIER_SIZE, _FOURIER_SCALE, _TIME_WIDTH = 8, 16.0, 32
# Larger no-gradient passes go in blocks of so many rows: activations then stay in a CPU's cache.
_CPU_BLOCK_ROWS = 2048

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(c, x, t) -> estimate of the clean scalar, each (B,)."""


def karras_grid(n: int, t_min: float = T_MIN, t_max: float = T_MAX, rho: float = RHO) -> Tensor:
    """
    Noise levels t_0 = ``t_max`` > ... > t_{n−1} = ``t_min``, evenly spaced in t^(1/ρ) (Karras et al., eq. 5).

    :param n: number of levels, at least 2
    :param t_min: smallest
    :param t_max: largest
    :param rho: ρ
    :return: (n,) float64
    """
    if n < 2:
        raise UserError(f"n={n} noise levels are too few: a grid needs at least 2.")
    ramp = th.linspace(0.0, 1.0, n, dtype=th.float64)
    grid: Tensor = (t_max ** (1 / rho) + ramp * (t_min ** (1 / rho) - t_max ** (1 / rho))) ** rho
    grid[0], grid[-1] = t_max, t_min  # rounding would leave them by a last digit
    return grid


class NoisyScalarNetwork(Network):
    """
    F(x, t | c): an MLP on the condition, the scaled noisy scalar and Fourier features of ¼·ln t.

    :param condition_dim: C
    :param net_arch: hidden widths, multiples of 8; each is followed by GroupNorm (groups of 8 channels, eps 1e-6) and SiLU
    :param data_std: σ_d, standard deviation of the data that the scaling of x assumes
    """

    fourier_weights: Tensor

    def __init__(self, condition_dim: int, net_arch: Sequence[int] = (256, 256, 256), data_std: float = 0.5) -> None:
        super().__init__()
        net_arch = checked_widths(net_arch)
        if not net_arch or any(width % _CHANNELS_PER_GROUP for width in net_arch):
            raise UserError(f"net_arch={net_arch} must hold multiples of {_CHANNELS_PER_GROUP}, the size of a norm's group.")
        self.net_arch, self.data_std = net_arch, data_std
        self.register_buffer("fourier_weights", th.randn(_FOURIER_SIZE) * _FOURIER_SCALE)
        self.time_mlp = nn.Sequential(
            nn.Linear(2 * _FOURIER_SIZE, _TIME_WIDTH), nn.SiLU(), nn.Linear(_TIME_WIDTH, _TIME_WIDTH), nn.SiLU()
        )
        self.condition_dim = condition_dim
        self.input_layer = nn.Linear(condition_dim + 1 + _TIME_WIDTH, net_arch[0])
        self.norms = nn.ModuleList(nn.GroupNorm(width // _CHANNELS_PER_GROUP, width, eps=1e-6) for width in net_arch)
        widths = [*net_arch[1:], 1]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(net_arch, widths, strict=True))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def fresh(self) -> "NoisyScalarNetwork":
        """Another network of the same shape, with random weights."""
        return NoisyScalarNetwork(self.condition_dim, self.net_arch, self.data_std)

    def time_features(self, t: Tensor) -> Tensor:
        """(B,) noise levels -> (B, 32)"""
        angles = 2.0 * math.pi * 0.25 * t.log().unsqueeze(-1) * self.fourier_weights
        features: Tensor = self.time_mlp(th.cat([angles.sin(), angles.cos()], dim=-1))
        return features

    def trunk(self, hidden: Tensor) -> Tensor:
        """(R, h) outputs of the first layer -> (R,)"""
        for norm, layer in zip(self.norms, self.layers, strict=True):
            assert isinstance(norm, nn.GroupNorm)
            hidden = layer(silu(norm(hidden) if th.is_grad_enabled() else group_norm(norm, hidden)))
        return hidden.squeeze(-1)

    def forward(self, c: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """F, (B,)"""
        if x.ndim != 1 or x.shape != t.shape or c.shape[0] != x.shape[0]:
            raise ValueError(f"c, x, t have shapes {[tuple(v.shape) for v in (c, x, t)]}, not (B, C), (B,), (B,).")
        x_in = x / (t.square() + self.data_std**2).sqrt()
        return self.trunk(self.input_layer(th.cat([c, x_in.unsqueeze(-1), self.time_features(t)], dim=-1)))


def group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """``norm(x)`` for rows of channels (R, h), two to three times as fast on a CPU where no gradient is wanted."""
    groups = th.unflatten(x, 1, (norm.num_groups, -1))
    centred = groups - groups.mean(-1, keepdim=True)
    scaled = centred.mul_((centred.square().mean(-1, keepdim=True) + norm.eps).rsqrt_())
    return th.addcmul(norm.bias, scaled.flatten(1), norm.weight)


class DiffusionTeacher(nn.Module):
    """
    D(x, t | c), the EDM denoiser of a scalar: the minimiser of :func:`denoising_loss` is E[x_0 | x_t, c].

    :param network: F
    """

    def __init__(self, network: NoisyScalarNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, c: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """D = c_skip·x + c_out·F with c_skip = σ_d²/(t² + σ_d²), c_out = t·σ_d/√(t² + σ_d²)."""
        variance = self.network.data_std**2
        total = t.square() + variance
        raw: Tensor = self.network(c, x, t)
        return variance / total * x + t * self.network.data_std / total.sqrt() * raw


class ConsistencyModel(nn.Module):
    """
    f(x, t | c): the start of the probability-flow trajectory through (x, t). f(x, t_min | c) = x for any weights.

    :param network: F
    """

    def __init__(self, network: NoisyScalarNetwork) -> None:
        super().__init__()
        self.network = network

    @staticmethod
    def scalings(t: Tensor, data_std: float) -> tuple[Tensor, Tensor]:
        """c_skip = σ_d²/((t − t_min)² + σ_d²) and c_out = (t − t_min)·σ_d/√(t² + σ_d²)."""
        skip = data_std**2 / ((t - T_MIN).square() + data_std**2)
        return skip, (t - T_MIN) * data_std / (t.square() + data_std**2).sqrt()

    def forward(self, c: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """f = c_skip·x + c_out·F, (B,)"""
        skip, out = self.scalings(t, self.network.data_std)
        raw: Tensor = self.network(c, x, t)
        return skip * x + out * raw

    @th.no_grad()
    def sample(self, c: Tensor, noise: Tensor) -> Tensor:
        """
        n one-step samples per condition: f(t_max·z, t_max | c). The condition's and the time's part of the first layer are
        computed once per condition.

        :param c: (B, C)
        :param noise: (B, n) standard normal z
        :return: (B, n)
        """
        net = self.network
        t = th.full((1,), T_MAX, dtype=noise.dtype, device=noise.device)
        skip, out = self.scalings(t, net.data_std)
        x = T_MAX * noise
        w_condition, w_x, w_time = th.split(net.input_layer.weight, [net.condition_dim, 1, _TIME_WIDTH], dim=1)
        shared = th.addmm(net.input_layer.bias + (net.time_features(t) @ w_time.T).squeeze(0), c, w_condition.T)  # (B, h)
        x_in = x / math.sqrt(T_MAX**2 + net.data_std**2)
        n_conditions, n_samples = noise.shape
        parts = []
        for part in [slice(None)] if noise.is_cuda else state_blocks(n_conditions, n_samples, _CPU_BLOCK_ROWS):
            hidden = shared[part].unsqueeze(1) + x_in[part].unsqueeze(2) * w_x.squeeze(1)  # (b, n, h)
            parts.append(net.trunk(hidden.flatten(0, 1)).view(-1, n_samples))
        return skip * x + out * th.cat(parts)


def denoising_loss(teacher: Denoiser, c: Tensor, x_0: Tensor, t: Tensor, noise: Tensor, data_std: float = 0.5) -> Tensor:
    """
    EDM's weighted regression: mean of (t² + σ_d²)/(t·σ_d)²·(D(x_0 + t·z, t | c) − x_0)².

    :param teacher: D
    :param c: (B, C)
    :param x_0: (B,) clean scalars
    :param t: (B,) noise levels, see :func:`draw_noise_levels`
    :param noise: (B,) standard normal z
    :param data_std: σ_d
    :return: scalar
    """
    denoised = teacher(c, x_0 + t * noise, t)
    assert denoised.shape == x_0.shape
    weight = (t.square() + data_std**2) / (t * data_std).square()
    return (weight * (denoised - x_0).square()).mean()


def draw_noise_levels(noise: Tensor) -> Tensor:
    """Standard normal numbers -> noise levels of the teacher's training: ln t ~ N(−1.2, 1.2²)."""
    return (1.2 * noise - 1.2).exp()


def heun_step(denoiser: Denoiser, c: Tensor, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """
    One step of Heun's method on the probability-flow equation dx/dt = (x − D(x, t | c))/t.

    :param denoiser: D
    :param c: (B, C)
    :param x: (B,) at t
    :param t: (B,)
    :param t_next: (B,), above 0
    :return: (B,) at ``t_next``
    """
    slope = (x - denoiser(c, x, t)) / t
    euler = x + (t_next - t) * slope
    slope_next = (euler - denoiser(c, euler, t_next)) / t_next
    return x + (t_next - t) * (slope + slope_next) / 2


class DistillationDraws(NamedTuple):
    """
    Random numbers of one distillation step.

    :param level: (B,) i of the noise level t_i that a sample starts from, at most N − 2
    :param noise: (B,) standard normal
    """

    level: Tensor
    noise: Tensor


def distillation_loss(
    online: Denoiser, target: Denoiser, teacher: Denoiser, grid: Tensor, c: Tensor, x_0: Tensor, draws: DistillationDraws
) -> Tensor:
    """
    Consistency distillation (Song et al., eq. 7; squared error, uniform weight): mean of
    (f(x_{t_i}, t_i | c) − f⁻(x_{t_{i+1}}, t_{i+1} | c))², one teacher's Heun step apart.

    :param online: f
    :param target: f⁻, its moving average; gets no gradient
    :param teacher: D, frozen
    :param grid: (N,) descending noise levels
    :param c: (B, C)
    :param x_0: (B,) clean scalars
    :param draws: the step's random numbers
    :return: scalar
    """
    t, t_next = grid[draws.level], grid[draws.level + 1]
    x_t = x_0 + t * draws.noise
    with th.no_grad():
        goal = target(c, heun_step(teacher, c, x_t, t, t_next), t_next)
    predicted = online(c, x_t, t)
    assert predicted.shape == goal.shape == x_0.shape
    return mse_loss(predicted, goal)


@th.no_grad()
def sample_heun(denoiser: Denoiser, c: Tensor, noise: Tensor, n_levels: int = 18) -> Tensor:
    """
    Many-step samples of a teacher, for diagnostics: Heun steps from t_max·z down the grid to t_min, then one Euler step to 0.

    :param denoiser: D
    :param c: (B, C)
    :param noise: (B,) standard normal z
    :param n_levels: N of the grid
    :return: (B,)
    """
    grid = karras_grid(n_levels).to(noise)
    x = T_MAX * noise
    for t, t_next in itertools.pairwise(grid):
        x = heun_step(denoiser, c, x, t.expand_as(x), t_next.expand_as(x))
    return denoiser(c, x, grid[-1].expand_as(x))
