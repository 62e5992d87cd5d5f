"""
SAC (Haarnoja et al. 2018), the algorithm behind D4RL's locomotion sets, written out for one CPU thread.

The update is SB3's (twin critics, learned temperature, target average) with the gradients by hand: both critics go through one
batched product per layer, each network is one flat vector, and the whole is compiled into a few kernels.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import Tensor

from sb3_genoffline.files.writing import replace_file

from ..runs.stopping import Stopped, stoppable
from ..runs.writing import write_text
from .rollout import make_slots
from .squashed import LOG_STD_MAX, LOG_STD_MIN, SquashedPolicy

# rl-zoo's MuJoCo settings but for half its batch and its width: a step costs a quarter, and it is the actor that is kept
SETTINGS: dict[str, Any] = {
    "learning_starts": 10_000,
    "batch_size": 128,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "tau": 0.005,
    "buffer_size": 1_000_000,
    "actor_width": 128,
    "critic_width": 128,
}
EVERY = 5_000


class Learner:
    """
    Actor, twin critics, their target and the temperature; actions are in [-1, 1].

    :param obs_dim: Width of an observation
    :param act_dim: Width of an action
    :param settings: As :data:`SETTINGS`
    :param compiled: Compile the update, which takes a minute and makes it twice as fast
    """

    def __init__(self, obs_dim: int, act_dim: int, settings: dict[str, Any], compiled: bool = False) -> None:
        self.obs_dim, self.act_dim, self.settings = obs_dim, act_dim, settings
        self.n_updates = 0
        n, h, w = obs_dim + act_dim, settings["critic_width"], settings["actor_width"]
        # the two first layers stand side by side, as they see the same rows
        self.critic_shapes = [(n, 2 * h), (2 * h,), (2, h, h), (2, 1, h), (2, 1, h), (2, 1, 1)]
        # the log temperature has the actor's optimiser: the same rate, the same number of steps
        self.actor_shapes = [(obs_dim, w), (w,), (w, w), (w,), (w, 2 * act_dim), (2 * act_dim,), (1,)]
        critic, actor = (sum(math.prod(shape) for shape in shapes) for shapes in (self.critic_shapes, self.actor_shapes))
        sizes = {"target": critic}
        sizes |= {"critic": critic, "critic.exp_avg": critic, "critic.exp_avg_sq": critic}
        sizes |= {"actor": actor, "actor.exp_avg": actor, "actor.exp_avg_sq": actor}
        self.vectors = {name: torch.zeros(size) for name, size in sizes.items()}
        self._update = torch.compile(self._step, fullgraph=True, options={"cpp_wrapper": True}) if compiled else self._step

    def start_from(self, model: Any) -> None:
        """
        :param model: An SB3 SAC model of these widths; its weights, not its optimisers, are copied
        """
        critic, actor = model.critic, model.actor
        found = []
        for i in (0, 2, 4):
            layers = [net[i] for net in (critic.qf0, critic.qf1)]
            weights, biases = [layer.weight.detach().T for layer in layers], [layer.bias.detach() for layer in layers]
            found += [torch.cat(weights, 1) if i == 0 else torch.stack(weights), torch.stack(biases)]
        self.vectors["critic"].copy_(torch.cat([part.flatten() for part in found]))
        self.vectors["target"].copy_(self.vectors["critic"])
        found = []
        for layer in (actor.latent_pi[0], actor.latent_pi[2]):
            found += [layer.weight.detach().T, layer.bias.detach()]
        heads = (actor.mu, actor.log_std)
        found += [torch.cat([head.weight.detach() for head in heads]).T, torch.cat([head.bias.detach() for head in heads])]
        self.vectors["actor"].copy_(torch.cat([*(part.flatten() for part in found), model.log_ent_coef.detach()]))

    def policy(self, low: np.ndarray, high: np.ndarray) -> SquashedPolicy:
        """
        :return: The actor as it is kept; its arrays are views, so it goes on learning until it is saved
        """
        parts = [part.numpy() for part in _parts(self.vectors["actor"], self.actor_shapes)]
        return SquashedPolicy(tuple(parts[0:6:2]), tuple(parts[1:6:2]), low.copy(), high.copy())

    @torch.no_grad()
    def update(self, batch: Tensor, noise: Tensor | None = None) -> None:
        """
        One gradient step of everything.

        :param batch: ``(batch_size, 2 · obs_dim + act_dim + 2)`` rows of observation, action, next observation, reward, and
            whether the task ended there
        :param noise: ``(2 · batch_size, act_dim)`` standard normal draws, for the observations, then for the next ones;
            drawn here if None
        """
        self.n_updates += 1
        unbias = math.sqrt(1 - 0.999**self.n_updates)
        rate = self.settings["learning_rate"] * unbias / (1 - 0.9**self.n_updates)
        noise = torch.randn(2 * len(batch), self.act_dim) if noise is None else noise
        self._update(batch, noise, torch.tensor([rate, 1e-8 * unbias]), *self.vectors.values())

    def _step(
        self,
        batch: Tensor,
        noise: Tensor,
        adam: Tensor,
        target: Tensor,
        critic: Tensor,
        critic_exp_avg: Tensor,
        critic_exp_avg_sq: Tensor,
        actor: Tensor,
        actor_exp_avg: Tensor,
        actor_exp_avg_sq: Tensor,
    ) -> None:
        """:meth:`update`, with Adam's step length and ε; the vectors are changed in place."""
        n, k, size = self.obs_dim, self.act_dim, len(batch)
        observations, actions, following, rewards, ended = batch.split([n, k, n, 1, 1], dim=1)

        # what the actor would do here, and after the step
        w0, b0, w1, b1, w2, b2, log_alpha = _parts(actor, self.actor_shapes)
        alpha = log_alpha.exp()
        first = torch.relu(torch.cat([observations, following]) @ w0 + b0)
        second = torch.relu(first @ w1 + b1)
        mean, raw_log_std = (second @ w2 + b2).chunk(2, dim=1)
        log_std = raw_log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        spread = log_std.exp() * noise
        sampled = torch.tanh(mean + spread)
        slope = 1 - sampled * sampled
        density = -0.5 * noise * noise - log_std - torch.log(slope + 1e-6)
        log_prob = density.sum(1, keepdim=True) - 0.5 * math.log(2 * math.pi) * k

        # critics
        next_q = self._forward(target, torch.cat([following, sampled[size:]], dim=1))[0].amin(0)
        wanted = rewards + self.settings["gamma"] * (1 - ended) * (next_q - alpha * log_prob[size:])
        inputs = torch.cat([observations, actions], dim=1)
        q, hidden = self._forward(critic, inputs)
        gradient = self._critic_gradient(critic, inputs, hidden, (q - wanted) / size)
        _adam_step(critic, gradient, critic_exp_avg, critic_exp_avg_sq, adam)

        # actor, by the critics as they are now
        q, hidden = self._forward(critic, torch.cat([observations, sampled[:size]], dim=1))
        lower = (q[0] <= q[1]).to(q.dtype)
        _, d_first = self._backward(critic, hidden, torch.stack([lower, 1 - lower]) / -size)
        d_sampled = d_first @ _parts(critic, self.critic_shapes)[0][n:].T
        here = slope[:size]
        d_pre = d_sampled * here + 2 * sampled[:size] * here / (here + 1e-6) * alpha / size
        inside = (raw_log_std[:size] >= LOG_STD_MIN) & (raw_log_std[:size] <= LOG_STD_MAX)
        d_heads = torch.cat([d_pre, (d_pre * spread[:size] - alpha / size) * inside], dim=1)
        d_second = torch.where(second[:size] > 0, d_heads @ w2.T, 0.0)
        d_first = torch.where(first[:size] > 0, d_second @ w1.T, 0.0)
        parts = [observations.T @ d_first, d_first.sum(0), first[:size].T @ d_second, d_second.sum(0)]
        parts += [second[:size].T @ d_heads, d_heads.sum(0)]
        # the temperature rises while the entropy, -log π, is below its target, -act_dim
        parts += [k - log_prob[:size].mean()]
        _adam_step(actor, torch.cat([part.flatten() for part in parts]), actor_exp_avg, actor_exp_avg_sq, adam)

        target.lerp_(critic, self.settings["tau"])

    def _forward(self, net: Tensor, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """``(2, n, 1)`` values, and the hidden layers."""
        w0, b0, w1, b1, w2, b2 = _parts(net, self.critic_shapes)
        first = torch.relu(inputs @ w0 + b0)
        second = torch.relu(torch.bmm(_stacked(first), w1) + b1)
        return (second * w2).sum(2, keepdim=True) + b2, (first, second)

    def _backward(self, net: Tensor, hidden: tuple[Tensor, Tensor], d_q: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of what the second and the first layer put out before their relu."""
        _, _, w1, _, w2, _ = _parts(net, self.critic_shapes)
        first, second = hidden
        d_second = torch.where(second > 0, d_q * w2, 0.0)
        d_first = torch.bmm(d_second, w1.mT).transpose(0, 1).reshape(first.shape)
        return d_second, torch.where(first > 0, d_first, 0.0)

    def _critic_gradient(self, net: Tensor, inputs: Tensor, hidden: tuple[Tensor, Tensor], d_q: Tensor) -> Tensor:
        first, second = hidden
        d_second, d_first = self._backward(net, hidden, d_q)
        parts = [inputs.T @ d_first, d_first.sum(0), torch.bmm(_stacked(first).mT, d_second), d_second.sum(1)]
        parts += [(second * d_q).sum(1), d_q.sum(1)]
        return torch.cat([part.flatten() for part in parts])

    def state(self) -> dict[str, np.ndarray]:
        """Everything a later run needs to go on, as copies: parameters and Adam's moments."""
        return {name: vector.numpy().copy() for name, vector in self.vectors.items()}

    def load_state(self, state: dict[str, np.ndarray], n_updates: int) -> None:
        """
        :param state: What :meth:`state` gave
        :param n_updates: Gradient steps made until then
        """
        for name, vector in self.vectors.items():
            vector.copy_(torch.from_numpy(state[name].astype(np.float32)))
        self.n_updates = n_updates


def _parts(vector: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """A network's weights and biases, views of its vector."""
    parts = vector.split([math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _stacked(side_by_side: Tensor) -> Tensor:
    """``(n, 2 · h)`` as ``(2, n, h)``."""
    return side_by_side.view(len(side_by_side), 2, -1).transpose(0, 1)


def _adam_step(vector: Tensor, gradient: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, adam: Tensor) -> None:
    """Adam (0.9, 0.999), as torch's; ``adam`` is the step length and ε, the bias of the averages taken out."""
    exp_avg.lerp_(gradient, 0.1)
    exp_avg_sq.mul_(0.999).add_(gradient * gradient * 0.001)
    vector.sub_(exp_avg / (exp_avg_sq.sqrt() + adam[1]) * adam[0])


class Buffer:
    """
    The last steps of the environment, one row each.

    :param obs_dim: Width of an observation
    :param act_dim: Width of an action
    :param capacity: How many rows at most
    """

    def __init__(self, obs_dim: int, act_dim: int, capacity: int) -> None:
        self.rows = np.zeros((capacity, 2 * obs_dim + act_dim + 2), dtype=np.float32)
        self.tensor = torch.from_numpy(self.rows)
        self.n_added = 0

    def add(self, *parts: Any) -> None:
        """Observation, action in [-1, 1], next observation, reward, whether the task ended."""
        self.rows[self.n_added % len(self.rows)] = np.concatenate(parts, axis=None, dtype=np.float32, casting="same_kind")
        self.n_added += 1

    def sample(self, size: int, generator: np.random.Generator) -> Tensor:
        """``(size, width)`` rows drawn with replacement."""
        chosen = generator.integers(min(self.n_added, len(self.rows)), size=size)
        return self.tensor[torch.from_numpy(chosen)]

    def write(self, path: Path, first: int) -> None:
        """Bring a file of rows up to date; the rows before ``first`` are in it already."""
        with path.open("r+b" if path.exists() else "wb") as file:
            for start, stop in self._pieces(first):
                file.seek(start * self.rows[0].nbytes)
                file.write(self.rows[start:stop].tobytes())

    def read(self, path: Path, n_added: int) -> None:
        """Take over a file that :meth:`write` made when ``n_added`` rows had been added."""
        n_rows = min(n_added, len(self.rows))
        self.rows[:n_rows] = np.fromfile(path, np.float32, n_rows * self.rows.shape[1]).reshape(n_rows, -1)
        self.n_added = n_added

    def _pieces(self, first: int) -> list[tuple[int, int]]:
        capacity = len(self.rows)
        start, stop = max(first, self.n_added - capacity), self.n_added
        if start == stop:
            return []
        low, high = start % capacity, (stop - 1) % capacity + 1
        return [(low, high)] if low < high else [(low, capacity), (0, high)]


def train(env_id: str, seed: int, n_timesteps: int, ladder: Path) -> None:
    """
    Takes hours; the whole state is saved every 5,000 steps, and when a signal ends the training (see
    :mod:`zoo.runs.stopping`); a later call with the same folder goes on from there.

    :param env_id: A registered MuJoCo environment whose actions are in [-1, 1]
    :param seed: Seed of networks, environment and sampling
    :param n_timesteps: Environment steps in all, those of earlier calls included
    :param ladder: Folder that gets the actor every 5,000 steps, ``<steps>.safetensors``, and ``curve.json``: [steps, mean
        return of the last 100 episodes as collected]
    """
    torch.set_num_threads(1)
    (slot,) = make_slots(env_id, 1)
    space = slot.env.action_space
    assert (space.low == -1).all() and (space.high == 1).all()
    learner = Learner(slot.observations.shape[1], slot.actions.shape[1], SETTINGS, compiled=True)
    buffer = Buffer(learner.obs_dim, learner.act_dim, SETTINGS["buffer_size"])
    policy = learner.policy(space.low, space.high)
    curve: list[list[float]] = []
    if (ladder / "state.json").exists():
        curve = load(ladder, learner, buffer)
    else:
        learner.start_from(_fresh_model(env_id, seed))
        policy.save(ladder / "0.safetensors")
    steps = buffer.n_added
    written, started = steps, time.process_time()
    generator = np.random.default_rng([seed, steps])
    torch.manual_seed(int(generator.integers(2**62)))
    observation = slot.reset(int(generator.integers(2**31)))
    returns: list[float] = []

    def keep() -> None:
        nonlocal written
        policy.save(ladder / f"{steps}.safetensors")
        curve.append([steps, round(float(np.mean(returns)), 1) if returns else 0.0])
        buffer.write(ladder / "buffer.f32", written)
        written = steps
        save_state(ladder, learner, steps, curve)
        print(env_id, seed, *curve[-1], f"{time.process_time() - started:.0f} CPU-seconds", flush=True)

    with stoppable() as stop, stop.later(), contextlib.closing(slot.env):
        while steps < n_timesteps and stop.number is None:
            if steps < SETTINGS["learning_starts"]:
                action = generator.uniform(space.low, space.high).astype(np.float32)
            else:
                action = policy.act(observation[None], "policy", generator)[0]
            episode, at = slot.step(action), slot.length
            following = slot.observations[at]
            ended = episode is not None and episode.terminated
            buffer.add(observation, action, following, slot.rewards[at - 1], ended)
            observation = following
            if episode is not None:
                returns = [*returns[-99:], float(episode.rewards.sum())]
                observation = slot.reset()
            steps += 1
            if steps > SETTINGS["learning_starts"]:
                learner.update(buffer.sample(SETTINGS["batch_size"], generator))
            if steps % EVERY == 0:
                keep()
        if stop.number is not None:
            if written < steps:
                keep()
            raise Stopped(stop.number)


def _fresh_model(env_id: str, seed: int) -> Any:
    """SB3's SAC, for its first weights."""
    from stable_baselines3 import SAC

    arch = {"pi": [SETTINGS["actor_width"]] * 2, "qf": [SETTINGS["critic_width"]] * 2}
    return SAC("MlpPolicy", env_id, policy_kwargs={"net_arch": arch}, buffer_size=1, seed=seed, device="cpu")


def save_state(ladder: Path, learner: Learner, steps: int, curve: Sequence[Sequence[float]]) -> None:
    """Write what a later call needs beside the buffer; ``state.json`` comes last and says what is valid."""
    file = f"state-{steps}.safetensors"
    replace_file(ladder / file, save(learner.state()))
    write_text(ladder / "curve.json", json.dumps(list(curve)))
    write_text(ladder / "state.json", json.dumps({"steps": steps, "n_updates": learner.n_updates, "file": file}))
    for stale in set(ladder.glob("state-*.safetensors")) - {ladder / file}:
        stale.unlink()


def load(ladder: Path, learner: Learner, buffer: Buffer) -> list[list[float]]:
    """
    :return: The learning curve until then
    """
    state = json.loads((ladder / "state.json").read_text())
    learner.load_state(load_file(ladder / state["file"]), state["n_updates"])
    buffer.read(ladder / "buffer.f32", state["steps"])
    return [row for row in json.loads((ladder / "curve.json").read_text()) if row[0] <= state["steps"]]
