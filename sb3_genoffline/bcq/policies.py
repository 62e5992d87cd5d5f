"""The policy of BCQ: a VAE proposes actions, a small network perturbs them, and a critic chooses."""

from collections.abc import Sequence
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import NetArch, NonNegative, Positive
from sb3_genoffline.common.batch_constrained import BatchConstrainedPolicy
from sb3_genoffline.nets.actors import PerturbationActor


class VAEPolicy(BatchConstrainedPolicy):
    """
    ``predict(deterministic=True)`` draws ``n_action_samples`` actions per observation from the VAE, perturbs each, and takes
    the one with the largest Q_1; ``deterministic=False`` is one of them. Both draw random numbers:
    ``model.set_acting_seed(seed)`` before makes them the same again.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param max_perturbation: Φ, how far the actor may move an action, within [−1, 1]
    :param latent_clip: latents that actions are proposed from are clipped to ± this
    :param net_arch: hidden widths of actor and critics, or ``dict(pi=[...], qf=[...])``
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.batch_constrained.BatchConstrainedPolicy`
    """

    acting_settings = ("n_action_samples", "latent_clip")
    actor: PerturbationActor
    actor_target: PerturbationActor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        max_perturbation: NonNegative = 0.05,
        latent_clip: Positive = 0.5,
        net_arch: NetArch = (400, 300),
        **kwargs: Any,
    ) -> None:
        self.max_perturbation = max_perturbation
        super().__init__(observation_space, action_space, lr_schedule, net_arch=net_arch, **kwargs)
        self.latent_clip = latent_clip

    def make_actor(self, net_arch: Sequence[int], activation_fn: type[nn.Module]) -> PerturbationActor:
        """See :meth:`~sb3_genoffline.common.policies.ActorCriticPolicy.make_actor`."""
        return PerturbationActor(self.max_perturbation, self.state_dim, self.action_dim, net_arch, activation_fn)

    def propose(self, states: Tensor, noise: Tensor) -> Tensor:
        """
        Actions as the data would have them.

        :param states: (B, S) normalised observations
        :param noise: (B, Z), or (B, n, Z) for n actions per state, standard normal
        :return: (B, A) or (B, n, A)
        """
        return self.vae.decode(states, noise.clamp(-self.latent_clip, self.latent_clip))

    def sample_actions(self, states: Tensor, n_samples: int) -> Tensor:
        """See :meth:`~sb3_genoffline.common.candidates.CandidatePolicy.sample_actions`."""
        noise = self.acting_noise(states.shape[0], n_samples, self.vae.latent_dim)
        perturbed: Tensor = self.actor(states, self.propose(states, noise))
        return perturbed
