"""
The plain form of one DAC update, for the tests and for the speed comparison.

Written as one would first write it: one module per critic in a loop, ``F.mish``, repeated rows, concatenated inputs, the time
embedding of every row recomputed, autograd's ``backward``, Adam. :mod:`sb3_genoffline.dac` must give the same numbers (claim
23 of its README) in less time (``python -m zoo speed``). It is not an agent: it neither acts nor saves.
"""

import copy
import math

import torch as th
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_genoffline.common.schedules import cosine_decay
from sb3_genoffline.dac import DAC
from sb3_genoffline.dac.dac import DACNoise
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.diffusion import NoiseNetwork
from sb3_genoffline.nets.activations import Mish
from sb3_genoffline.nets.ensembles import EnsembleLinear, EnsembleQ


class PlainNoiseNetwork(nn.Module):
    """
    ε_θ(s, x_t, t) as one reads it in the paper.

    :param network: where the weights are copied from; no residual blocks
    """

    def __init__(self, network: NoiseNetwork) -> None:
        super().__init__()
        linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
        self.time_in, self.time_out, *hidden, self.out = copy.deepcopy(linears)
        self.hidden = nn.ModuleList(hidden)

    def forward(self, states: Tensor, noisy_actions: Tensor, t: Tensor) -> Tensor:
        """(B, S), (B, A), (B,) -> (B, A)"""
        half = self.time_in.in_features // 2
        frequencies = th.exp(-math.log(10000.0) / (half - 1) * th.arange(half, device=t.device, dtype=states.dtype))
        angles = t.unsqueeze(-1) * frequencies
        embedding = th.cat([angles.cos(), angles.sin()], dim=-1)
        time = self.time_out(F.mish(self.time_in(embedding)))
        hidden = th.cat([states, noisy_actions, time], dim=-1)
        for layer in self.hidden:
            hidden = F.mish(layer(hidden))
        return self.out(hidden)


