"""The policy of QDQ: a Gaussian actor, twin critics, their targets, and the consistency model over Q."""

import copy
from collections.abc import Sequence
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.policies import OfflinePolicy
from sb3_genoffline.nets.activations import Mish
from sb3_genoffline.nets.actors import GaussianActor
from sb3_genoffline.nets.ensembles import EnsembleQ
from sb3_genoffline.qdq.sampler import ConsistencyQ

_EXPLORATION_STD = 0.1  # TD3's


class ConsistencyQPolicy(OfflinePolicy):
    """
    ``predict(deterministic=True)`` is the actor's mean μ(s); ``deterministic=False`` one sample of its Gaussian, clipped to
    [−1, 1]. Where training never moves σ (``learned_std=False``), σ = 0.1 takes its place when acting, as in TD3.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param learned_std: whether the actor's σ is learned
    :param net_arch: hidden widths of actor and critics, or ``dict(pi=[...], qf=[...])``
    :param activation_fn: of the actor
    :param critic_activation_fn: of the critics
    :param critic_layer_norm: LayerNorm (without learned scale and shift) in the critics
    :param q_net_arch: hidden widths of the consistency model, multiples of 8
    :param q_data_std: σ_d of its preconditioning
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *,
        learned_std: bool = True,
        net_arch: Sequence[int] | dict[str, Sequence[int]] = (256, 256, 256),
        activation_fn: type[nn.Module] = nn.ReLU,
        critic_activation_fn: type[nn.Module] = Mish,
        critic_layer_norm: bool = False,
        q_net_arch: Sequence[int] = (256, 256, 256),
        q_data_std: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.learned_std = learned_std
        arch = net_arch if isinstance(net_arch, dict) else {"pi": net_arch, "qf": net_arch}
        self.actor = GaussianActor(self.state_dim, self.action_dim, arch["pi"], activation_fn)
        self.critic = EnsembleQ(
            2, self.state_dim, self.action_dim, arch["qf"], critic_activation_fn, layer_norm=critic_layer_norm
        )
        self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.q_sampler = ConsistencyQ(self.state_dim, self.action_dim, q_net_arch, q_data_std)

    def forward(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        return self._predict(observation, deterministic)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        mean = self.actor(self.normalize_observations(observation))
        if deterministic:
            return mean
        std = self.actor.std() if self.learned_std else _EXPLORATION_STD
        return (mean + std * self.acting_noise(*mean.shape)).clamp(-1.0, 1.0)
