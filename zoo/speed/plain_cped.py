"""
The plain form of one CPED update (of the actor-critic), for the tests and for the speed comparison.

Written as one would first write it from the paper: two critics apart, each a list of weights and biases, one optimizer for
each, explicit loops, autograd's ``backward``, PyTorch's Adam and SGD, numbers read back wherever a decision needs them.
:mod:`sb3_genoffline.cped` must give the same numbers in less time. It is no agent: it neither acts nor saves, and it takes the
density as it is.
"""

import copy
import math

import torch as th
from torch import Tensor, nn

from sb3_genoffline.common.schedules import cosine_decay
from sb3_genoffline.cped import CPED
from sb3_genoffline.cped.cped import CPEDNoise
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.actors import DeterministicActor
from sb3_genoffline.nets.ensembles import EnsembleLinear, EnsembleQ

TOO_LARGE = 1e7
LayerTensors = tuple[Tensor, Tensor]
"""A weight (out, in) and a bias (out)."""


def copied_layer(weight: Tensor, bias: Tensor) -> LayerTensors:
    """Trainable copies."""
    return weight.detach().clone().requires_grad_(True), bias.detach().clone().requires_grad_(True)


class PlainNetwork:
    """
    Linear layers with ReLU between them.

    :param layers: from the first to the last
    """

    def __init__(self, layers: list[LayerTensors]) -> None:
        self.layers = layers

    @classmethod
    def of_actor(cls, actor: DeterministicActor) -> "PlainNetwork":
        """A copy of the actor up to its tanh."""
        *inner, last = actor.net
        if not (isinstance(last, nn.Tanh) and all(isinstance(layer, nn.Linear | nn.ReLU) for layer in inner)):
            raise UserError("The plain form knows actors of linear layers and ReLU with tanh behind them.")
        return cls([copied_layer(layer.weight, layer.bias) for layer in inner if isinstance(layer, nn.Linear)])

    @classmethod
    def of_critic(cls, ensemble: EnsembleQ, member: int) -> "PlainNetwork":
        """A copy of one member of the ensemble."""
        layers = []
        for layer in ensemble.modules():
            if isinstance(layer, EnsembleLinear):
                layers.append(copied_layer(layer.weight[member].T, layer.bias[member, 0]))
            elif not isinstance(layer, nn.ReLU | EnsembleQ | nn.Sequential):
                raise UserError(f"The plain form knows linear layers and ReLU, not {type(layer).__name__}.")
        return cls(layers)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, in) -> (B, out)"""
        for weight, bias in self.layers[:-1]:
            x = th.relu(x @ weight.T + bias)
        weight, bias = self.layers[-1]
        return x @ weight.T + bias

    def parameters(self) -> list[Tensor]:
        """All weights and biases in order."""
        return [tensor for layer in self.layers for tensor in layer]


class PlainCPED:
    """
    The plain form of :meth:`sb3_genoffline.cped.CPED.update`, starting from an agent's weights and fresh optimizers.

    :param model: an agent with ReLU networks, without LayerNorm and without ``flow_joint_steps``; its weights are copied, its
        settings and its density's thresholds read
    """

    def __init__(self, model: CPED) -> None:
        if model.flow_joint_steps > 0:
            raise UserError("The plain form takes the density as it is: flow_joint_steps must be 0.")
        if model.constraint != "nll":
            raise UserError("The plain form has the paper's constraint: constraint must be 'nll'.")
        self.model = model
        self.density = copy.deepcopy(model.policy.density).requires_grad_(False)
        self.actor, self.actor_target = (PlainNetwork.of_actor(actor) for actor in (model.actor, model.actor_target))
        self.critics = [PlainNetwork.of_critic(model.critic, member) for member in range(2)]
        self.critics_target = [PlainNetwork.of_critic(model.critic_target, member) for member in range(2)]
        self.actor_optimizer = th.optim.Adam(self.actor.parameters(), lr=model.lr_schedule(1.0))
        self.critic_optimizers = [
            th.optim.Adam(critic.parameters(), lr=float(model.critic_rate_now())) for critic in self.critics
        ]
        self.log_alpha = model.log_alpha.detach().clone().requires_grad_(True)
        alpha_optimizer = th.optim.SGD if model.alpha_sgd else th.optim.Adam
        self.alpha_optimizer = alpha_optimizer([self.log_alpha], lr=model.alpha_learning_rate)
        self.n_updates = model._n_updates
        self.n_skipped = 0

    def update(self, batch: TransitionBatch, noise: CPEDNoise) -> dict[str, Tensor]:
        """
        One gradient step.

        :param batch: B transitions
        :param noise: the random numbers of the step
        :return: the losses, and what the constraint did
        """
        model, t = self.model, self.n_updates
        states, next_states = (model.policy.normalize_observations(s) for s in (batch.observations, batch.next_observations))
        info: dict[str, Tensor] = {}
        if t >= model.critic_start:
            info["critic_loss"] = self.critic_step(states, next_states, batch, noise)
        if t % model.policy_delay == 0:
            if t >= model.warmup_steps:
                info |= self.actor_step(states, batch)
            self._soft_update(self.actor, self.actor_target)
            for critic, target in zip(self.critics, self.critics_target, strict=True):
                self._soft_update(critic, target)
        self.n_updates += 1
        return {name: value.detach() for name, value in info.items()}

    def critic_step(self, states: Tensor, next_states: Tensor, batch: TransitionBatch, noise: CPEDNoise) -> Tensor:
        """TD3's: both critics towards one target."""
        model = self.model
        with th.no_grad():
            smoothing = (model.target_policy_noise * noise.smoothing).clamp(-model.target_noise_clip, model.target_noise_clip)
            next_actions = th.tanh(self.actor_target(next_states)) + smoothing
            if model.clip_target_action:
                next_actions = next_actions.clamp(-1, 1)
            target = batch.rewards + model.gamma * batch.masks * self.smallest_q(
                self.critics_target, next_states, next_actions
            )
        pairs = th.cat([states, batch.actions], dim=1)
        losses = [((critic(pairs).squeeze(1) - target) ** 2).mean() for critic in self.critics]
        total = losses[0] + losses[1]
        if self._skips(total):
            return th.zeros(())
        for optimizer, loss in zip(self.critic_optimizers, losses, strict=True):
            self._step(optimizer, loss, float(model.critic_rate_now()), None)
        return total

    def actor_step(self, states: Tensor, batch: TransitionBatch) -> dict[str, Tensor]:
        """Up in Q and down in the NLL; then α up where the NLL is above ε."""
        model = self.model
        with_q = self.n_updates >= model.q_start
        constrained = model.alpha_mode != "fixed" or model.alpha > 0
        if not with_q and not constrained:
            return {}
        actions = th.tanh(self.actor(states))
        loss = th.zeros((), dtype=states.dtype)
        info: dict[str, Tensor] = {}
        if with_q:
            q = self.smallest_q(self.critics, states, actions)
            loss = -(q / q.detach().abs().mean() if model.q_normalize else q).mean()
        if constrained:
            info["alpha"] = self.alpha()
            info["nll_pi"] = -self.density.log_prob(batch.observations, actions).mean()
            loss = loss + info["alpha"] * info["nll_pi"]
        if self._skips(loss):
            return {}
        decay = cosine_decay(self.n_updates, model.lr_decay_steps)
        self._step(self.actor_optimizer, loss, model.lr_schedule(1.0) * decay, model.max_grad_norm)
        info["actor_loss"] = loss
        if constrained:
            info["epsilon"] = self.epsilon(batch)
            if model.alpha_mode == "dual" and with_q:
                self.log_alpha.grad = info["epsilon"] - info["nll_pi"].detach()
                self.alpha_optimizer.step()
                self.log_alpha.data.clamp_(-5.0, 10.0)
        return info

    def alpha(self) -> Tensor:
        """α of this update."""
        if self.model.alpha_mode != "schedule":
            return self.log_alpha.detach().exp()
        steps = self.model.alpha_schedule
        if isinstance(steps, str):
            raise UserError("The plain form takes alpha_schedule as pairs (first update, alpha).")
        alpha = 0.0
        for first, value in steps:
            if self.n_updates >= first:
                alpha = value
        return th.full_like(self.log_alpha.detach(), alpha)

    def epsilon(self, batch: TransitionBatch) -> Tensor:
        """ε of this update, in nats."""
        if self.model.epsilon == "batch_mean":
            return -self.density.log_prob(batch.observations, batch.actions).mean()
        if self.model.epsilon == "quantile":
            return self.model.policy.nll_threshold
        return th.full_like(self.log_alpha.detach(), float(self.model.epsilon))

    def smallest_q(self, critics: list[PlainNetwork], states: Tensor, actions: Tensor) -> Tensor:
        """min over both critics: (B, S), (B, A) -> (B,)"""
        pairs = th.cat([states, actions], dim=1)
        first, second = (critic(pairs).squeeze(1) for critic in critics)
        return th.minimum(first, second)

    def _skips(self, loss: Tensor) -> bool:
        if math.isfinite(loss.item()) and abs(loss.item()) < TOO_LARGE:
            return False
        self.n_skipped += 1
        return True

    def _step(self, optimizer: th.optim.Optimizer, loss: Tensor, learning_rate: float, max_grad_norm: float | None) -> None:
        optimizer.zero_grad()
        loss.backward()
        group = optimizer.param_groups[0]
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(group["params"], max_grad_norm)
        group["lr"] = learning_rate
        optimizer.step()

    def _soft_update(self, online: PlainNetwork, target: PlainNetwork) -> None:
        tau = self.model.tau
        for parameter, target_parameter in zip(online.parameters(), target.parameters(), strict=True):
            target_parameter.data.mul_(1 - tau).add_(tau * parameter.data)