class PlainCritic(nn.Module):
    """
    One member of the ensemble.

    :param ensemble: where the weights are copied from; Mish between linear layers and nothing else
    :param member: h
    """

    def __init__(self, ensemble: EnsembleQ, member: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList()
        for layer in ensemble.modules():
            if isinstance(layer, EnsembleLinear):
                n_inputs, n_outputs = layer.weight.shape[1:]
                linear = nn.Linear(n_inputs, n_outputs, dtype=layer.weight.dtype, device=layer.weight.device)
                with th.no_grad():
                    linear.weight.copy_(layer.weight[member].T)
                    linear.bias.copy_(layer.bias[member, 0])
                self.linears.append(linear)
            elif not isinstance(layer, Mish | EnsembleQ | nn.Sequential):
                raise UserError(f"The plain form knows linear layers and Mish, not {type(layer).__name__}.")

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """(B, S), (B, A) -> (B,)"""
        hidden = th.cat([states, actions], dim=-1)
        for layer in self.linears[:-1]:
            hidden = F.mish(layer(hidden))
        return self.linears[-1](hidden).squeeze(-1)


class PlainDAC:
    """
    The plain form of :meth:`sb3_genoffline.dac.DAC.update`, starting from an agent's weights and fresh optimizers.

    :param model: an agent with the paper's network shapes; its weights are copied, its settings read
    """

    def __init__(self, model: DAC) -> None:
        if model.sampler not in ("ddpm", "ddim"):
            raise UserError(f"The plain form samples by DDPM or DDIM, not sampler={model.sampler!r}.")
        self.model = model
        self.actor, self.actor_target = (PlainNoiseNetwork(net.noise_net) for net in (model.actor, model.actor_target))
        members = range(model.n_critics)
        self.critics = nn.ModuleList(PlainCritic(model.critic, member) for member in members)
        self.critics_target = nn.ModuleList(PlainCritic(model.critic_target, member) for member in members)
        self.actor_target.requires_grad_(False)
        self.critics_target.requires_grad_(False)
        self.actor_optimizer = th.optim.Adam(self.actor.parameters(), lr=model.lr_schedule(1.0))
        self.critic_optimizer = th.optim.Adam(self.critics.parameters(), lr=self.critic_rate())
        self.eta = model.eta_tensor.clone()
        self.n_updates = model._n_updates
        self.betas = th.as_tensor(model.actor.schedule.betas, dtype=self.eta.dtype, device=self.eta.device)
        self.alphas = 1 - self.betas
        self.alpha_bars = self.alphas.cumprod(0)

    def critic_rate(self) -> float:
        """Of the critics, before the decay."""
        model = self.model
        rate = model.learning_rate if model.critic_learning_rate is None else model.critic_learning_rate
        return float(model.rate_without_decay(rate))

    def sample(self, network: PlainNoiseNetwork, states: Tensor, noise: Tensor, sampler: str, clip: bool) -> Tensor:
        """
        :param network: online or target
        :param states: (rows, S)
        :param noise: (T, rows, A): x_T, then what is added at t = T, T − 1, …, 2
        :return: (rows, A)
        """
        n_steps = len(self.betas) - 1
        x, t = noise[0], n_steps
        while t > 0:
            eps = network(states, x, th.full((len(states),), t, device=states.device))
            bar = self.alpha_bars[t]
            clean = (x - (1 - bar).sqrt() * eps) / bar.sqrt()
            if clip:
                clean = clean.clamp(-1, 1)
            if sampler == "ddpm":
                previous = self.alpha_bars[t - 1]
                mean = (previous.sqrt() * self.betas[t] * clean + self.alphas[t].sqrt() * (1 - previous) * x) / (1 - bar)
                x = mean + self.betas[t].sqrt() * noise[n_steps + 1 - t] if t > 1 else mean
                t -= 1
            else:
                if clip:
                    eps = (x - bar.sqrt() * clean) / (1 - bar).sqrt()
                t = max(t - self.model.ddim_stride, 0)
                x = self.alpha_bars[t].sqrt() * clean + (1 - self.alpha_bars[t]).sqrt() * eps
        return x

    def update(self, batch: TransitionBatch, noise: DACNoise) -> dict[str, Tensor]:
        """
        One gradient step.

        :param batch: B transitions
        :param noise: the random numbers of the step
        :return: the losses
        """
        model = self.model
        states, next_states = (model.policy.normalize_observations(s) for s in (batch.observations, batch.next_observations))
        decay = cosine_decay(self.n_updates, model.lr_decay_steps)
        info = {}
        if model.guidance != "none":
            with th.no_grad():
                target = batch.rewards + model.gamma * batch.masks * self.next_values(next_states, noise)
            q = th.stack([critic(states, batch.actions) for critic in self.critics])  # (H, B)
            info["critic_loss"] = F.mse_loss(q, target.expand_as(q))
            self._step(self.critic_optimizer, info["critic_loss"], self.critic_rate() * decay)
            self._soft_update(self.critics, self.critics_target)

        bars = self.alpha_bars[noise.t].unsqueeze(-1)
        x_t = bars.sqrt() * batch.actions + (1 - bars).sqrt() * noise.eps
        predicted = self.actor(states, x_t, noise.t)
        info["bc_loss"] = F.mse_loss(predicted, noise.eps)
        info["actor_loss"] = info["bc_loss"]
        if model.guidance != "none":
            info["guidance_loss"] = self.guidance_loss(states, batch.actions, x_t, predicted, noise)
            info["actor_loss"] = self.eta * info["bc_loss"] + info["guidance_loss"]
        self._step(self.actor_optimizer, info["actor_loss"], model.lr_schedule(1.0) * decay)

        if model.guidance != "none" and model.eta_lr > 0:
            with th.no_grad():
                error = F.mse_loss(self.actor(states, x_t, noise.t), noise.eps)
            step = model.eta_lr * (error - model.bc_threshold).clamp(-1, 1)
            self.eta = (self.eta + step).clamp(model.eta_min, model.eta_max)
        if self.n_updates > model.actor_ema_start and self.n_updates % model.actor_ema_every == 0:
            self._soft_update(self.actor, self.actor_target)
        self.n_updates += 1
        return {name: value.detach() for name, value in info.items()}

    def next_values(self, next_states: Tensor, noise: DACNoise) -> Tensor:
        """Pessimistic value of the next states under the target networks: (B, S) -> (B,)"""
        model = self.model
        assert noise.next_actions is not None
        n_samples = noise.next_actions.shape[2]
        rows = next_states.repeat_interleave(n_samples, dim=0)  # (B·N, S)
        actions = self.sample(self.actor_target, rows, noise.next_actions.flatten(1, 2), model.sampler, model.clip_denoised)
        q = th.stack([critic(rows, actions).view(-1, n_samples) for critic in self.critics_target])  # (H, B, N)
        q = q.max(dim=-1).values if model.max_q else q.mean(dim=-1)
        if model.q_target == "lcb":
            return q.mean(dim=0) - model.rho * q.std(dim=0, unbiased=False)
        smallest, largest = q.min(dim=0).values, q.max(dim=0).values
        if model.q_target == "min":
            return smallest
        if model.q_target == "convex":
            return model.rho * smallest + (1 - model.rho) * largest
        weights = noise.ensemble_weights
        assert weights is not None
        return (weights * q).sum(dim=0) / (weights.sum(dim=0) + 1e-6)

    def guidance_loss(self, states: Tensor, actions: Tensor, x_t: Tensor, predicted: Tensor, noise: DACNoise) -> Tensor:
        """The actor's pull towards higher Q."""
        clean_q = th.stack([critic(states, actions) for critic in self.critics_target])
        normalizer = clean_q.abs().mean().detach() + 1e-6
        if self.model.guidance == "denoised":
            assert noise.denoised is not None
            sampled = self.sample(self.actor, states, noise.denoised.flatten(1, 2), "ddpm", clip=True)
            return -th.stack([critic(states, sampled) for critic in self.critics_target]).mean() / normalizer
        x_t = x_t.detach().requires_grad_(True)
        mean_q = th.stack([critic(states, x_t) for critic in self.critics_target]).mean(dim=0)
        gradient = th.autograd.grad(mean_q.sum(), x_t)[0] / normalizer
        weight = (1 - self.alpha_bars[noise.t]).sqrt().unsqueeze(-1) if self.model.guidance == "soft" else 1.0
        return (weight * gradient * predicted).mean()

    def _step(self, optimizer: th.optim.Optimizer, loss: Tensor, learning_rate: float) -> None:
        optimizer.zero_grad()
        loss.backward()
        parameters = optimizer.param_groups[0]["params"]
        if self.model.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.model.max_grad_norm)
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.step()

    def _soft_update(self, online: nn.Module, target: nn.Module) -> None:
        tau = self.model.tau
        for parameter, target_parameter in zip(online.parameters(), target.parameters(), strict=True):
            target_parameter.data.mul_(1 - tau).add_(tau * parameter.data)
