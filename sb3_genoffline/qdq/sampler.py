"""The consistency model in the units of the returns."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from torch import Tensor, nn

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.consistency import ConsistencyModel, NoisyScalarNetwork


class ConsistencyQ(nn.Module):
    """
    Samples of the behaviour policy's truncated return given (s, a), and their spread H(s, a) (QDQ, eq. 6).

    The model works on returns rescaled to [−1, 1] by the smallest and largest of the data; what comes out is in the units of
    the rewards again, unclipped.

    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths
    :param data_std: σ_d of the preconditioning
    """

    kind: ClassVar[str] = "ConsistencyQ"
    q_min: Tensor
    q_max: Tensor
    fitted: Tensor

    def __init__(
        self, state_dim: int, action_dim: int, net_arch: Sequence[int] = (256, 256, 256), data_std: float = 0.5
    ) -> None:
        super().__init__()
        self.model = ConsistencyModel(NoisyScalarNetwork(state_dim + action_dim, net_arch, data_std))
        self.register_buffer("q_min", th.zeros(()))
        self.register_buffer("q_max", th.zeros(()))
        self.register_buffer("fitted", th.zeros((), dtype=th.bool))
        self.requires_grad_(False)

    @property
    def settings(self) -> dict[str, Any]:
        """What two models must share for the weights of one to mean the same in the other."""
        return {"net_arch": list(self.model.network.net_arch), "data_std": self.model.network.data_std}

    def set_range(self, q: Tensor) -> None:
        """
        Take the extremes of the data's returns.

        :param q: (M,)
        :raises ValueError: if all are equal
        """
        low, high = q.min(), q.max()
        if not high > low:
            raise UserError(
                f"All {len(q)} windowed returns are {low.item():g}: there is no distribution to learn an uncertainty from. "
                "Use penalty='none', other windows (window, stride, full_coverage), or data whose returns differ."
            )
        self.q_min.copy_(low)
        self.q_max.copy_(high)

    def normalize(self, q: Tensor) -> Tensor:
        """Returns -> [−1, 1]"""
        return 2.0 * (q - self.q_min) / (self.q_max - self.q_min) - 1.0

    def denormalize(self, x: Tensor) -> Tensor:
        """[−1, 1] -> returns"""
        return (x + 1.0) / 2.0 * (self.q_max - self.q_min) + self.q_min

    @th.no_grad()
    def sample(self, states: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        """
        :param states: (B, S), as the model was fitted with them
        :param actions: (B, A) in [−1, 1]
        :param noise: (B, n) standard normal; draw it afresh for every call
        :return: (B, n) returns, in the units of the (transformed) rewards
        """
        return self.denormalize(self.model.sample(th.cat([states, actions], dim=-1), noise))

    def uncertainty(self, states: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        """
        H(s, a): the population standard deviation of n samples.

        :param states: (B, S)
        :param actions: (B, A)
        :param noise: (B, n) standard normal
        :return: (B,), in the units of the (transformed) rewards
        """
        return self.sample(states, actions, noise).std(dim=1, correction=0)
