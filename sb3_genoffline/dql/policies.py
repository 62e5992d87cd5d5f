"""The policy of Diffusion-QL: DAC's, with two critics and another choice among the candidates."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from sb3_genoffline.common.arguments import ArgumentTable, NCandidates, Temperature
from sb3_genoffline.common.diffusion_policy import DiffusionPolicy
from sb3_genoffline.generative.diffusion import ReverseVariance


class DiffusionQLPolicy(DiffusionPolicy):
    """
    Acts by denoising. ``predict(deterministic=True)`` samples ``n_action_samples`` actions per observation and draws one of
    them with probability ∝ exp(min_i Q̄_i / ``softmax_temperature``); ``deterministic=False`` is one sample.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param n_action_samples: candidates when acting
    :param softmax_temperature: in the units of Q; 0 takes the best candidate
    :param torch_init: start actor and critics as ``nn.Linear`` does
    :param variance: of the noise added in a denoising step
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.diffusion_policy.DiffusionPolicy`
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        n_action_samples: NCandidates = 50,
        softmax_temperature: Temperature = 1.0,
        torch_init: bool = True,
        variance: ReverseVariance = "posterior",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            n_critics=2,
            n_action_samples=n_action_samples,
            softmax_temperature=softmax_temperature,
            torch_init=torch_init,
            variance=variance,
            **kwargs,
        )

    @classmethod
    def argument_table(cls) -> ArgumentTable:
        """Without ``n_critics``."""
        table = super().argument_table()
        own = {name: argument for name, argument in table.arguments.items() if name != "n_critics"}
        return ArgumentTable(cls.__name__, own, {**table.refused, "n_critics": "it has two."})

    def candidate_values(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(B, S), (B, n, A) -> (B, n), the smaller of both target critics"""
        return self.critic_target.score_samples(states, candidates).amin(0)

    def choice_logits(self, values: Tensor) -> Tensor:
        """(B, n) values -> (B, n) logits: Q in its own units"""
        return values / self.softmax_temperature
