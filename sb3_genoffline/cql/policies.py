"""The policy of CQL: SAC's."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule

from sb3_genoffline.common.arguments import NetArch
from sb3_genoffline.common.policies import SquashedActorCriticPolicy


class CQLPolicy(SquashedActorCriticPolicy):
    """
    SAC's squashed Gaussian actor, two critics, and the critics' targets. ``predict(deterministic=True)`` is tanh(μ(s));
    ``deterministic=False`` one sample.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param net_arch: hidden widths of actor and critics, or ``dict(pi=[...], qf=[...])``
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.policies.ActorCriticPolicy`
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        net_arch: NetArch = (256, 256, 256),
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, net_arch=net_arch, **kwargs)
