"""The policy of IQL: a Gaussian actor, twin critics, their targets, and a state value."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_genoffline.common.arguments import NetArch
from sb3_genoffline.common.policies import GaussianActorCriticPolicy
from sb3_genoffline.nets.values import StateValue


class IQLPolicy(GaussianActorCriticPolicy):
    """
    ``predict(deterministic=True)`` is the actor's mean μ(s), as the paper evaluates; ``deterministic=False`` one sample of its
    Gaussian, clipped to [−1, 1].

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param net_arch: hidden widths, or ``dict(pi=[...], qf=[...])``, where V has those of ``qf``
    :param critic_activation_fn: of critics and V
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.policies.ActorCriticPolicy`
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        net_arch: NetArch = (256, 256),
        critic_activation_fn: type[nn.Module] = nn.ReLU,
        **kwargs: Any,
    ) -> None:
        networks: dict[str, Any] = {"net_arch": net_arch, "critic_activation_fn": critic_activation_fn}
        super().__init__(observation_space, action_space, lr_schedule, **networks, **kwargs)
        widths = net_arch["qf"] if isinstance(net_arch, dict) else net_arch
        self.value = StateValue(self.state_dim, widths, critic_activation_fn)
