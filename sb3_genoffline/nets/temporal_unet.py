"""Convolutions over the steps of a window: Diffuser's U-Net, and the network that says what a window's return will be."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch as th
from torch import Tensor, nn

from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.activations import Mish
from sb3_genoffline.nets.network import Network
from sb3_genoffline.nets.widths import checked_widths

_GROUPS, _KERNEL = 8, 5


class TimeFeatures(nn.Module):
    """
    Sines, then cosines, of the diffusion's step, and two layers.

    :param width: W, even
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        frequencies = th.exp(th.arange(half) * (-math.log(10000.0) / (half - 1)))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), Mish(), nn.Linear(4 * width, width))

    def waves(self, t: Tensor) -> Tensor:
        """
        :param t: (B,) integers in 1..T
        :return: (B, W), sin then cos of (t − 1)·10000^(−k/(W/2 − 1))
        """
        angles = (t - 1).unsqueeze(-1) * self.frequencies
        return th.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, t: Tensor) -> Tensor:
        features: Tensor = self.layers(self.waves(t))
        return features


class GroupNorm(nn.GroupNorm):
    """PyTorch's, also of one place with one channel in each group, whose norm is 0."""

    def forward(self, input: Tensor) -> Tensor:
        return th.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def _convolution(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(n_in, n_out, _KERNEL, padding=_KERNEL // 2), GroupNorm(_GROUPS, n_out), Mish())


class TemporalBlock(nn.Module):
    """
    Two convolutions, the time's features added between them, around which the input passes.

    :param n_in: channels that come in
    :param n_out: channels that go out
    :param time_width: W
    """

    def __init__(self, n_in: int, n_out: int, time_width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(n_in, n_out), _convolution(n_out, n_out)
        self.time = nn.Sequential(Mish(), nn.Linear(time_width, n_out))
        self.bypass = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, C, L), (B, W) -> (B, C', L)"""
        changed: Tensor = self.second(self.first(x) + self.time(time).unsqueeze(-1))
        return changed + self.bypass(x)


class LinearAttention(Network):
    """
    Attention whose cost is linear in the length, on channels that are normalised at each place, added to the input.

    :param n_channels: C
    :param n_heads: h
    :param head_width: d
    """

    def __init__(self, n_channels: int, n_heads: int = 4, head_width: int = 32) -> None:
        super().__init__()
        self.n_heads, self.head_width = n_heads, head_width
        self.norm = nn.LayerNorm(n_channels)
        self.queries_keys_values = nn.Conv1d(n_channels, 3 * n_heads * head_width, 1, bias=False)
        self.output = nn.Conv1d(n_heads * head_width, n_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L) -> (B, C, L)"""
        projected = self.queries_keys_values(self.norm(x.transpose(1, 2)).transpose(1, 2))
        q, k, v = projected.unflatten(1, (3, self.n_heads, self.head_width)).unbind(1)  # (B, h, d, L) each
        context = k.softmax(-1) @ v.transpose(-1, -2)  # (B, h, d, d)
        read = context.transpose(-1, -2) @ (q / math.sqrt(self.head_width))
        attended: Tensor = self.output(read.flatten(1, 2))
        return x + attended


class Level(nn.Module):
    """
    Two blocks, attention where it is wanted, and a change of the length.

    :param n_in: channels that come in
    :param n_out: channels that go out
    :param time_width: W
    :param attention: whether there is attention
    :param resize: halves or doubles the length
    """

    def __init__(self, n_in: int, n_out: int, time_width: int, attention: bool, resize: nn.Module) -> None:
        super().__init__()
        self.first, self.second = TemporalBlock(n_in, n_out, time_width), TemporalBlock(n_out, n_out, time_width)
        self.attention = LinearAttention(n_out) if attention else nn.Identity()
        self.resize = resize

    def forward(self, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, L), (B, W) -> what the level found (B, C', L), and the same resized"""
        found = self.attention(self.second(self.first(x, time), time))
        return found, self.resize(found)


def _halve(n_channels: int) -> nn.Module:
    return nn.Conv1d(n_channels, n_channels, 3, stride=2, padding=1)


class TemporalUNet(Network):
    """
    Reads a noisy window and says another one: down through the levels, each of half the length, and up again, where each
    level sees what the same one found on the way down.

    :param width: D, numbers of a step
    :param horizon: H, steps of a window
    :param channels: of each level, from the full length to the shortest
    :param attention: linear attention in each level and between the ways
    :raises UserError: for channels that make no groups, and a horizon that can't be halved so often
    """

    def __init__(
        self, width: int, horizon: int, channels: Sequence[int] = (32, 64, 128, 256), attention: bool = False
    ) -> None:
        super().__init__()
        channels = checked_channels(channels, horizon)
        base, deepest = channels[0], channels[-1]
        pairs = list(pairwise([width, *channels]))
        self.time = TimeFeatures(base)
        self.down = nn.ModuleList(Level(n_in, n_out, base, attention, _halve(n_out)) for n_in, n_out in pairs[:-1])
        self.bottom = Level(*pairs[-1], base, attention, nn.Identity())
        self.middle_in, self.middle_out = TemporalBlock(deepest, deepest, base), TemporalBlock(deepest, deepest, base)
        self.middle_attention = LinearAttention(deepest) if attention else nn.Identity()
        self.up = nn.ModuleList(
            Level(2 * n_out, n_in, base, attention, nn.ConvTranspose1d(n_in, n_in, 4, stride=2, padding=1))
            for n_in, n_out in reversed(pairs[1:])
        )
        self.output = nn.Sequential(_convolution(base, base), nn.Conv1d(base, width, 1))

    def forward(self, windows: Tensor, t: Tensor) -> Tensor:
        """
        :param windows: (B, H, D)
        :param t: (B,) integers in 1..T
        :return: (B, H, D)
        """
        x, time, passed = windows.transpose(1, 2), self.time(t), []
        for level in (*self.down, self.bottom):
            found, x = level(x, time)
            passed.append(found)
        x = self.middle_out(self.middle_attention(self.middle_in(x, time)), time)
        for level in self.up:
            _, x = level(th.cat([x, passed.pop()], dim=1), time)
        said: Tensor = self.output(x)
        return said.transpose(1, 2)


class TemporalValue(Network):
    """
    Reads a noisy window and says one number: the U-Net's way down, which halves the length after every level, two more blocks
    of half the channels each, and two layers.

    :param width: D, numbers of a step
    :param horizon: H, steps of a window
    :param channels: of each level; the last one is divided by 4
    :raises UserError: for channels that make no groups, and a horizon that can't be halved so often
    """

    def __init__(self, width: int, horizon: int, channels: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        channels = checked_channels(channels, horizon)
        base, deepest = channels[0], channels[-1]
        if deepest % (4 * _GROUPS):
            raise UserError(f"channels={list(channels)}: the last one must be a multiple of {4 * _GROUPS}.")
        self.time = TimeFeatures(base)
        self.down = nn.ModuleList(
            Level(n_in, n_out, base, False, _halve(n_out)) for n_in, n_out in pairwise([width, *channels])
        )
        self.narrow = nn.ModuleList(TemporalBlock(n, n // 2, base) for n in (deepest, deepest // 2))
        self.halve = nn.ModuleList(_halve(n) for n in (deepest // 2, deepest // 4))
        length = horizon
        for _ in range(len(channels) + 2):
            length = (length + 1) // 2
        n_read = deepest // 4 * length
        self.output = nn.Sequential(nn.Linear(n_read + base, n_read // 2), Mish(), nn.Linear(n_read // 2, 1))

    def forward(self, windows: Tensor, t: Tensor) -> Tensor:
        """
        :param windows: (B, H, D)
        :param t: (B,) integers in 1..T
        :return: (B,)
        """
        x, time = windows.transpose(1, 2), self.time(t)
        for level in self.down:
            _, x = level(x, time)
        for block, halve in zip(self.narrow, self.halve, strict=True):
            x = halve(block(x, time))
        said: Tensor = self.output(th.cat([x.flatten(1), time], dim=-1))
        return said.squeeze(-1)


def checked_channels(channels: Sequence[int], horizon: int) -> list[int]:
    """
    :param channels: of each level
    :param horizon: H
    :return: the same as a list
    :raises UserError: for channels that make no groups of equal size, and a horizon that can't be halved so often
    """
    channels = checked_widths(channels, "channels")
    if not channels or any(n % _GROUPS for n in channels):
        raise UserError(f"channels={channels} must be multiples of {_GROUPS}, one for each level, as [32, 64, 128, 256].")
    parts = 2 ** (len(channels) - 1)
    if horizon % parts:
        raise UserError(
            f"horizon={horizon} can't be halved {len(channels) - 1} times, as channels={channels} has it: use a multiple of "
            f"{parts}, or fewer channels."
        )
    return channels
