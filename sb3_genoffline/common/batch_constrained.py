"""What methods share that draw candidates and keep them near a VAE of behaviour, which learns beside actor and critics."""

from typing import Any, ClassVar, TypeVar, Unpack

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm
from sb3_genoffline.common.arguments import Positive, PositiveInt, Rate, Share, Widths
from sb3_genoffline.common.candidates import CandidatePolicy
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.learner import AllArguments
from sb3_genoffline.common.policies import ActorCriticPolicy
from sb3_genoffline.common.vae_training import SILENT, vae_step
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.generative.vae import ConditionalVAE
from sb3_genoffline.nets.ensembles import soft_minimum

NoiseT = TypeVar("NoiseT")
_SETTLED = 10_000  # updates


class BatchConstrainedPolicy(CandidatePolicy, ActorCriticPolicy):
    """
    Actor, critics, targets, and a VAE of behaviour that sees the states as they do: where observations are standardised, they
    are once, and the VAE's own statistics stay 0 and 1. Candidates are worth what the first critic says.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param n_action_samples: candidates when acting
    :param beta: β of the VAE
    :param vae_net_arch: hidden widths of its encoder and decoder
    :param latent_dim: of its latents (None: twice the actions')
    :param kwargs: networks of actor and critics, see :class:`~sb3_genoffline.common.policies.ActorCriticPolicy`
    """

    acting_settings: ClassVar[tuple[str, ...]] = ("n_action_samples",)

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        n_action_samples: PositiveInt = 100,
        beta: Positive = 0.5,
        vae_net_arch: Widths = (750, 750),
        latent_dim: PositiveInt | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.n_action_samples = n_action_samples
        self.vae = ConditionalVAE(self.state_dim, self.action_dim, latent_dim, vae_net_arch, beta)

    def candidate_values(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(B, S), (B, n, A) -> (B, n), Q_1"""
        return self.critic.score_samples(states, candidates)[0]


class BatchConstrainedAlgorithm(ActorCriticAlgorithm[NoiseT]):
    """
    Actor, critics and VAE with an optimizer each; the target is the best of several next actions.

    :param policy: see :class:`~sb3_genoffline.common.learner.Learner`
    :param env: likewise
    :param learning_rate: of the actor, and of the critics unless ``critic_learning_rate`` is given
    :param critic_learning_rate: of the critics (None: ``learning_rate``)
    :param vae_learning_rate: of the VAE
    :param beta: β, weight of its KL term
    :param lam: λ, share of the smaller critic in the target; the larger one has the rest
    :param n_target_samples: next actions per state in the target
    :param n_action_samples: candidates when acting
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy: BatchConstrainedPolicy
    further_networks = ("vae",)
    vae: ConditionalVAE
    vae_optimizer: th.optim.Optimizer

    def __init__(
        self,
        policy: str | type[BatchConstrainedPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 1e-3,
        critic_learning_rate: Rate | None = None,
        *,
        vae_learning_rate: Rate = 1e-3,
        beta: Positive = 0.5,
        lam: Share = 0.75,
        n_target_samples: PositiveInt = 10,
        n_action_samples: PositiveInt = 100,
        **kwargs: Unpack[AllArguments],
    ) -> None:
        self.vae_learning_rate = vae_learning_rate
        self.beta = beta
        self.lam = lam
        self.n_target_samples = n_target_samples
        self.n_action_samples = n_action_samples
        super().__init__(policy, env, learning_rate, critic_learning_rate, **kwargs)

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        return {"beta": self.beta, "n_action_samples": self.n_action_samples}

    def declare_state(self) -> None:
        """Actor, critics and VAE, with an optimizer each."""
        super().declare_state()
        self.add_optimizer("vae", self.vae.parameters())

    def watch(self, metrics: dict[str, float]) -> None:
        """Warn where the VAE's latents say nothing: all its samples are one action then."""
        if self._n_updates >= _SETTLED and metrics["vae_kl"] < SILENT:
            self.monitor.warn_once(
                "vae_kl",
                f"After {self._n_updates} updates the VAE's latents say next to nothing about the actions (vae_kl="
                f"{metrics['vae_kl']:.2g} nats), so that its samples hardly differ: actions closer to each other than "
                f"{self.vae.action_variance**0.5:.2g} are one to it. A smaller beta than {self.beta} tells them apart.",
            )

    def vae_step(self, states: Tensor, actions: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """
        Descend mean_A (â − a)² + β·mean_Z KL.

        :param states: (B, S)
        :param actions: (B, A)
        :param noise: (B, L, Z) standard normal
        :return: scalars to log
        """
        rate = self.rate_without_decay(self.vae_learning_rate)
        info = vae_step(self.vae, self.vae_optimizer, states, actions, noise, rate, self.max_grad_norm)
        return {"vae_loss": info["loss"], "vae_kl": info["kl"]}

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
