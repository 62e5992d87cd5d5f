"""Training a VAE of behaviour: a step beside the policy's updates, and the fit before them."""

from typing import Any, TypeVar

import torch as th
from torch import Tensor

from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm
from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.common.optimizers import gradient_step, make_optimizer
from sb3_genoffline.generative.vae import ConditionalVAE

NoiseT = TypeVar("NoiseT")
SILENT = 0.01
"""KL divergence, in nats, below which a VAE's latents say next to nothing about the actions."""


def vae_step(
    vae: ConditionalVAE,
    optimizer: th.optim.Optimizer,
    states: Tensor,
    actions: Tensor,
    noise: Tensor,
    learning_rate: float | Tensor,
    max_grad_norm: float | None = None,
) -> dict[str, Tensor]:
    """
    One step down the released loss.

    :param vae: trained in place
    :param optimizer: of its parameters
    :param states: (B, S) as the VAE reads them
    :param actions: (B, A) in [−1, 1]
    :param noise: (B, L, Z) standard normal
    :param learning_rate: of this step
    :param max_grad_norm: see :func:`~sb3_genoffline.common.optimizers.gradient_step`
    :return: scalars to log: the loss; the ELBO and its KL divergence in nats
    """
    reconstruction, divergence = vae.elbo_terms(states, actions, noise)
    elbo = (reconstruction - divergence).mean()
    loss = vae.released_loss(elbo)
    gradient_step(optimizer, loss, learning_rate, max_grad_norm)
    return {"loss": loss.detach(), "elbo": elbo.detach(), "kl": divergence.detach().mean()}


class VAEFit(Fit):
    """
    Maximises the ELBO, then freezes the VAE.

    :param n_steps: steps in all
    :param policy: whose ``density`` it is; the agent saves it itself
    :param states: (N, S) raw
    :param actions: (N, A) in [−1, 1]
    :param batch_size: rows of a step, drawn with replacement
    :param learning_rate: of Adam
    :param generator: of the random numbers
    """

    name = "vae"

    def __init__(
        self,
        n_steps: int,
        policy: Any,
        states: Tensor,
        actions: Tensor,
        batch_size: int,
        learning_rate: float,
        generator: th.Generator,
    ) -> None:
        self.optimizer = make_optimizer(th.optim.Adam, policy.density.parameters(), learning_rate)
        # the agent saves the VAE, which is its policy's
        super().__init__(n_steps, optimizers={"vae": self.optimizer}, generator=generator)
        self.policy, self.rows = policy, (states, actions)
        self.batch_size, self.learning_rate = batch_size, learning_rate

    def draw(self) -> tuple[Tensor, Tensor]:
        """States (B, S) and actions (B, A)."""
        states, actions = self.rows
        drawn = th.randint(len(states), (self.batch_size,), generator=self.generator, device=states.device)
        return states[drawn], actions[drawn]

    def step_on(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """One step down the released loss."""
        density = self.policy.density.requires_grad_(True)
        noise = density.draw_noise(len(batch[0]), self.generator)
        return vae_step(density, self.optimizer, *batch, noise, self.learning_rate)

    def finish(self) -> None:
        """The VAE counts as fitted."""
        self.policy.density.requires_grad_(False)
        self.policy.fitted.fill_(True)


class VAEFittingAlgorithm(ActorCriticAlgorithm[NoiseT]):
    """
    Actor and critics of a policy whose ``density`` is a VAE that is fitted before them and frozen. An algorithm has the
    arguments ``vae_steps``, ``vae_batch_size`` and ``vae_learning_rate`` beside those of
    :class:`~sb3_genoffline.common.actor_critic.ActorCriticAlgorithm`.
    """

    fitted_model_arguments = "the same spaces, beta=..., and policy_kwargs=dict(vae_net_arch=..., latent_dim=...)"
    vae_steps: int
    vae_batch_size: int
    vae_learning_rate: float

    def fit_arguments(self) -> tuple[str, ...]:
        """Arguments of the VAE's fit."""
        return ("vae_steps", "vae_batch_size", "vae_learning_rate")

    def make_fits(self) -> list[Fit]:
        """The VAE's, on raw states; it standardises them by itself."""
        policy: Any = self.policy
        if self.normalize_observations:
            policy.density.set_state_statistics(policy.obs_mean, policy.obs_std)
        rows = self.offline_rows()
        return [VAEFit(self.vae_steps, policy, *rows, self.vae_batch_size, self.vae_learning_rate, self.generator)]
