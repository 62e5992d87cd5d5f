"""Fitting the VAE of behaviour before the policy."""

import torch as th
from torch import Tensor

from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.spot.policies import VAEDensityPolicy


class VAEFit(Fit):
    """
    Maximises the ELBO, then freezes the VAE.

    :param n_steps: steps in all
    :param policy: whose VAE it is; the agent saves it itself
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
        policy: VAEDensityPolicy,
        states: Tensor,
        actions: Tensor,
        batch_size: int,
        learning_rate: float,
        generator: th.Generator,
    ) -> None:
        self.optimizer = th.optim.Adam(policy.density.parameters(), learning_rate, fused=True)
        super().__init__(n_steps, optimizers={"vae": self.optimizer})  # the agent saves the VAE, which is its policy's
        self.policy, self.rows = policy, (states, actions)
        self.batch_size, self.learning_rate, self.generator = batch_size, learning_rate, generator

    def update(self) -> dict[str, Tensor]:
        """One step on a batch, in the unit of the released loss."""
        density = self.policy.density.requires_grad_(True)
        states, actions = self.rows
        drawn = th.randint(len(states), (self.batch_size,), generator=self.generator, device=states.device)
        noise = th.randn(
            (self.batch_size, 1, density.latent_dim), generator=self.generator, device=states.device, dtype=states.dtype
        )
        elbo = density.elbo(states[drawn], actions[drawn], noise).mean()
        loss = -density.unit * elbo
        gradient_step(self.optimizer, loss, self.learning_rate)
        return {"loss": loss.detach(), "elbo": elbo.detach()}

    def finish(self) -> None:
        """The VAE counts as fitted."""
        self.policy.density.requires_grad_(False)
        self.policy.fitted.fill_(True)
