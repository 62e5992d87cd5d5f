"""What comes before the one step of improvement: the behaviour by maximum likelihood, and its Q by SARSA."""

from collections.abc import Callable

import torch as th
from torch import Tensor
from torch.nn.functional import mse_loss

from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.common.optimizers import gradient_step, make_optimizer
from sb3_genoffline.data.batches import SarsaBatch
from sb3_genoffline.nets.ensembles import soft_update
from sb3_genoffline.nets.network import frozen_copy
from sb3_genoffline.onestep.policies import OnestepPolicy


class BehaviorFit(Fit):
    """
    β̂ by maximum likelihood; π then starts as its copy.

    :param n_steps: steps in all
    :param policy: whose β̂ it is; the agent saves it itself
    :param draw: gives the next batch
    :param learning_rate: of Adam
    """

    name = "behavior"

    def __init__(self, n_steps: int, policy: OnestepPolicy, draw: Callable[[], SarsaBatch], learning_rate: float) -> None:
        self.policy, self.draw_batch, self.learning_rate = policy, draw, learning_rate
        self.behavior = policy.behavior_and_q.behavior
        self.optimizer = make_optimizer(th.optim.Adam, self.behavior.parameters(), learning_rate)
        super().__init__(n_steps, optimizers={"behavior": self.optimizer})

    def draw(self) -> SarsaBatch:
        """The next batch."""
        return self.draw_batch()

    def step_on(self, batch: SarsaBatch) -> dict[str, Tensor]:
        """One step down −E[log β̂(a | s)]."""
        behavior = self.behavior.requires_grad_(True)
        states = self.policy.normalize_observations(batch.observations)
        loss = -behavior.distribution(states).log_prob(batch.actions).mean()
        gradient_step(self.optimizer, loss, self.learning_rate)
        return {"loss": loss.detach()}

    def finish(self) -> None:
        """The step of improvement starts from here."""
        self.behavior.requires_grad_(False)
        self.policy.start_from_behavior()


class SarsaFit(Fit):
    """
    Q of the behaviour, from what the data did next. It needs neither β̂ nor π.

    :param n_steps: steps in all
    :param policy: whose Q it is; the agent saves it itself
    :param draw: gives the next batch
    :param learning_rate: of Adam
    :param gamma: γ
    :param tau: share of Q that its slow copy takes over
    :param target_update_interval: every so many steps
    """

    name = "critic"

    def __init__(
        self,
        n_steps: int,
        policy: OnestepPolicy,
        draw: Callable[[], SarsaBatch],
        learning_rate: float,
        gamma: float,
        tau: float,
        target_update_interval: int,
    ) -> None:
        self.policy, self.draw_batch, self.learning_rate = policy, draw, learning_rate
        self.gamma, self.tau, self.target_update_interval = gamma, tau, target_update_interval
        self.critic = policy.behavior_and_q.critic
        self.critic_target = frozen_copy(self.critic)
        self.optimizer = make_optimizer(th.optim.Adam, self.critic.parameters(), learning_rate)
        super().__init__(n_steps, {"critic_target": self.critic_target}, {"critic": self.optimizer})

    def draw(self) -> SarsaBatch:
        """The next batch."""
        return self.draw_batch()

    def phase(self) -> bool:
        """Whether Q's slow copy moves."""
        return (self.step + 1) % self.target_update_interval == 0

    def step_on(self, batch: SarsaBatch) -> dict[str, Tensor]:
        """One step down E[(r + γ·m·Q̄(s', a') − Q(s, a))²], a' the action that the data took in s'."""
        critic = self.critic.requires_grad_(True)
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        next_states = self.policy.normalize_observations(batch.next_observations)
        with th.no_grad():
            target = batch.rewards + self.gamma * batch.masks * self.critic_target(next_states, batch.next_actions).amin(0)
        q = critic(states, batch.actions)  # (H, B)
        loss = critic.n_critics * mse_loss(q, target.expand_as(q))  # the mean over critics, times their number
        gradient_step(self.optimizer, loss, self.learning_rate)
        if self.phase():
            soft_update(critic, self.critic_target, self.tau)
        return {"loss": loss.detach(), "q_mean": q.detach().mean()}

    def finish(self) -> None:
        """Q stays as it is from here on."""
        self.critic.requires_grad_(False)
        self.policy.fitted.fill_(True)
