"""IDQL's noise network: residual blocks with dropout and LayerNorm, and features of the time that are learned."""

import math

import torch as th
from torch import Tensor, nn

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.diffusion import NoisePrediction, xavier_init
from sb3_genoffline.nets.activations import Mish
from sb3_genoffline.nets.network import Network

_NORM_EPS = 1e-6  # Flax's
_LARGEST = 2.0  # of a truncated normal, in standard deviations
_TRUNCATED_STD = 0.87962566103423978  # of a standard normal that is cut there
_FREQUENCY_STD = 0.2


def _lecun_init(linear: nn.Linear) -> None:
    """Flax's default: a truncated normal of standard deviation 1/√in, and no bias."""
    std = linear.in_features**-0.5 / _TRUNCATED_STD
    nn.init.trunc_normal_(linear.weight, std=std, a=-_LARGEST * std, b=_LARGEST * std)
    nn.init.zeros_(linear.bias)


class DropoutBlock(Network):
    """
    h + W₂·act(W₁·LayerNorm(drop(h))), with a hidden layer four times as wide as h.

    :param width: of h
    :param activation_fn: activation class
    """

    def __init__(self, width: int, activation_fn: type[nn.Module]) -> None:
        super().__init__()
        hidden, output = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.net = nn.Sequential(nn.LayerNorm(width, _NORM_EPS), hidden, activation_fn(), output)
        _lecun_init(hidden)
        _lecun_init(output)

    def forward(self, h: Tensor, factors: Tensor | None) -> Tensor:
        """
        :param h: (..., width)
        :param factors: like ``h``: 0 for what is dropped, 1/(1 − p) for the rest; None drops nothing
        """
        change: Tensor = self.net(h if factors is None else h * factors)
        return h + change


class ResidualNoiseNetwork(Network):
    """
    ε_θ(s, x_t, t) of IDQL: residual blocks on ``[noisy action, state, processed time]``. The time enters as cosines and sines
    of learned frequencies. Without random numbers nothing is dropped, whatever the module's mode.

    :param state_dim: S
    :param action_dim: A
    :param width: of the trunk
    :param n_blocks: residual blocks
    :param dropout: p, the share of a block's inputs that are dropped, in [0, 1)
    :param time_dim: number of features of the time (even); its processor is twice as wide
    :param activation_fn: activation class
    :raises UserError: for an odd ``time_dim``
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        width: int = 256,
        n_blocks: int = 3,
        dropout: float = 0.1,
        time_dim: int = 64,
        activation_fn: type[nn.Module] = Mish,
    ) -> None:
        super().__init__()
        if time_dim % 2:
            raise UserError(f"time_dim={time_dim} must be even: it is made of cosines and sines.")
        self.state_dim, self.action_dim, self.width, self.n_blocks, self.dropout = (
            state_dim,
            action_dim,
            width,
            n_blocks,
            dropout,
        )
        self.frequencies = nn.Parameter(_FREQUENCY_STD * th.randn(time_dim // 2))
        self.time_net = nn.Sequential(
            nn.Linear(time_dim, 2 * time_dim), activation_fn(), nn.Linear(2 * time_dim, 2 * time_dim)
        )
        self.input_layer = nn.Linear(action_dim + state_dim + 2 * time_dim, width)
        self.output = nn.Sequential(activation_fn(), nn.Linear(width, action_dim))
        xavier_init(self)
        self.blocks = nn.ModuleList(DropoutBlock(width, activation_fn) for _ in range(n_blocks))

    def time_features(self, t: Tensor) -> Tensor:
        """
        :param t: (...,) steps 1..T
        :return: (..., time_dim), cosines and sines of 2π·w·(t − 1)
        """
        angles = 2.0 * math.pi * (t - 1).unsqueeze(-1) * self.frequencies
        return th.cat([angles.cos(), angles.sin()], dim=-1)

    def forward(self, states: Tensor, noisy_actions: Tensor, t: Tensor, uniform: Tensor | None = None) -> Tensor:
        """
        :param states: (B, S)
        :param noisy_actions: (B, A)
        :param t: (B,) integers in 1..T
        :param uniform: (B, blocks, width) within [0, 1): a block's input is dropped where its number is below p
        :return: predicted noise (B, A)
        """
        time = self.time_net(self.time_features(t))
        hidden: Tensor = self.input_layer(th.cat([noisy_actions, states, time], dim=-1))
        if uniform is None or self.dropout == 0:
            return self._trunk(hidden)
        return self._trunk(hidden, (uniform >= self.dropout).to(hidden.dtype) / (1.0 - self.dropout))

    def _trunk(self, hidden: Tensor, factors: Tensor | None = None) -> Tensor:
        for number, block in enumerate(self.blocks):
            hidden = block(hidden, None if factors is None else factors[:, number])
        predicted: Tensor = self.output(hidden)
        return predicted

    def conditioned_on(self, states: Tensor) -> NoisePrediction:
        """
        ε_θ(s, ·, ·) for fixed states, whose part of the first layer is computed once for all samples and steps.

        :param states: (B, S)
        :return: maps x_t of shape (B, n, A) and an integer t to noise of shape (B, n, A)
        """
        parts = [self.action_dim, self.state_dim, self.input_layer.in_features - self.action_dim - self.state_dim]
        w_action, w_state, w_time = th.split(self.input_layer.weight, parts, dim=1)
        state_part = nn.functional.linear(states, w_state, self.input_layer.bias).unsqueeze(1)  # (B, 1, h)

        def predict_noise(x: Tensor, t: int) -> Tensor:
            time: Tensor = self.time_net(self.time_features(self.frequencies.new_tensor(t)))
            return self._trunk(x @ w_action.T + (state_part + time @ w_time.T))

        return predict_noise
