"""Fitting the density of behaviour before the policy."""

from collections.abc import Mapping
from typing import Any

import torch as th
from torch import Tensor

from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.cped.policies import FlowDensityPolicy
from sb3_genoffline.generative.behavior import Density
from sb3_genoffline.generative.flow_gan import Discriminator, FlowGAN

_HELD_OUT_ROWS = 10_000


class DensityTrainer:
    """
    The steps of the flow and of its discriminator.

    :param density: trained in place
    :param discriminator: its adversary
    :param gan: the losses
    :param density_optimizer: of the density
    :param discriminator_optimizer: of the discriminator
    :param n_critic_steps: steps of the discriminator per step of the flow
    :param dequantization: half-width of the uniform noise on the actions
    :param learning_rates: of the flow and of the discriminator
    :param generator: of the random numbers
    """

    def __init__(
        self,
        density: Density,
        discriminator: Discriminator,
        gan: FlowGAN,
        density_optimizer: th.optim.Optimizer,
        discriminator_optimizer: th.optim.Optimizer,
        n_critic_steps: int,
        dequantization: float,
        learning_rates: tuple[float, float],
        generator: th.Generator,
    ) -> None:
        self.density, self.discriminator, self.gan = density, discriminator, gan
        self.density_optimizer, self.discriminator_optimizer = density_optimizer, discriminator_optimizer
        self.n_critic_steps, self.dequantization = n_critic_steps, dequantization
        self.learning_rates, self.generator = learning_rates, generator

    def step(self, states: Tensor, actions: Tensor, moves_flow: bool) -> dict[str, Tensor]:
        """
        One step of the discriminator, and perhaps one of the flow; without an adversarial term always one of the flow.

        :param states: (B, S) raw
        :param actions: (B, A)
        :param moves_flow: whether the flow's turn has come
        :return: scalars to log, on the device
        """
        if self.dequantization > 0:
            actions = self.density.dequantise(actions, self.dequantization, self.generator)
        info: dict[str, Tensor] = {}
        adversarial = self.gan.adv_weight > 0
        if adversarial:
            noise = self.gan.draw_noise(self.density, len(states), self.generator)
            loss, info = self.gan.discriminator_loss(self.discriminator, self.density, states, actions, noise)
            gradient_step(self.discriminator_optimizer, loss, self.learning_rates[1])
            info["discriminator_loss"] = loss.detach()
        if not adversarial or moves_flow:
            fresh = self.gan.draw_noise(self.density, len(states), self.generator) if adversarial else None
            loss, flow_info = self.gan.flow_loss(self.discriminator, self.density, states, actions, fresh)
            gradient_step(self.density_optimizer, loss, self.learning_rates[0])
            info |= flow_info | {"loss": loss.detach()}
        return info


class DensityFit(Fit):
    """
    Fits the density. With held-out rows, training stops when their NLL no longer falls, and the weights with the lowest are
    kept.

    :param n_steps: at most so many
    :param trainer: makes the steps
    :param policy: whose density it is; learns what NLLs are usual when the density is fitted
    :param states: (N, S) raw
    :param actions: (N, A) in [−1, 1]
    :param batch_size: drawn with replacement
    :param held_out: share of the rows that are not trained on; 0: no early stopping
    :param eval_every: steps between two looks at them
    :param patience: looks without a new best before stopping
    :param quantile: q of the threshold
    :param freeze: leave the density as it is from the end on
    :param seed: chooses the rows that are held out
    """

    name = "flow"

    def __init__(
        self,
        n_steps: int,
        trainer: DensityTrainer,
        policy: FlowDensityPolicy,
        states: Tensor,
        actions: Tensor,
        *,
        batch_size: int,
        held_out: float,
        eval_every: int,
        patience: int,
        quantile: float,
        freeze: bool,
        seed: int,
    ) -> None:
        # the agent saves density, discriminator and their optimizers itself
        super().__init__(n_steps, generator=trainer.generator)
        self.trainer, self.policy, self.rows = trainer, policy, (states, actions)
        self.batch_size, self.eval_every, self.patience = batch_size, eval_every, patience
        self.quantile, self.freeze = quantile, freeze
        self.n_held_out = min(int(held_out * len(states)), _HELD_OUT_ROWS)
        self._split(seed)
        self.best: dict[str, Any] = {"nll": float("inf"), "stale": 0, "weights": {}}
        self._seen: dict[str, Tensor] = {}

    def _split(self, seed: int) -> None:
        states, _ = self.rows
        order = th.randperm(len(states), generator=th.Generator().manual_seed(seed)).to(states.device)
        self.seed, self.held_out, self.trained_on = seed, order[: self.n_held_out], order[self.n_held_out :]

    @property
    def done(self) -> bool:
        """After all steps, or when the held-out NLL no longer falls."""
        return self.step >= self.n_steps or self.best["stale"] >= self.patience

    def draw(self) -> tuple[Tensor, Tensor]:
        """States (B, S) and actions (B, A)."""
        rows = self.trained_on
        drawn = rows[th.randint(len(rows), (self.batch_size,), generator=self.generator, device=rows.device)]
        return self.rows[0][drawn], self.rows[1][drawn]

    def phase(self) -> bool:
        """Whether the flow's turn has come."""
        return self.step % self.trainer.n_critic_steps == 0

    def step_on(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """One step on a batch."""
        self.trainer.density.requires_grad_(True)
        return self.trainer.step(*batch, self.phase())

    def look(self) -> dict[str, Tensor]:
        """From time to time, at the held-out rows."""
        if len(self.held_out) > 0 and (self.step + 1) % self.eval_every == 0:
            self._look_at_held_out()
        return self._seen

    def _look_at_held_out(self) -> None:
        nll = self.policy.nll_of_rows(*(rows[self.held_out] for rows in self.rows)).mean().item()
        self.best["last"] = nll
        if nll < self.best["nll"]:
            weights = {name: tensor.clone() for name, tensor in self.trainer.density.state_dict().items()}
            self.best |= {"nll": nll, "stale": 0, "weights": weights}
        else:
            self.best["stale"] += 1
        self._note_seen()

    def _note_seen(self) -> None:
        """The NLLs to log, put on the device when they change and not in each step."""
        if self.best["weights"]:
            seen = {"nll_val": self.best["last"], "nll_kept": self.best["nll"]}
            self._seen = {name: th.tensor(value, device=self.held_out.device) for name, value in seen.items()}

    def finish(self) -> None:
        """Keep the best weights, freeze them, and note what NLLs the data have."""
        if self.best["weights"]:
            self.trainer.density.load_state_dict(self.best["weights"])
        if self.freeze:
            self.trainer.density.requires_grad_(False)
            for optimizer in (self.trainer.density_optimizer, self.trainer.discriminator_optimizer):
                optimizer.state.clear()  # nothing of it is needed again, nor saved
        self.policy.note_usual_nll(*self.rows, self.quantile)

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs, beside what the agent saves anyway."""
        return {**super().state_dict(), "best": self.best, "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        super().load_state_dict(state)
        self.best = state["best"]
        self._note_seen()
        self._split(state["seed"])  # an agent without a seed would hold out other rows, and train on these
