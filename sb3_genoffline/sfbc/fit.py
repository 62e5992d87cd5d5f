"""What comes before the critic: the diffusion model of behaviour."""

from collections.abc import Callable

import torch as th
from torch import Tensor

from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.common.optimizers import gradient_step, make_optimizer
from sb3_genoffline.data.batches import ReturnBatch
from sb3_genoffline.sfbc.policies import SfBCPolicy


class BehaviorFit(Fit):
    """
    The behaviour by denoising score matching.

    :param n_steps: steps in all
    :param policy: whose behaviour it is; the agent saves it itself
    :param draw: gives the next batch
    :param learning_rate: of Adam
    :param generator: of the random numbers
    """

    name = "behavior"

    def __init__(
        self,
        n_steps: int,
        policy: SfBCPolicy,
        draw: Callable[[], ReturnBatch],
        learning_rate: float,
        generator: th.Generator,
    ) -> None:
        self.policy, self.draw_batch, self.learning_rate, self.rows_generator = policy, draw, learning_rate, generator
        self.behavior = policy.behavior
        self.optimizer = make_optimizer(th.optim.Adam, self.behavior.parameters(), learning_rate)
        super().__init__(n_steps, optimizers={"behavior": self.optimizer}, generator=generator)

    def draw(self) -> ReturnBatch:
        """The next batch."""
        return self.draw_batch()

    def step_on(self, batch: ReturnBatch) -> dict[str, Tensor]:
        """One step down E[Σ_A (z − ε̂(α_t·a + σ_t·z, t | s))²]."""
        behavior = self.behavior.requires_grad_(True)
        states = self.policy.normalize_observations(batch.observations)
        loss = behavior.loss(states, batch.actions, behavior.draw_noise(len(states), self.rows_generator))
        gradient_step(self.optimizer, loss, self.learning_rate)
        return {"loss": loss.detach()}

    def finish(self) -> None:
        """The behaviour stays as it is from here on."""
        self.behavior.requires_grad_(False)
        self.policy.fitted.fill_(True)
