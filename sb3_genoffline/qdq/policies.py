"""The policy of QDQ: a Gaussian actor, twin critics, their targets, and the consistency model over Q."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import NetArch, Positive, Widths
from sb3_genoffline.common.policies import EXPLORATION_STD, GaussianActorCriticPolicy
from sb3_genoffline.nets.activations import Mish
from sb3_genoffline.qdq.sampler import ConsistencyQ


@dataclass(frozen=True)
class WholeGroups:
    """Marks widths that the norms of the consistency model's network can divide into groups."""

    def check(self, value: Sequence[int]) -> str | None:
        """See :class:`~sb3_genoffline.common.arguments.Rule`."""
        return None if all(width % 8 == 0 for width in value) else "must hold multiples of 8, the size of a norm's group"


class ConsistencyQPolicy(GaussianActorCriticPolicy):
    """
    ``predict(deterministic=True)`` is the actor's mean μ(s); ``deterministic=False`` one sample of its Gaussian, clipped to
    [−1, 1]. Where training never moves σ (``learned_std=False``), acting has σ = 0.1 instead, as TD3.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param learned_std: whether the actor's σ is learned
    :param net_arch: hidden widths of actor and critics, or ``dict(pi=[...], qf=[...])``
    :param critic_activation_fn: of the critics
    :param q_net_arch: hidden widths of the consistency model, multiples of 8
    :param q_data_std: σ_d of its preconditioning
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.policies.ActorCriticPolicy`
    """

    has_actor_target = True
    torch_init = False
    acting_settings = ("learned_std",)
    fitted_model = "q_sampler"

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        learned_std: bool = True,
        net_arch: NetArch = (256, 256, 256),
        critic_activation_fn: type[nn.Module] = Mish,
        q_net_arch: Annotated[Widths, WholeGroups()] = (256, 256, 256),
        q_data_std: Positive = 0.5,
        **kwargs: Any,
    ) -> None:
        networks: dict[str, Any] = {"net_arch": net_arch, "critic_activation_fn": critic_activation_fn}
        super().__init__(observation_space, action_space, lr_schedule, **networks, **kwargs)
        self.learned_std = learned_std
        self.q_sampler = ConsistencyQ(self.state_dim, self.action_dim, q_net_arch, q_data_std)

    @property
    def is_fitted(self) -> Tensor:
        """See :class:`~sb3_genoffline.common.policies.OfflinePolicy`."""
        return self.q_sampler.fitted

    def explore(self, states: Tensor) -> Tensor:
        """See :meth:`~sb3_genoffline.common.policies.ActorCriticPolicy.explore`."""
        std = self.actor.std() if self.learned_std else EXPLORATION_STD
        mean: Tensor = self.actor(states)
        return mean + std * self.acting_noise(*mean.shape)
