"""A VAE of behaviour that learns beside actor and critics, one step in each of their updates."""

from typing import Any, TypeVar, Unpack

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm
from sb3_genoffline.common.arguments import Positive, PositiveInt, Rate, Widths
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import AllArguments
from sb3_genoffline.common.policies import ActorCriticPolicy
from sb3_genoffline.common.vae_training import SILENT, vae_step
from sb3_genoffline.generative.vae import ConditionalVAE

NoiseT = TypeVar("NoiseT")
_SETTLED = 10_000  # updates


class BehaviorVAEPolicy(ActorCriticPolicy):
    """
    Actor, critics, targets, and a VAE of behaviour that sees the states as they do: where observations are standardised, they
    are once, and the VAE's own statistics stay 0 and 1.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param beta: β of the VAE
    :param vae_net_arch: hidden widths of its encoder and decoder
    :param latent_dim: of its latents (None: twice the actions')
    :param kwargs: networks of actor and critics, see :class:`~sb3_genoffline.common.policies.ActorCriticPolicy`
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        beta: Positive = 0.5,
        vae_net_arch: Widths = (750, 750),
        latent_dim: PositiveInt | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.vae = ConditionalVAE(self.state_dim, self.action_dim, latent_dim, vae_net_arch, beta)


class BehaviorVAEArguments(AllArguments, total=False):
    """The keyword arguments of :class:`BehaviorVAEAlgorithm`."""

    vae_learning_rate: Rate
    beta: Positive


class BehaviorVAEAlgorithm(ActorCriticAlgorithm[NoiseT]):
    """
    Actor, critics and VAE with an optimizer each.

    :param policy: see :class:`~sb3_genoffline.common.learner.Learner`
    :param env: likewise
    :param learning_rate: of the actor, and of the critics unless ``critic_learning_rate`` is given
    :param critic_learning_rate: of the critics (None: ``learning_rate``)
    :param vae_learning_rate: of the VAE
    :param beta: β, weight of its KL term
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy: BehaviorVAEPolicy
    further_networks = ("vae",)
    vae: ConditionalVAE
    vae_optimizer: th.optim.Optimizer

    def __init__(
        self,
        policy: str | type[BehaviorVAEPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 1e-3,
        critic_learning_rate: Rate | None = None,
        *,
        vae_learning_rate: Rate = 1e-3,
        beta: Positive = 0.5,
        **kwargs: Unpack[AllArguments],
    ) -> None:
        self.vae_learning_rate = vae_learning_rate
        self.beta = beta
        super().__init__(policy, env, learning_rate, critic_learning_rate, **kwargs)

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        return {"beta": self.beta}

    def declare_state(self) -> None:
        """Actor, critics and VAE, with an optimizer each."""
        super().declare_state()
        self.add_optimizer("vae", self.vae.parameters())

    def watch(self, metrics: dict[str, float]) -> None:
        """Warn where the VAE's latents say nothing: all its samples are one action then."""
        if self._n_updates >= _SETTLED and metrics["vae_kl"] < SILENT:
            self.monitor.warn_once(
                "vae_kl",
                f"After {self._n_updates} updates the VAE's latents carry almost no information about the actions (vae_kl="
                f"{metrics['vae_kl']:.2g} nats), so that its samples hardly differ: actions closer to each other than "
                f"{self.vae.action_variance**0.5:.2g} look the same to it. A smaller beta than {self.beta} tells them apart.",
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
