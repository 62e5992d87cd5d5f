"""What the actor-critic algorithms share around their losses: names, optimizers, the critics' step."""

from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.policies import OfflinePolicy
from sb3_genoffline.nets.ensembles import EnsembleQ


class ActorCriticAlgorithm(OfflineAlgorithm):
    """
    An algorithm whose policy has ``actor``, ``critic``, ``critic_target`` and perhaps ``actor_target``.

    :param policy: see :class:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm`
    :param env: likewise
    :param learning_rate: of the actor, and of the critics unless ``critic_learning_rate`` is given
    :param critic_learning_rate: of the critics (None: ``learning_rate``), without ``lr_decay_steps``
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm`
    """

    actor: nn.Module
    critic: EnsembleQ
    critic_target: EnsembleQ

    def __init__(
        self,
        policy: str | type[OfflinePolicy],
        env: EnvLike | None = None,
        learning_rate: float | Schedule = 3e-4,
        critic_learning_rate: float | Schedule | None = None,
        **kwargs: Any,
    ) -> None:
        self.critic_learning_rate = critic_learning_rate
        super().__init__(policy, env, learning_rate, **kwargs)

    def _setup_training(self) -> None:
        for name in self._module_names():
            setattr(self, name, getattr(self.policy, name))
        rate = self.learning_rate if self.critic_learning_rate is None else self.critic_learning_rate
        self.critic_lr_schedule = FloatSchedule(rate)
        self.actor_optimizer = th.optim.Adam(self.actor.parameters(), lr=self.lr_schedule(1.0), fused=True)
        self.critic_optimizer = th.optim.Adam(self.critic.parameters(), lr=self.critic_lr_schedule(1.0), fused=True)
        self._actor_info: dict[str, Tensor] = {}  # of the last actor update

    def _module_names(self) -> list[str]:
        """The policy's modules that the algorithm names on itself."""
        return [name for name in ("actor", "actor_target", "critic", "critic_target") if hasattr(self.policy, name)]

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *self._module_names()]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "actor_optimizer", "critic_optimizer"], []

    def normal_noise(self, *shape: int) -> Tensor:
        """Standard normal numbers from this algorithm's generator."""
        return th.randn(shape, generator=self.generator, device=self.device, dtype=self.policy.obs_mean.dtype)

    def critic_rate_now(self) -> float:
        """Learning rate of the critics' coming update: without the cosine decay, which is the actor's."""
        return self.critic_lr_schedule(self._current_progress_remaining)

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
