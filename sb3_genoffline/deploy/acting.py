"""What a policy does, as one function of tensors: what goes into a file, and what comes out."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch as th
from torch import Tensor, nn

from sb3_genoffline.deploy.draws import GivenDraws

EPISODE_START, REWARD = "episode_start", "reward"
"""Inputs of a policy with a memory: 1 where an episode begins, and what the last action was rewarded with."""
STATE, NEXT_STATE = "state.", "next_state."
"""How the names of a memory's parts begin, as inputs and as outputs."""


class Acting(nn.Module):
    """
    All of ``predict``. A policy that is more than a function of the observation has a subclass.

    :param policy: the agent's
    :param deterministic: as in ``predict``
    """

    results: ClassVar[tuple[str, ...]] = ("action",)
    """Names of the outputs."""

    def __init__(self, policy: Any, deterministic: bool) -> None:
        super().__init__()
        self.policy, self.deterministic = policy, deterministic
        space = policy.action_space
        for name in ("low", "high"):
            bound = th.as_tensor(getattr(space, name), device=policy.device, dtype=policy.obs_mean.dtype)
            self.register_buffer(name, bound, persistent=False)

    low: Tensor
    high: Tensor

    @property
    def memory(self) -> Mapping[str, tuple[int, ...]]:
        """Names of the inputs beside observations and random numbers, and the shape that each has for one environment."""
        return {}

    @property
    def facts(self) -> Mapping[str, str]:
        """What is fixed in the file and worth knowing, for its metadata."""
        return {}

    @property
    def n_actions(self) -> int:
        """Actions that one call decides on; where there are several, the output ``plan`` has them."""
        return 1

    def forward(self, observations: list[Tensor], memory: list[Tensor], numbers: list[Tensor]) -> tuple[Tensor, ...]:
        """
        :param observations: (B, ...) each, raw
        :param memory: (B, ...) each
        :param numbers: of each draw
        :return: :attr:`results`, (B, ...) each
        """
        flat = [observation.flatten(1) for observation in observations]
        with GivenDraws(numbers):
            return self.act(flat[0] if len(flat) == 1 else th.cat(flat, dim=1), memory)

    def act(self, observations: Tensor, memory: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """
        :param observations: (B, S), raw
        :param memory: (B, ...) each
        :return: :attr:`results`, (B, ...) each
        """
        return (self.unscaled(self.policy._predict(observations, self.deterministic)),)

    def unscaled(self, actions: Tensor) -> Tensor:
        """(..., A) in [−1, 1] -> the environment's units, within its bounds"""
        unscaled = self.low + 0.5 * (actions + 1.0) * (self.high - self.low)
        return th.minimum(th.maximum(unscaled, self.low), self.high)
