"""What methods share that draw candidates and keep them near a VAE of behaviour, which learns beside actor and critics."""

from typing import Any, ClassVar, TypeVar, Unpack

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from sb3_genoffline.common.arguments import NCandidates, Rate, SampleCount, Share
from sb3_genoffline.common.behavior_vae import BehaviorVAEAlgorithm, BehaviorVAEArguments, BehaviorVAEPolicy
from sb3_genoffline.common.candidates import CandidatePolicy
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import soft_minimum

NoiseT = TypeVar("NoiseT")


class BatchConstrainedPolicy(CandidatePolicy, BehaviorVAEPolicy):
    """
    Actor, critics, targets, and a VAE of behaviour. Candidates are worth what the first critic says.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param n_action_samples: candidates when acting
    :param kwargs: the VAE's arguments, and those of the networks of actor and critics, see
        :class:`~sb3_genoffline.common.behavior_vae.BehaviorVAEPolicy`
    """

    acting_settings: ClassVar[tuple[str, ...]] = ("n_action_samples",)

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        n_action_samples: NCandidates = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.n_action_samples = n_action_samples

    def candidate_values(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(B, S), (B, n, A) -> (B, n), Q_1"""
        return self.critic.score_samples(states, candidates)[0]


class BatchConstrainedAlgorithm(BehaviorVAEAlgorithm[NoiseT]):
    """
    The target is the best of several next actions.

    :param policy: see :class:`~sb3_genoffline.common.learner.Learner`
    :param env: likewise
    :param learning_rate: of the actor, and of the critics unless ``critic_learning_rate`` is given
    :param critic_learning_rate: of the critics (None: ``learning_rate``)
    :param lam: λ, share of the smaller critic in the target; the larger one has the rest
    :param n_target_samples: next actions per state in the target
    :param n_action_samples: candidates when acting
    :param kwargs: the VAE's rate and β, and the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy: BatchConstrainedPolicy

    def __init__(
        self,
        policy: str | type[BatchConstrainedPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 1e-3,
        critic_learning_rate: Rate | None = None,
        *,
        lam: Share = 0.75,
        n_target_samples: SampleCount = 10,
        n_action_samples: NCandidates = 100,
        **kwargs: Unpack[BehaviorVAEArguments],
    ) -> None:
        self.lam = lam
        self.n_target_samples = n_target_samples
        self.n_action_samples = n_action_samples
        super().__init__(policy, env, learning_rate, critic_learning_rate, **kwargs)

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        return super().policy_arguments() | {"n_action_samples": self.n_action_samples}

    def target_of_the_best(self, batch: TransitionBatch, next_states: Tensor, next_actions: Tensor) -> Tensor:
        """
        y = r + γ·m·max_j [λ·min_i Q̄_i + (1 − λ)·max_i Q̄_i](s', a_j): the critics are mixed first, then the best is taken.

        :param batch: B transitions
        :param next_states: (B, S)
        :param next_actions: (B, n, A)
        :return: (B,)
        """
        values = soft_minimum(self.critic_target.score_samples(next_states, next_actions), self.lam)  # (B, n)
        return self.td_target(batch, values.amax(-1))
