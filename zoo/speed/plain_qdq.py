"""
The plain form of one QDQ update (its actor-critic), for the tests and for the speed comparison.

Written as one would first write it from the paper: one module per critic in a loop, every (s', a') repeated for each of its n
noises and sent through the whole consistency model, ``nn.GroupNorm``, ``torch.distributions``, autograd's ``backward``,
PyTorch's Adam. :mod:`sb3_genoffline.qdq` must give the same numbers in less time (``python -m zoo speed``). It is no agent: it
neither acts nor saves, and it takes the consistency model as it is.
"""

import copy
import math

import torch as th
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from sb3_genoffline.common.schedules import cosine_decay
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.generative.consistency import NoisyScalarNetwork
from sb3_genoffline.nets.actors import GaussianActor
from sb3_genoffline.qdq import QDQ
from sb3_genoffline.qdq.qdq import QDQNoise
from sb3_genoffline.qdq.sampler import ConsistencyQ

from .plain_dac import PlainCritic

T_MIN, T_MAX = 0.002, 80.0


class PlainConsistencyQ(nn.Module):
    """
    One-step samples of the return given (s, a), row by row.

    :param sampler: where the weights and the range of the returns are copied from
    """

    def __init__(self, sampler: ConsistencyQ) -> None:
        super().__init__()
        network: NoisyScalarNetwork = copy.deepcopy(sampler.model.network)
        first, second = (layer for layer in network.time_mlp if isinstance(layer, nn.Linear))
        self.frequencies, self.data_std = network.fourier_weights, network.data_std
        self.time_layers = nn.ModuleList([first, second])
        self.linears = nn.ModuleList([network.input_layer, *network.layers])
        self.norms = nn.ModuleList(network.norms)
        self.q_min, self.q_max = sampler.q_min.item(), sampler.q_max.item()

    def forward(self, c: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """f(x, t | c): (rows, C), (rows,), (rows,) -> (rows,)"""
        angles = 2.0 * math.pi * 0.25 * t.log().unsqueeze(1) * self.frequencies
        time = th.cat([angles.sin(), angles.cos()], dim=1)
        for layer in self.time_layers:
            time = F.silu(layer(time))
        x_in = x / (t**2 + self.data_std**2).sqrt()
        hidden = th.cat([c, x_in.unsqueeze(1), time], dim=1)
        for layer, norm in zip(self.linears[:-1], self.norms, strict=True):
            hidden = F.silu(norm(layer(hidden)))
        output = self.linears[-1](hidden).squeeze(1)
        skip = self.data_std**2 / ((t - T_MIN) ** 2 + self.data_std**2)
        return skip * x + (t - T_MIN) * self.data_std / (t**2 + self.data_std**2).sqrt() * output

    def uncertainty(self, states: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        """H: (B, S), (B, A), (B, n) -> (B,)"""
        n = noise.shape[1]
        c = th.cat([states, actions], dim=1).repeat_interleave(n, dim=0)  # (B·n, C)
        x = self(c, T_MAX * noise.flatten(), th.full_like(noise, T_MAX).flatten())
        q = (x.view(-1, n) + 1) / 2 * (self.q_max - self.q_min) + self.q_min
        return ((q - q.mean(dim=1, keepdim=True)) ** 2).mean(dim=1).sqrt()


class PlainActor(nn.Module):
    """
    N(tanh(net(s)), diag σ²).

    :param actor: where the weights are copied from
    """

    def __init__(self, actor: GaussianActor) -> None:
        super().__init__()
        self.net, self.log_std = copy.deepcopy(actor.net), nn.Parameter(actor.log_std.detach().clone())

    def forward(self, states: Tensor) -> Normal:
        """(rows, S) -> distribution of (rows, A)"""
        mean = th.tanh(self.net(states))
        return Normal(mean, self.log_std.clamp(-5, 2).exp().expand_as(mean), validate_args=False)


class PlainQDQ:
    """
    The plain form of :meth:`sb3_genoffline.qdq.QDQ.update`, starting from an agent's weights and fresh optimizers.

    :param model: an agent with a fitted consistency model (unless ``penalty="none"``) and without LayerNorm; its weights are
        copied, its settings read
    """

    def __init__(self, model: QDQ) -> None:
        self.model = model
        self.actor, self.actor_target = PlainActor(model.actor), PlainActor(model.actor_target)
        self.critics = nn.ModuleList(PlainCritic(model.critic, member) for member in range(2))
        self.critics_target = nn.ModuleList(PlainCritic(model.critic_target, member) for member in range(2))
        self.sampler = PlainConsistencyQ(model.policy.q_sampler)
        for frozen in (self.actor_target, self.critics_target, self.sampler):
            frozen.requires_grad_(False)
        self.actor_optimizer = th.optim.Adam(self.actor.parameters(), lr=model.lr_schedule(1.0))
        self.critic_optimizer = th.optim.Adam(self.critics.parameters(), lr=float(model.critic_rate_now()))
        self.n_updates = model._n_updates

    def update(self, batch: TransitionBatch, noise: QDQNoise) -> dict[str, Tensor]:
        """
        One gradient step.

        :param batch: B transitions
        :param noise: the random numbers of the step
        :return: the losses
        """
        model = self.model
        states, next_states = (model.policy.normalize_observations(s) for s in (batch.observations, batch.next_observations))
        info = {}
        with th.no_grad():
            next_actions = self.next_actions(next_states, noise)
            next_q = self.smallest_q(self.critics_target, next_states, next_actions)
            penalized = self.penalized(next_q, next_states, next_actions, noise.q)
            target_h = batch.rewards + model.gamma * batch.masks * next_q
            target_l = batch.rewards + model.gamma * batch.masks * penalized
        info["loss_h"] = sum((F.mse_loss(q(states, batch.actions), target_h) for q in self.critics), th.zeros(()))
        info["loss_l"] = sum((F.mse_loss(q(states, batch.actions), target_l) for q in self.critics), th.zeros(()))
        info["critic_loss"] = model.alpha * info["loss_h"] + (1 - model.alpha) * info["loss_l"]
        self._step(self.critic_optimizer, info["critic_loss"], float(model.critic_rate_now()), model.max_grad_norm)

        if self.n_updates % model.policy_delay == 0:
            log_prob = self.actor(states).log_prob(batch.actions).sum(dim=1)
            if model.actor_objective == "q_bc":
                q = self.smallest_q(self.critics, states, self.actor(states).mean)
                info["actor_loss"] = -q.mean() - model.lam * log_prob.mean()
            else:
                info["actor_loss"] = -(self.awr_weights(states, batch.actions, noise) * log_prob).mean()
            decay = cosine_decay(self.n_updates // model.policy_delay, model.lr_decay_steps)
            self._step(self.actor_optimizer, info["actor_loss"], model.lr_schedule(1.0) * decay, None)
            self._soft_update(self.critics, self.critics_target)
            self._soft_update(self.actor, self.actor_target)
        self.n_updates += 1
        return {name: value.detach() for name, value in info.items()}

    def smallest_q(self, critics: nn.ModuleList, states: Tensor, actions: Tensor) -> Tensor:
        """min over both critics: (rows, S), (rows, A) -> (rows,)"""
        first, second = (critic(states, actions) for critic in critics)
        return th.minimum(first, second)

    def next_actions(self, next_states: Tensor, noise: QDQNoise) -> Tensor:
        """a': (B, S) -> (B, A)"""
        model = self.model
        distribution = self.actor_target(next_states)
        base = distribution.mean
        if model.lam != 0 and not model.mean_backup:
            base = base + distribution.stddev * noise.target_policy
        smoothing = (model.target_policy_noise * noise.smoothing).clamp(-model.target_noise_clip, model.target_noise_clip)
        return (base + smoothing).clamp(-1, 1)

    def penalized(self, q: Tensor, next_states: Tensor, next_actions: Tensor, noise: Tensor) -> Tensor:
        """Q_L of the next states and actions: (B,)"""
        model = self.model
        if model.penalty == "none":
            return q
        h = self.sampler.uncertainty(next_states, next_actions, noise)
        uncertain = h > h.quantile(model.beta)
        inverse = 1 / h.clamp(min=1e-6)
        if model.penalty == "paper":
            return th.where(uncertain, inverse, model.beta) * q
        if model.penalty == "antmaze_awr":
            return th.where(uncertain, 1 + 0.1 * (1 - inverse), 1.0) * q
        if model.penalty == "antmaze_q":
            return th.where(uncertain, inverse, 1.0) * q
        share = th.where(uncertain, inverse.clamp(max=model.beta), model.beta)
        return model.q_floor + share * (q.clamp(min=model.q_floor) - model.q_floor)

    def awr_weights(self, states: Tensor, actions: Tensor, noise: QDQNoise) -> Tensor:
        """min(exp(6·A), 100): (B,)"""
        assert noise.awr is not None
        with th.no_grad():
            n = noise.awr.shape[1]
            rows = states.repeat_interleave(n, dim=0)  # (B·30, S)
            distribution = self.actor_target(rows)
            sampled = distribution.mean + distribution.stddev * noise.awr.flatten(0, 1)
            baseline = self.smallest_q(self.critics, rows, sampled).view(-1, n).mean(dim=1)
            advantage = self.smallest_q(self.critics, states, actions) - baseline
            return (self.model.awr_temperature * advantage).exp().clamp(max=100)

    def _step(self, optimizer: th.optim.Optimizer, loss: Tensor, learning_rate: float, max_grad_norm: float | None) -> None:
        optimizer.zero_grad()
        loss.backward()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_grad_norm)
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.step()

    def _soft_update(self, online: nn.Module, target: nn.Module) -> None:
        tau = self.model.tau
        for parameter, target_parameter in zip(online.parameters(), target.parameters(), strict=True):
            target_parameter.data.mul_(1 - tau).add_(tau * parameter.data)
