"""The policy of MCQ: SAC's, and a VAE of behaviour."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule

from sb3_genoffline.common.arguments import NetArch, Positive
from sb3_genoffline.common.behavior_vae import BehaviorVAEPolicy
from sb3_genoffline.common.policies import SquashedActorCriticPolicy


class MCQPolicy(SquashedActorCriticPolicy, BehaviorVAEPolicy):
    """
    ``predict(deterministic=True)`` is tanh(μ(s)); ``deterministic=False`` one sample. The VAE plays no part in acting.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param net_arch: hidden widths of actor and critics, or ``dict(pi=[...], qf=[...])``
    :param beta: β of the VAE
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.behavior_vae.BehaviorVAEPolicy`
    """

    log_std_bounds = (-5.0, 2.0)

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        net_arch: NetArch = (400, 400, 400),
        beta: Positive = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, net_arch=net_arch, beta=beta, **kwargs)
