"""One update of Diffusion-QL in float64 against numbers computed here with numpy, and what surrounds the update."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_genoffline import DQL
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.dql import DQLNoise

S, A, B, T = 3, 2, 7, 5
GAMMA = 0.97
Weights = dict[str, np.ndarray]
MakeDql = Callable[..., DQL]


@pytest.fixture
def make_dql() -> Iterator[MakeDql]:
    """Tiny agents in double precision whose targets are not their online networks."""
    th.set_default_dtype(th.float64)

    def make(**changes: Any) -> DQL:
        box = (spaces.Box(-np.inf, np.inf, (S,)), spaces.Box(-1, 1, (A,)))
        settings = {"gamma": GAMMA, "max_grad_norm": None, "seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [6, 5]}}
        model = DQL("DiffusionQLPolicy", box, **(settings | changes))
        generator = th.Generator().manual_seed(3)
        for network, size in ((model.actor_target, 0.2), (model.critic_target, 1.0)):
            for name, parameter in network.named_parameters():  # no biases: neither critic is above the other everywhere
                parameter.data += size * name.endswith("weight") * th.randn(parameter.shape, generator=generator)
        return model

    yield make
    th.set_default_dtype(th.float32)


def make_batch() -> TransitionBatch:
    rng = np.random.default_rng(0)
    states, next_states = rng.normal(size=(2, B, S))
    arrays = (states, rng.uniform(-1, 1, (B, A)), rng.normal(size=B), next_states, np.arange(B) % 3 > 0)
    return TransitionBatch(*(th.as_tensor(array, dtype=th.float64) for array in arrays))


def weights_of(module: th.nn.Module) -> Weights:
    return {name: parameter.detach().numpy().copy() for name, parameter in module.named_parameters()}


# ---------------------------------------------------------------------- the method in numpy


def mish(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(np.log1p(np.exp(x)))


def schedule() -> tuple[np.ndarray, np.ndarray]:
    """β_0..β_T and ᾱ_0..ᾱ_T of the variance-preserving SDE (paper, appendix), β_0 = 0."""
    i = np.arange(1, T + 1)
    betas = np.concatenate([[0.0], 1 - np.exp(-0.1 / T - 0.5 * (10 - 0.1) * (2 * i - 1) / T**2)])
    return betas, np.array([np.prod(1 - betas[: t + 1]) for t in range(T + 1)])


def eps_of(w: Weights, states: np.ndarray, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """ε_θ(s, x, t): rows in, rows out."""
    angles = t[:, None] * 10000.0 ** (-np.arange(8) / 7)
    time = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    for layer in (0, 2):
        time = time @ w[f"noise_net.time_net.{layer}.weight"].T + w[f"noise_net.time_net.{layer}.bias"]
        time = mish(time) if layer == 0 else time
    h = np.concatenate([states, x, time], axis=1) @ w["noise_net.input_layer.weight"].T + w["noise_net.input_layer.bias"]
    for layer in (1, 3):
        h = mish(h) @ w[f"noise_net.trunk.{layer}.weight"].T + w[f"noise_net.trunk.{layer}.bias"]
    return h


def sample(w: Weights, states: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """(B, S), (T, B, A) -> (B, A)"""
    betas, bars = schedule()
    x = noise[0]
    for t in range(T, 0, -1):
        eps = eps_of(w, states, x, np.full(len(states), t))
        clean = np.clip((x - np.sqrt(1 - bars[t]) * eps) / np.sqrt(bars[t]), -1, 1)
        mean = np.sqrt(bars[t - 1]) * betas[t] * clean + np.sqrt(1 - betas[t]) * (1 - bars[t - 1]) * x
        x = mean / (1 - bars[t])
        if t > 1:
            x = x + np.sqrt(betas[t] * (1 - bars[t - 1]) / (1 - bars[t])) * noise[T + 1 - t]
    return x


def q_of(w: Weights, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """(2, B)"""
    h = np.concatenate([states, actions], axis=1)
    q = []
    for member in range(2):
        out = h @ w["input_layer.weight"][member] + w["input_layer.bias"][member]
        for layer in (1, 3):
            out = mish(out) @ w[f"trunk.{layer}.weight"][member] + w[f"trunk.{layer}.bias"][member]
        q.append(out[:, 0])
    return np.array(q)


def td_loss(critic: Weights, targets: tuple[Weights, Weights], batch: TransitionBatch, noise: DQLNoise) -> float:
    states, actions, rewards, next_states, masks = (array.numpy() for array in batch)
    draws = noise.next_actions.numpy()  # (T, B, n, A)
    q = np.array(
        [q_of(targets[1], next_states, sample(targets[0], next_states, draws[:, :, n])) for n in range(draws.shape[2])]
    )
    best = q.max(0)  # of all actions for each critic, which may be another action for the other
    assert len(q) == 1 or (best.min(0) != q.min(1).max(0)).any()
    target = rewards + GAMMA * masks * best.min(0)
    return sum(float(np.mean((values - target) ** 2)) for values in q_of(critic, states, actions))


def imitation_loss(actor: Weights, batch: TransitionBatch, noise: DQLNoise) -> float:
    t, eps = noise.t.numpy(), noise.eps.numpy()
    bars = schedule()[1][t][:, None]
    noisy = np.sqrt(bars) * batch.actions.numpy() + np.sqrt(1 - bars) * eps
    return float(np.mean((eps_of(actor, batch.observations.numpy(), noisy, t) - eps) ** 2))


def policy_q(actor: Weights, critic: Weights, batch: TransitionBatch, noise: DQLNoise) -> np.ndarray:
    """Both critics at the actor's samples: (2, B)."""
    states = batch.observations.numpy()
    return q_of(critic, states, sample(actor, states, noise.denoised.numpy()[:, :, 0]))


