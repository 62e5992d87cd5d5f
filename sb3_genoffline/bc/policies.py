"""The policy of behaviour cloning: an actor and nothing else."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import NetArch
from sb3_genoffline.common.policies import EXPLORATION_STD, OfflinePolicy
from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.actors import DeterministicActor, GaussianActor


class BCPolicy(OfflinePolicy):
    """
    ``predict(deterministic=True)`` is π(s), or the mean μ(s) of a Gaussian actor; ``deterministic=False`` adds normal noise,
    of the Gaussian's σ or of TD3's 0.1, and clips to [−1, 1].

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizer
    :param gaussian: N(μ(s), diag σ²) with one σ for all states, instead of π(s)
    :param net_arch: hidden widths, or ``dict(pi=[...])`` as for algorithms with critics
    :param activation_fn: activation class
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        gaussian: bool = False,
        net_arch: NetArch = (256, 256),
        activation_fn: type[nn.Module] = nn.ReLU,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        if isinstance(net_arch, dict) and "pi" not in net_arch:
            raise UserError(f"net_arch={net_arch} has no 'pi', the actor's hidden widths: give dict(pi=[...]), or one list.")
        widths = net_arch["pi"] if isinstance(net_arch, dict) else net_arch
        self.actor: DeterministicActor | GaussianActor
        if gaussian:
            self.actor = GaussianActor(self.state_dim, self.action_dim, widths, activation_fn, torch_init=True)
        else:
            self.actor = DeterministicActor(self.state_dim, self.action_dim, widths, activation_fn)

    def forward(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        return self._predict(observation, deterministic)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        actions: Tensor = self.actor(self.normalize_observations(observation))
        if deterministic:
            return actions
        std = self.actor.std() if isinstance(self.actor, GaussianActor) else EXPLORATION_STD
        noisy: Tensor = actions + std * self.acting_noise(*actions.shape)
        return noisy.clamp(-1.0, 1.0)
