"""The policy of AWAC: a Gaussian actor four layers deep whose σ starts small, and twin critics of two layers."""

from collections.abc import Sequence
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import NetArch, Widths
from sb3_genoffline.common.policies import GaussianActorCriticPolicy
from sb3_genoffline.nets.actors import GaussianActor

_NET_ARCH: dict[str, Sequence[int]] = {"pi": [256, 256, 256, 256], "qf": [256, 256]}
_LOG_STD_MIN, _LOG_STD_MAX = -6.0, 0.0


class SigmoidStdActor(GaussianActor):
    """
    A Gaussian actor whose log σ a sigmoid keeps in (−6, 0); it starts in the middle, at σ = e⁻³.

    The arguments are those of :class:`~sb3_genoffline.nets.actors.GaussianActor`.
    """

    def __init__(self, state_dim: int, action_dim: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(state_dim, action_dim, *args, **kwargs)
        del self.log_std
        self.std_logit = nn.Parameter(th.zeros(action_dim))

    def std(self) -> Tensor:
        """σ, (A,)"""
        return (_LOG_STD_MIN + (_LOG_STD_MAX - _LOG_STD_MIN) * self.std_logit.sigmoid()).exp()


class AWACPolicy(GaussianActorCriticPolicy):
    """
    ``predict(deterministic=True)`` is the actor's mean μ(s); ``deterministic=False`` one sample of its Gaussian, clipped to
    [−1, 1].

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
        net_arch: NetArch = _NET_ARCH,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, net_arch=net_arch, **kwargs)

    def make_actor(self, net_arch: Widths, activation_fn: type[nn.Module]) -> GaussianActor:
        """See :meth:`~sb3_genoffline.common.policies.ActorCriticPolicy.make_actor`."""
        return SigmoidStdActor(self.state_dim, self.action_dim, net_arch, activation_fn, self.torch_init)
