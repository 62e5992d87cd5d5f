"""The fit of FQE's ensemble: Q-functions of a fixed policy by temporal differences."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import Tensor

from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.sampling import TransitionSampler
from sb3_genoffline.nets.ensembles import EnsembleQ, soft_update
from sb3_genoffline.ope.acting import TargetPolicy


class NextActions:
    """
    The policy's actions in the next states of rows: drawn once for all rows and kept, or afresh for each batch.

    :param policy: the policy, with a stream of random numbers that nothing else draws from
    :param observations: (N, S) next observations of the data
    """

    def __init__(self, policy: TargetPolicy, observations: np.ndarray) -> None:
        self.policy, self.observations = policy, observations
        self.n = 0
        self.kept: np.ndarray | None = None

    def prepare(self, n: int, cached: bool) -> None:
        """
        :param n: M, actions for each state
        :param cached: draw those of all rows now
        """
        self.n = n
        self.policy.restart()
        self.kept = self.policy.actions(self.observations, n) if cached else None

    def at(self, rows: np.ndarray) -> np.ndarray:
        """
        :param rows: (B,)
        :return: (B, M, A)
        """
        return self.policy.actions(self.observations.take(rows, axis=0), self.n) if self.kept is None else self.kept[rows]

    def state_dict(self) -> dict[str, Any]:
        """All that drawing on needs."""
        return {"n": self.n, "cached": self.kept is not None, "stream": self.policy.stream()}

    def again(self, state: Mapping[str, Any]) -> "NextActions":
        """
        Where :meth:`state_dict` was taken; actions that were kept are drawn again, the same ones.

        :param state: of it
        :return: a new one
        """
        other = NextActions(self.policy.with_seed(self.policy.seed), self.observations)
        if state["n"]:
            other.prepare(state["n"], state["cached"])
        other.policy.set_stream(state["stream"])
        return other


class QBatch(NamedTuple):
    """
    What a step learns from.

    :param observations: (B, S) raw
    :param actions: (B, A)
    :param rewards: (B,)
    :param masks: (B,)
    :param next_observations: (B, S) raw
    :param next_actions: (B, M, A) the policy's
    :param weights: (H, B) of each member
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    masks: Tensor
    next_observations: Tensor
    next_actions: Tensor
    weights: Tensor


class QFit(Fit):
    """
    Fits H members, each towards a target of its own and on its own resample of the episodes:
    y_h = clip(r + γ·m·(1/M) Σ_k Q̄_h(s', a'_k)) and the loss is Σ_b w_hb·(Q_h − y_h)² / Σ_b w_hb.

    The networks hold (1 − γ)·Q / scale, a mean reward per step, so that their outputs are of the order of 1 for any γ.

    :param n_steps: updates in all
    :param critic: H Q-functions
    :param target: their slow copy
    :param optimizer: of ``critic``
    :param buffer: rows with rewards over their scale
    :param sampler: draws the rows
    :param next_actions: the policy's
    :param row_weights: (H, E) how often a member's resample has each episode
    :param episodes: (N,) episode of each row
    :param statistics: mean and std that states are standardised by, each (S,)
    :param gamma: discount
    :param tau: τ of the slow copy
    :param batch_size: B
    :param bounds: least and largest mean reward per step that is attainable; None: targets are not clipped
    """

    name = "fqe"

    def __init__(
        self,
        n_steps: int,
        critic: EnsembleQ,
        target: EnsembleQ,
        optimizer: th.optim.Optimizer,
        *,
        buffer: OfflineBuffer,
        sampler: TransitionSampler,
        next_actions: NextActions,
        row_weights: Tensor,
        episodes: np.ndarray,
        statistics: tuple[Tensor, Tensor],
        gamma: float,
        tau: float,
        batch_size: int,
        bounds: tuple[float, float] | None,
    ) -> None:
        super().__init__(n_steps, {"critic": critic, "target": target}, {"optimizer": optimizer})
        self.critic, self.target, self.optimizer = critic, target, optimizer
        self.buffer, self.sampler, self.next_actions = buffer, sampler, next_actions
        self.row_weights, self.episodes = row_weights, episodes
        self.statistics, self.gamma, self.tau, self.batch_size, self.bounds = statistics, gamma, tau, batch_size, bounds
        self.learning_rate = float(optimizer.param_groups[0]["lr"])

    def standardised(self, states: Tensor) -> Tensor:
        """(B, S) -> (B, S)"""
        mean, std = self.statistics
        return (states - mean) / std

    def draw(self) -> QBatch:
        """Rows, the policy's actions that follow them, and how much each member counts them."""
        indices = self.sampler.next_indices(self.batch_size)
        batch, rows = self.buffer.rows_at(indices), indices.cpu().numpy()
        next_actions = th.as_tensor(self.next_actions.at(rows), device=indices.device)
        weights = self.row_weights[:, th.as_tensor(self.episodes[rows], device=indices.device)]
        return QBatch(
            batch.observations, batch.actions, batch.rewards, batch.masks, batch.next_observations, next_actions, weights
        )

    def step_on(self, batch: QBatch) -> dict[str, Tensor]:
        """One step on a batch."""
        wanted, clipped = self.targets(batch.rewards, batch.masks, batch.next_observations, batch.next_actions)
        q = self.critic(self.standardised(batch.observations), batch.actions)  # (H, B)
        losses = (batch.weights * (q - wanted).square()).sum(1) / batch.weights.sum(1).clamp(min=1.0)
        gradient_step(self.optimizer, losses.sum(), self.learning_rate)
        soft_update(self.critic, self.target, self.tau)
        q = q.detach()
        return {"loss": losses.detach().mean(), "q_mean": q.mean(), "q_max_abs": q.abs().max(), "clipped": clipped}

    @th.no_grad()
    def targets(self, rewards: Tensor, masks: Tensor, next_states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """(H, B) targets, and the share of them that is clipped."""
        following = self.target.score_samples(self.standardised(next_states), actions).mean(2)  # (H, B)
        wanted = (1.0 - self.gamma) * rewards + self.gamma * masks * following
        if self.bounds is None:
            return wanted, th.zeros((), device=wanted.device)
        inside = wanted.clamp(*self.bounds)
        if self.bounds[0] == self.bounds[1]:  # every policy is worth the same: nothing is beyond, and nothing is lost
            return inside, th.zeros((), device=wanted.device)
        slack = 0.01 * max(map(abs, self.bounds))  # an optimum at the bound is approached from both sides
        return inside, ((wanted - inside).abs() > slack).float().mean()

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs."""
        return {**super().state_dict(), "sampler": self.sampler.state_dict(), "actions": self.next_actions.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state_dict`; nothing has changed if the policy fails, which is asked first."""
        next_actions = self.next_actions.again(state["actions"])
        super().load_state_dict(state)
        self.sampler.load_state_dict(state["sampler"])
        self.next_actions = next_actions
