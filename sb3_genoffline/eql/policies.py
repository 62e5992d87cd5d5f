"""The policy of EQL: a Gaussian actor, twin critics, their targets, and a state value with LayerNorm."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule

from sb3_genoffline.common.in_sample import InSamplePolicy


class EQLPolicy(InSamplePolicy):
    """
    ``predict(deterministic=True)`` is the actor's mean μ(s), as the code evaluates; ``deterministic=False`` one sample of its
    Gaussian, clipped to [−1, 1].

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param value_layer_norm: LayerNorm, with learned scale and shift, before each activation of V
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.in_sample.InSamplePolicy`
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        value_layer_norm: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, value_layer_norm=value_layer_norm, **kwargs)
