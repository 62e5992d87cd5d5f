"""What the actor-critic algorithms share around their losses: networks, optimizers, targets, the critics' step."""

from typing import ClassVar, TypeVar, Unpack

import torch as th
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from sb3_genoffline.common.arguments import Rate
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import AllArguments
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.policies import OfflinePolicy
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import EnsembleQ

NoiseT = TypeVar("NoiseT")


class ActorCriticAlgorithm(OfflineAlgorithm[TransitionBatch, NoiseT]):
    """
    An algorithm whose policy has ``actor``, ``critic``, ``critic_target`` and perhaps ``actor_target``.

    :param policy: see :class:`~sb3_genoffline.common.learner.Learner`
    :param env: likewise
    :param learning_rate: of the actor, and of the critics unless ``critic_learning_rate`` is given
    :param critic_learning_rate: of the critics (None: ``learning_rate``)
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    actor: nn.Module
    critic: EnsembleQ
    critic_target: EnsembleQ
    actor_optimizer: th.optim.Optimizer
    critic_optimizer: th.optim.Optimizer
    further_networks: ClassVar[tuple[str, ...]] = ()
    """Networks of the policy beside actor, critics and targets that the algorithm trains or reads."""
    decays_critic_rate: ClassVar[bool] = False
    """Whether ``lr_decay_steps`` is the critics' too."""

    def __init__(
        self,
        policy: str | type[OfflinePolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        **kwargs: Unpack[AllArguments],
    ) -> None:
        self.critic_learning_rate = critic_learning_rate
        super().__init__(policy, env, learning_rate, **kwargs)

    def declare_state(self) -> None:
        """Actor and critics with an optimizer each, and the targets that there are."""
        names = ("actor", "actor_target", "critic", "critic_target", *self.further_networks)
        self.add_networks(*(name for name in names if hasattr(self.policy, name)))
        self.add_optimizer("actor", self.actor.parameters())
        self.add_optimizer("critic", self.critic.parameters())

    def actor_rate_now(self, every: int = 1) -> float | Tensor:
        """
        Learning rate of the actor's coming update.

        :param every: updates between two that the cosine counts
        """
        return self.rate_now(self.learning_rate, every)

    def critic_rate_now(self) -> float | Tensor:
        """Learning rate of the critics' coming update."""
        rate = self.learning_rate if self.critic_learning_rate is None else self.critic_learning_rate
        return self.rate_now(rate) if self.decays_critic_rate else self.rate_without_decay(rate)

    def td_target(self, batch: TransitionBatch, next_values: Tensor) -> Tensor:
        """
        y = r + γ·m·v(s').

        :param batch: B transitions
        :param next_values: v(s'), (B,)
        :return: (B,)
        """
        return batch.rewards + self.gamma * batch.masks * next_values

    def critic_step(self, states: Tensor, actions: Tensor, target: Tensor) -> dict[str, Tensor]:
        """
        Descend Σ_h E[(Q_h(s, a) − y)²].

        :param states: (B, S)
        :param actions: (B, A)
        :param target: y, (B,)
        :return: scalars to log
        """
        q = self.critic(states, actions)  # (H, B)
        loss = self.critic.n_critics * mse_loss(q, target.expand_as(q))  # the mean over critics, times their number
        gradient_step(self.critic_optimizer, loss, self.critic_rate_now(), self.max_grad_norm)
        return {"critic_loss": loss.detach(), "q_mean": q.detach().mean()}


def smoothed(actions: Tensor, noise: Tensor, std: float, clip: float) -> Tensor:
    """
    TD3's target-policy smoothing (Fujimoto et al. 2018, eq. 14): clipped normal noise on the target actions.

    :param actions: (B, A)
    :param noise: (B, A) standard normal
    :param std: of the noise
    :param clip: its largest absolute value
    :return: (B, A), not clipped to the box
    """
    return actions + (noise * std).clamp(-clip, clip)
