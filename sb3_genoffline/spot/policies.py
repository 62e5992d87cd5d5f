"""The policy of SPOT: TD3's networks, perhaps with dropout in the actor, and the VAE of behaviour."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import Bounds, HalfWidth, Positive, PositiveInt, Widths
from sb3_genoffline.common.policies import ActorCriticPolicy
from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.vae import ConditionalVAE
from sb3_genoffline.nets.actors import DropoutActor
from sb3_genoffline.nets.ensembles import start_small


class VAEDensityPolicy(ActorCriticPolicy):
    """
    ``predict(deterministic=True)`` is π(s); ``deterministic=False`` adds normal noise of std 0.1, as TD3 explores, and clips
    to [−1, 1]. Nothing is dropped when acting.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param beta: β of the VAE
    :param vae_net_arch: hidden widths of its encoder and decoder
    :param latent_dim: of its latents (None: twice the actions')
    :param actor_dropout: share of the actor's hidden units that are dropped in training, in [0, 1) (0 on AntMaze)
    :param actor_init: half-width of the uniform distribution that the actor's last layer starts from (None: PyTorch's)
    :param critic_init: likewise of the critics'
    :param kwargs: networks of actor and critics, see :class:`~sb3_genoffline.common.policies.ActorCriticPolicy`
    """

    fitted_model = "density"
    actor: DropoutActor
    actor_target: DropoutActor
    fitted: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        beta: Positive = 0.5,
        vae_net_arch: Widths = (750, 750),
        latent_dim: PositiveInt | None = None,
        actor_dropout: Annotated[float, Bounds(0.0, 1.0, open_high=True)] = 0.1,
        actor_init: HalfWidth | None = None,
        critic_init: HalfWidth | None = None,
        **kwargs: Any,
    ) -> None:
        if not 0.0 <= actor_dropout < 1.0:
            raise UserError(f"actor_dropout={actor_dropout} must lie in [0, 1).")
        self.actor_dropout, self.actor_init = actor_dropout, actor_init
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        if critic_init is not None:
            start_small(self.critic.output_layer, critic_init)
            self.critic_target.load_state_dict(self.critic.state_dict())
        self.density = ConditionalVAE(self.state_dim, self.action_dim, latent_dim, vae_net_arch, beta)
        self.density.requires_grad_(False)
        self.register_buffer("fitted", th.zeros((), dtype=th.bool))

    def make_actor(self, net_arch: Sequence[int], activation_fn: type[nn.Module]) -> nn.Module:
        """See :class:`~sb3_genoffline.common.policies.ActorCriticPolicy`."""
        actor = DropoutActor(self.actor_dropout, self.state_dim, self.action_dim, net_arch, activation_fn)
        if self.actor_init is not None:
            start_small(actor.net[-2], self.actor_init)
        return actor