def derivative(loss: Callable[[Weights], float], w: Weights, name: str, index: tuple[int, ...]) -> float:
    up, down = ({key: value.copy() for key, value in w.items()} for _ in range(2))
    up[name][index] += 1e-5
    down[name][index] -= 1e-5
    return (loss(up) - loss(down)) / 2e-5


# ---------------------------------------------------------------------- the update


@pytest.mark.parametrize("twin", [0, 1])
@pytest.mark.parametrize("max_q_backup", [False, True])
def test_the_losses_are_those_of_the_formulas(make_dql: MakeDql, max_q_backup: bool, twin: int) -> None:
    model, batch = make_dql(max_q_backup=max_q_backup, eta=0.7), make_batch()
    noise = model.draw_noise(B)._replace(twin=th.tensor([twin]))
    assert noise.next_actions.shape == (T, B, 10 if max_q_backup else 1, A)
    actor, critic = weights_of(model.actor), weights_of(model.critic)
    targets = weights_of(model.actor_target), weights_of(model.critic_target)
    info = model.step(batch, noise)
    q = policy_q(actor, weights_of(model.critic), batch, noise)  # the critics have moved before the actor climbs
    bc_loss, q_loss = imitation_loss(actor, batch, noise), -q[twin].mean() / np.abs(q[1 - twin]).mean()
    expected = {"critic_loss": td_loss(critic, targets, batch, noise), "bc_loss": bc_loss, "q_loss": q_loss}
    expected["actor_loss"] = bc_loss + 0.7 * q_loss
    for name, value in expected.items():
        assert info[name].item() == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize("twin", [0, 1])
def test_the_actors_gradient_runs_through_the_whole_chain_and_not_through_the_normaliser(make_dql: MakeDql, twin: int) -> None:
    model, batch = make_dql(eta=2.0), make_batch()
    noise = model.draw_noise(B)._replace(twin=th.tensor([twin]))
    noise = noise._replace(denoised=0.5 * noise.denoised)  # fewer samples at the clamp, which ends a gradient
    actor = weights_of(model.actor)
    model.step(batch, noise)
    critic = weights_of(model.critic)
    normaliser = np.abs(policy_q(actor, critic, batch, noise)[1 - twin]).mean()

    def loss(w: Weights) -> float:
        return imitation_loss(w, batch, noise) - 2.0 * policy_q(w, critic, batch, noise)[twin].mean() / normaliser

    gradients = {name: parameter.grad for name, parameter in model.actor.named_parameters()}
    for name, index in [
        ("noise_net.time_net.0.weight", (3, 2)),
        ("noise_net.input_layer.weight", (1, 0)),
        ("noise_net.input_layer.weight", (2, S + 1)),
        ("noise_net.trunk.1.weight", (4, 0)),
        ("noise_net.trunk.3.bias", (1,)),
    ]:
        found = gradients[name]
        assert found is not None
        assert found[index].item() == pytest.approx(derivative(loss, actor, name, index), rel=1e-5, abs=1e-9), name


