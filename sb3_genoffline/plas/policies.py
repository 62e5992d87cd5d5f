"""The policy of PLAS: an actor that chooses latents of a frozen VAE, and twin critics of what they decode to."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import NetArch, NonNegative, Positive, PositiveInt, Widths
from sb3_genoffline.common.policies import EXPLORATION_STD, ActorCriticPolicy
from sb3_genoffline.generative.vae import ConditionalVAE
from sb3_genoffline.nets.actors import DeterministicActor, PerturbationActor
from sb3_genoffline.nets.network import Network


class LatentActor(Network):
    """
    z = M·tanh(net(s)), and perhaps a perturbation of what z decodes to: one module, so that one optimizer and one soft update
    hold both.

    :param max_latent_action: M
    :param max_perturbation: how far a decoded action may be moved (None: there is no such network)
    :param state_dim: S
    :param action_dim: A
    :param latent_dim: Z
    :param net_arch: hidden widths of either network
    :param activation_fn: activation class
    """

    def __init__(
        self,
        max_latent_action: float,
        max_perturbation: float | None,
        state_dim: int,
        action_dim: int,
        latent_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.max_latent_action = max_latent_action
        self.latent = DeterministicActor(state_dim, latent_dim, net_arch, activation_fn)
        self.perturbation = (
            None
            if max_perturbation is None
            else PerturbationActor(max_perturbation, state_dim, action_dim, net_arch, activation_fn)
        )

    def forward(self, states: Tensor) -> Tensor:
        """z, (B, S) -> (B, Z) within ± M"""
        latents: Tensor = self.latent(states)
        return self.max_latent_action * latents

    def perturb(self, states: Tensor, actions: Tensor) -> Tensor:
        """(B, S), (B, A) -> (B, A)"""
        if self.perturbation is None:
            return actions
        perturbed: Tensor = self.perturbation(states, actions)
        return perturbed


class LatentPolicy(ActorCriticPolicy):
    """
    ``predict(deterministic=True)`` decodes the actor's latents, and perturbs the action where there is a perturbation; nothing
    is drawn. ``deterministic=False`` adds normal noise of std 0.1 and clips to [−1, 1], as TD3 explores.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param max_latent_action: M, largest absolute value of a latent
    :param max_perturbation: how far a decoded action may be moved, within [−1, 1] (None: there is no such network)
    :param beta: β of the VAE
    :param vae_net_arch: hidden widths of its encoder and decoder
    :param latent_dim: of its latents (None: twice the actions')
    :param noise_on_latents: ``deterministic=False`` adds its noise, times M, to the latents, clipped to ± M, so that actions
        stay near the data
    :param net_arch: hidden widths of actor and critics, or ``dict(pi=[...], qf=[...])``
    :param kwargs: networks of actor and critics, see :class:`~sb3_genoffline.common.policies.ActorCriticPolicy`
    """

    fitted_model = "density"
    acting_settings: ClassVar[tuple[str, ...]] = ("noise_on_latents",)
    actor: LatentActor
    actor_target: LatentActor
    fitted: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        max_latent_action: Positive = 2.0,
        max_perturbation: NonNegative | None = None,
        beta: Positive = 0.5,
        vae_net_arch: Widths = (750, 750),
        latent_dim: PositiveInt | None = None,
        noise_on_latents: bool = False,
        net_arch: NetArch = (400, 300),
        **kwargs: Any,
    ) -> None:
        self.max_latent_action, self.max_perturbation, self.latent_dim = max_latent_action, max_perturbation, latent_dim
        super().__init__(observation_space, action_space, lr_schedule, net_arch=net_arch, **kwargs)
        self.noise_on_latents = noise_on_latents
        self.density = ConditionalVAE(self.state_dim, self.action_dim, latent_dim, vae_net_arch, beta)
        self.density.requires_grad_(False)
        self.register_buffer("fitted", th.zeros((), dtype=th.bool))

    def make_actor(self, net_arch: Sequence[int], activation_fn: type[nn.Module]) -> LatentActor:
        """See :meth:`~sb3_genoffline.common.policies.ActorCriticPolicy.make_actor`."""
        latent_dim = self.latent_dim or 2 * self.action_dim
        sizes = (self.state_dim, self.action_dim, latent_dim)
        return LatentActor(self.max_latent_action, self.max_perturbation, *sizes, net_arch, activation_fn)

    def set_observation_statistics(self, mean: Tensor, std: Tensor) -> None:
        """The VAE's too, unless it is fitted and has its own."""
        super().set_observation_statistics(mean, std)
        if not bool(self.fitted):
            self.density.set_state_statistics(self.obs_mean, self.obs_std)

    def decode(self, observations: Tensor, latents: Tensor) -> Tensor:
        """
        Actions of the VAE for given latents.

        :param observations: (B, S) raw: the VAE standardises them by itself
        :param latents: (B, Z), or (B, n, Z) for n actions per state
        :return: (B, A) or (B, n, A)
        """
        return self.density.decode(observations.to(self.obs_mean.dtype).flatten(1), latents)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        states = self.normalize_observations(observation)
        latents = self.actor(states)  # (B, Z)
        std = 0.0 if deterministic or not self.adds_noise else EXPLORATION_STD
        if std > 0 and self.noise_on_latents:
            bound = self.max_latent_action
            latents = (latents + std * bound * self.acting_noise(*latents.shape)).clamp(-bound, bound)
        actions = self.actor.perturb(states, self.decode(observation, latents))
        if std > 0 and not self.noise_on_latents:
            actions = (actions + std * self.acting_noise(*actions.shape)).clamp(-1.0, 1.0)
        return actions
