"""What the policies of all offline algorithms share."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.nets.actors import DeterministicActor, GaussianActor
from sb3_genoffline.nets.ensembles import EnsembleQ

EXPLORATION_STD = 0.1  # TD3's


class ActingSetting:
    """An attribute of an algorithm that its policy acts by: setting it on the algorithm later sets it on the policy too."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else instance.__dict__[self.name]

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.name] = value
        if "policy" in instance.__dict__:
            setattr(instance.policy, self.name, value)


class OfflinePolicy(BasePolicy):
    """
    A policy that acts in [−1, 1] (SB3 rescales to the action space), keeps the observation statistics as buffers, so that
    ``predict(raw_observation)`` is right after any load, and draws its actions from a generator of its own, so that
    evaluating in the middle of a training changes nothing in the training.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    """

    obs_mean: Tensor
    obs_std: Tensor
    acts_with_targets: ClassVar[tuple[str, ...]] = ()
    """The target networks that the policy acts with, in the place of those that they follow."""

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Space, lr_schedule: Schedule, **kwargs: Any
    ) -> None:
        super().__init__(observation_space, action_space, squash_output=True, **kwargs)
        self.state_dim = int(np.prod(observation_space.shape or ()))
        self.action_dim = int(np.prod(action_space.shape or ()))
        self.register_buffer("obs_mean", th.zeros(self.state_dim))
        self.register_buffer("obs_std", th.ones(self.state_dim))
        self._acting_generator: th.Generator | None = None
        self._acting_seed = 0

    def set_observation_statistics(self, mean: Tensor, std: Tensor) -> None:
        """
        From now on observations are standardised.

        :param mean: (S,)
        :param std: (S,); a constant column gets std 1
        """
        self.obs_mean.copy_(mean)
        self.obs_std.copy_(th.where(std > 1e-6, std, th.ones_like(std)))

    def normalize_observations(self, observations: Tensor) -> Tensor:
        """(B, S) raw -> (B, S) standardised, in the parameters' precision; the identity until statistics are set."""
        return (observations.to(self.obs_mean.dtype).flatten(1) - self.obs_mean) / self.obs_std

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        """[−1, 1] -> the action space, kept inside it where rounding would leave it by a last digit."""
        assert isinstance(self.action_space, spaces.Box)
        return np.clip(super().unscale_action(scaled_action), self.action_space.low, self.action_space.high)

    def _spare_modules(self) -> dict[str, str]:
        """Of each network and its target the one that acting does without, and the other."""
        spare: dict[str, str] = {}
        for target in (name for name, _ in self.named_children() if name.endswith("_target")):
            online = target.removesuffix("_target")
            spare |= {online: target} if target in self.acts_with_targets else {target: online}
        return spare

    def acting_state_dict(self) -> dict[str, Tensor]:
        """The state without those networks that are slow copies of others, or that others are slow copies of."""
        spare = tuple(f"{name}." for name in self._spare_modules())
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(spare)}

    def with_spare_modules(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        :param tensors: as :meth:`acting_state_dict` returns them
        :return: a whole state: of each pair of a network and its target, what was left out is a copy of the other
        """
        whole = dict(tensors)
        for missing, kept in self._spare_modules().items():
            whole |= {
                missing + name.removeprefix(kept): tensor for name, tensor in tensors.items() if name.startswith(f"{kept}.")
            }
        return whole

    def seed_acting(self, seed: int) -> None:
        """Restart the stream of random numbers that actions are sampled with."""
        self._acting_seed = seed
        self._acting_generator = None

    @property
    def acting_generator(self) -> th.Generator:
        """Generator of the actions' randomness, on the policy's device."""
        if self._acting_generator is None or self._acting_generator.device != self.device:
            self._acting_generator = th.Generator(self.device)
            self._acting_generator.manual_seed(self._acting_seed)
        return self._acting_generator

    def acting_noise(self, *shape: int) -> Tensor:
        """Standard normal numbers from the acting generator."""
        return th.randn(shape, generator=self.acting_generator, device=self.device, dtype=self.obs_mean.dtype)


class ActorCriticPolicy(OfflinePolicy):
    """
    A deterministic actor, critics, and their targets, as in TD3. ``predict(deterministic=True)`` is π(s);
    ``deterministic=False`` adds normal noise of std 0.1, as TD3 explores, and clips to [−1, 1].

    A subclass with another actor overrides :meth:`make_actor` and :meth:`explore`.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param net_arch: hidden widths of actor and critics, or ``dict(pi=[...], qf=[...])``
    :param activation_fn: of the actor
    :param critic_activation_fn: of the critics
    :param critic_layer_norm: LayerNorm (without learned scale and shift) in the critics
    :param n_critics: H
    """

    actor: nn.Module
    has_actor_target: ClassVar[bool] = True
    """Whether there is a slowly moving copy of the actor beside that of the critics."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *,
        net_arch: Sequence[int] | dict[str, Sequence[int]] = (256, 256),
        activation_fn: type[nn.Module] = nn.ReLU,
        critic_activation_fn: type[nn.Module] = nn.ReLU,
        critic_layer_norm: bool = False,
        n_critics: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        arch = net_arch if isinstance(net_arch, dict) else {"pi": net_arch, "qf": net_arch}
        self.actor = self.make_actor(arch["pi"], activation_fn)
        self.critic = EnsembleQ(
            n_critics,
            self.state_dim,
            self.action_dim,
            arch["qf"],
            critic_activation_fn,
            layer_norm=critic_layer_norm,
            torch_init=True,
        )
        if self.has_actor_target:
            self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)

    def make_actor(self, net_arch: Sequence[int], activation_fn: type[nn.Module]) -> nn.Module:
        """
        :param net_arch: hidden widths
        :param activation_fn: activation class
        :return: a module whose call maps states (B, S) to the best known actions (B, A) in [−1, 1]
        """
        return DeterministicActor(self.state_dim, self.action_dim, net_arch, activation_fn)

    def explore(self, states: Tensor) -> Tensor:
        """(B, S) standardised states -> (B, A) sampled actions, clipped later"""
        actions = self.actor(states)
        return actions + EXPLORATION_STD * self.acting_noise(*actions.shape)

    def forward(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        return self._predict(observation, deterministic)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        states = self.normalize_observations(observation)
        return self.actor(states) if deterministic else self.explore(states).clamp(-1.0, 1.0)


class GaussianActorCriticPolicy(ActorCriticPolicy):
    """
    A Gaussian actor with one standard deviation for all states, critics, and the critics' targets.
    ``predict(deterministic=True)`` is the mean μ(s); ``deterministic=False`` one sample, clipped to [−1, 1].

    The arguments are those of :class:`ActorCriticPolicy`.
    """

    actor: GaussianActor
    has_actor_target = False

    def make_actor(self, net_arch: Sequence[int], activation_fn: type[nn.Module]) -> GaussianActor:
        """See :meth:`ActorCriticPolicy.make_actor`."""
        return GaussianActor(self.state_dim, self.action_dim, net_arch, activation_fn, torch_init=True)

    def explore(self, states: Tensor) -> Tensor:
        """See :meth:`ActorCriticPolicy.explore`."""
        return self.actor.sample(states, self.acting_noise(len(states), self.action_dim))