def test_the_critics_get_the_gradient_of_their_own_loss_only(make_dql: MakeDql) -> None:
    model, batch, noise = make_dql(eta=50.0), make_batch(), make_dql().draw_noise(B)
    critic, targets = weights_of(model.critic), (weights_of(model.actor_target), weights_of(model.critic_target))
    model.step(batch, noise)
    for name, parameter in model.critic.named_parameters():
        index = (1, *[0] * (parameter.ndim - 1))
        assert parameter.grad is not None
        expected = derivative(lambda w: td_loss(w, targets, batch, noise), critic, name, index)
        assert parameter.grad[index].item() == pytest.approx(expected, rel=1e-5, abs=1e-9), name
    assert all(parameter.grad is None for parameter in [*model.actor_target.parameters(), *model.critic_target.parameters()])


def test_the_norms_of_actor_and_critics_are_clipped_apart(make_dql: MakeDql) -> None:
    model = make_dql(max_grad_norm=0.01)
    model.step(make_batch(), model.draw_noise(B))
    for network in (model.actor, model.critic):
        gradients = [parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None]
        assert th.cat(gradients).norm().item() == pytest.approx(0.01, rel=1e-3)


# ---------------------------------------------------------------------- around the update


def test_the_actors_target_waits_for_its_first_move_and_then_moves_every_fifth_update(make_dql: MakeDql) -> None:
    model, batch = make_dql(learning_rate=1e-2, tau=0.1), make_batch()
    moved = []
    for n_updates in (0, 5, 995, 999, 1000, 1001, 1004, 1005):
        model._n_updates = n_updates
        before = weights_of(model.actor_target), weights_of(model.critic_target)
        model.step(batch, model.draw_noise(B))
        after = weights_of(model.actor_target), weights_of(model.critic_target)
        for name, value in weights_of(model.critic).items():
            np.testing.assert_allclose(after[1][name], 0.1 * value + 0.9 * before[1][name])
        if any((after[0][name] != before[0][name]).any() for name in before[0]):
            moved.append(n_updates)
            for name, value in weights_of(model.actor).items():
                np.testing.assert_allclose(after[0][name], 0.1 * value + 0.9 * before[0][name])
    assert moved == [1000, 1005]


def test_both_rates_follow_the_cosine(make_dql: MakeDql) -> None:
    model = make_dql(learning_rate=3e-4, critic_learning_rate=1e-3, lr_decay_steps=10)
    for step in range(6):
        model.step(make_batch(), model.draw_noise(B))
        factor = 0.5 * (1 + math.cos(math.pi * step / 10))
        for optimizer, rate in ((model.actor_optimizer, 3e-4), (model.critic_optimizer, 1e-3)):
            assert optimizer.param_groups[0]["lr"] == pytest.approx(rate * factor, rel=1e-12)


def test_each_critic_is_climbed_half_the_time_and_all_steps_are_trained(make_dql: MakeDql) -> None:
    noises = [model.draw_noise(B) for model in [make_dql()] for _ in range(400)]
    assert abs(np.mean([noise.twin.item() for noise in noises]) - 0.5) < 0.1
    assert set(th.cat([noise.t for noise in noises]).tolist()) == set(range(1, T + 1))


def test_acting_draws_by_a_softmax_over_the_smaller_target_q(make_dql: MakeDql) -> None:
    model = make_dql(softmax_temperature=2.0)
    policy = model.policy
    states, candidates = th.randn(5, S), th.rand(5, 3, A)
    values = policy.candidate_values(states, candidates)
    for n in range(3):
        expected = q_of(weights_of(policy.critic_target), states.numpy(), candidates[:, n].numpy()).min(0)
        np.testing.assert_allclose(values[:, n].numpy(), expected)
    chosen = policy.choose(th.tensor([[100.0, 100.0 + 2.0 * math.log(3.0)]]).expand(4000, 2))
    assert chosen.double().mean().item() == pytest.approx(0.75, abs=0.04)  # 1 : 3, and no matter where Q's zero is
    model.softmax_temperature = 0.0
    assert policy.choose(th.tensor([[1.0, 3.0, 2.0]])).tolist() == [1]


def test_a_better_action_is_found_among_the_candidates(make_dql: MakeDql) -> None:
    model = make_dql(softmax_temperature=0.0)
    model.policy.candidate_values = lambda states, actions: actions[..., 0]  # type: ignore[method-assign]
    observations = np.zeros((200, S))
    best, any_one = (model.predict(observations, deterministic=flag)[0][:, 0] for flag in (True, False))
    assert best.mean() > 0.99 > 0.5 > any_one.mean()
