"""One update of CQL in float64 against numbers computed here with numpy, and what surrounds the update."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_genoffline import CQL
from sb3_genoffline.cql import CQLNoise
from sb3_genoffline.data.buffers import TransitionBatch

S, A, B, N = 3, 2, 7, 4
GAMMA, RATE = 0.97, 1e-3
Weights = dict[str, np.ndarray]
MakeCql = Callable[..., CQL]


@pytest.fixture
def make_cql() -> Iterator[MakeCql]:
    """Tiny agents in double precision whose target critics are not the online ones."""
    th.set_default_dtype(th.float64)

    def make(**changes: Any) -> CQL:
        box = (spaces.Box(-np.inf, np.inf, (S,)), spaces.Box(-1, 1, (A,)))
        settings = {"gamma": GAMMA, "learning_rate": RATE, "n_actions": N, "bc_steps": 0, "seed": 0, "device": "cpu"}
        model = CQL("CQLPolicy", box, **(settings | {"policy_kwargs": {"net_arch": [6, 5]}} | changes))
        generator = th.Generator().manual_seed(3)
        for parameter in model.critic_target.parameters():
            parameter.data += 0.7 * th.randn(parameter.shape, generator=generator)
        model.critic_target.trunk[-1].bias.data.zero_()  # neither critic is above the other everywhere
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


def gaussian(w: Weights, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std before the tanh."""
    h = states
    for layer in (0, 2, 4):
        h = h @ w[f"net.{layer}.weight"].T + w[f"net.{layer}.bias"]
        h = np.maximum(h, 0) if layer < 4 else h
    return h[:, :A], np.exp(np.clip(h[:, A:], -20, 2))


def log_density(w: Weights, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    mean, std = gaussian(w, states)
    u = np.arctanh(actions)
    normal = -0.5 * ((u - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    return (normal - np.log(1 - actions**2)).sum(1)


def act(w: Weights, states: np.ndarray, noise: np.ndarray) -> np.ndarray:
    mean, std = gaussian(w, states)
    return np.tanh(mean + std * noise)


def q_of(w: Weights, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """(2, B)"""
    q = []
    for member in range(2):
        h = np.concatenate([states, actions], axis=1) @ w["input_layer.weight"][member] + w["input_layer.bias"][member]
        for layer in (1, 3):
            h = np.maximum(h, 0) @ w[f"trunk.{layer}.weight"][member] + w[f"trunk.{layer}.bias"][member]
        q.append(h[:, 0])
    return np.array(q)


def td_loss(critic: Weights, target: np.ndarray, batch: TransitionBatch) -> float:
    q = q_of(critic, batch.observations.numpy(), batch.actions.numpy())
    return float(((q[0] - target) ** 2).mean() + ((q[1] - target) ** 2).mean())


def gaps(critic: Weights, actor: Weights, batch: TransitionBatch, noise: CQLNoise) -> np.ndarray:
    """log Σ exp(Q(s, a_i) − log μ(a_i)) − Q(s, a), the mean of each critic: (2,)."""
    states, next_states = batch.observations.numpy(), batch.next_observations.numpy()
    exponents = []
    for n in range(N):
        exponents.append(q_of(critic, states, noise.uniform.numpy()[:, n]) - np.log(0.5**A))
        for origin, draws in ((states, noise.current), (next_states, noise.following)):
            actions = act(actor, origin, draws.numpy()[:, n])
            exponents.append(q_of(critic, states, actions) - log_density(actor, origin, actions))
    return (np.log(np.exp(exponents).sum(0)) - q_of(critic, states, batch.actions.numpy())).mean(1)


def derivative(loss: Callable[[Weights], float], w: Weights, name: str, index: tuple[int, ...]) -> float:
    up, down = ({key: value.copy() for key, value in w.items()} for _ in range(2))
    up[name][index] += 1e-5
    down[name][index] -= 1e-5
    return (loss(up) - loss(down)) / 2e-5


def assert_gradient(module: th.nn.Module, loss: Callable[[Weights], float], at: Weights) -> None:
    """The last update's gradient of one entry of each of the module's tensors is the loss's derivative at these weights."""
    for name, parameter in module.named_parameters():
        index = (1, *[0] * (parameter.ndim - 1))
        assert parameter.grad is not None
        assert parameter.grad[index].item() == pytest.approx(derivative(loss, at, name, index), rel=1e-5, abs=1e-8), name


# ---------------------------------------------------------------------- the update


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_q_backup": True}, {"deterministic_backup": False}, {"max_q_backup": True, "deterministic_backup": False}],
    ids=["sample", "max", "entropy", "both"],
)
def test_the_critics_descend_the_td_error_and_the_weighted_gap(make_cql: MakeCql, settings: dict[str, bool]) -> None:
    model, batch = make_cql(min_q_weight=1.7, **settings), make_batch()
    noise = model.draw_noise(B)
    actor, critic, critic_target = (weights_of(module) for module in (model.actor, model.critic, model.critic_target))
    info = model.step(batch, noise)
    alpha, next_states = info["entropy_weight"].item(), batch.next_observations.numpy()
    draws = noise.target.numpy()
    next_actions = [act(actor, next_states, draws[:, k]) for k in range(draws.shape[1])]
    assert len(next_actions) == (10 if settings.get("max_q_backup") else 1)
    q = np.array([q_of(critic_target, next_states, actions) for actions in next_actions])  # (k, 2, B)
    if settings.get("deterministic_backup") is False:
        q -= alpha * np.array([log_density(actor, next_states, actions) for actions in next_actions])[:, None]
    value = q.max(0).min(0)  # the best action of each critic, which may be another one for the other
    assert len(q) == 1 or (value != q.min(1).max(0)).any()
    target = batch.rewards.numpy() + GAMMA * batch.masks.numpy() * value
    assert info["critic_loss"].item() == pytest.approx(td_loss(critic, target, batch), rel=1e-9)
    assert info["conservative_gap"].item() == pytest.approx(gaps(critic, actor, batch, noise).mean(), rel=1e-9)
    assert_gradient(
        model.critic, lambda w: td_loss(w, target, batch) + 1.7 * float(gaps(w, actor, batch, noise).sum()), critic
    )


@pytest.mark.parametrize("imitates", [True, False])
def test_the_actor_climbs_the_smaller_q_with_entropy_and_the_datas_likelihood_at_first(
    make_cql: MakeCql, imitates: bool
) -> None:
    model, batch = make_cql(bc_steps=3), make_batch()
    model._n_updates = 2 if imitates else 3
    noise, actor = model.draw_noise(B), weights_of(model.actor)
    info = model.step(batch, noise)
    critic, states = weights_of(model.critic), batch.observations.numpy()  # the critics have moved before the actor climbs
    alpha = info["entropy_weight"].item()

    def loss(w: Weights) -> float:
        actions = act(w, states, noise.actor.numpy())
        gain = log_density(w, states, batch.actions.numpy()) if imitates else q_of(critic, states, actions).min(0)
        return float((alpha * log_density(w, states, actions) - gain).mean())

    assert info["actor_loss"].item() == pytest.approx(loss(actor), rel=1e-9)
    assert_gradient(model.actor, loss, actor)


def test_the_entropys_weight_rises_where_the_policy_is_surer_than_one_nat_per_dimension_below_zero(make_cql: MakeCql) -> None:
    for log_std, sign in ((-4.0, 1.0), (0.0, -1.0)):
        model, batch = make_cql(), make_batch()
        model.actor.net[-1].bias.data[A:] = log_std
        noise, actor = model.draw_noise(B), weights_of(model.actor)
        states = batch.observations.numpy()
        gap = log_density(actor, states, act(actor, states, noise.actor.numpy())).mean() - A
        info = model.step(batch, noise)
        assert np.sign(gap) == sign
        assert model.log_entropy_weight.grad.item() == pytest.approx(-gap, rel=1e-9)
        assert info["entropy_weight"].item() == pytest.approx(math.exp(sign * RATE), rel=1e-9)  # the step comes first


@pytest.mark.parametrize("threshold", [-50.0, 50.0])
def test_the_multiplier_weighs_the_penalty_and_rises_above_the_threshold_only(make_cql: MakeCql, threshold: float) -> None:
    model, batch = make_cql(min_q_weight=1.7, lagrange_threshold=threshold, critic_learning_rate=1e-2), make_batch()
    model.log_multiplier.data.fill_(0.3)
    noise, actor, critic = model.draw_noise(B), weights_of(model.actor), weights_of(model.critic)
    target = model.critic_target_value(batch, batch.next_observations, noise.target, th.ones(())).numpy()
    info = model.step(batch, noise)
    excess = float((1.7 * gaps(critic, actor, batch, noise) - threshold).sum())
    assert info["multiplier"].item() == pytest.approx(math.exp(0.3))
    assert model.log_multiplier.grad.item() == pytest.approx(-0.5 * math.exp(0.3) * excess, rel=1e-9)
    assert model.log_multiplier.item() == pytest.approx(0.3 + math.copysign(1e-2, excess), rel=1e-6)
    assert_gradient(
        model.critic,
        lambda w: td_loss(w, target, batch) + math.exp(0.3) * 1.7 * float(gaps(w, actor, batch, noise).sum()),
        critic,
    )


def test_without_a_threshold_there_is_no_multiplier(make_cql: MakeCql) -> None:
    model = make_cql()
    info = model.step(make_batch(), model.draw_noise(B))
    assert "multiplier" not in info and model.log_multiplier.item() == 0.0


def test_the_log_sum_exp_estimates_the_integral_over_all_actions(make_cql: MakeCql) -> None:
    model, batch = make_cql(n_actions=3000), make_batch()
    model.critic.of_samples = lambda states, actions: -3.0 * actions.square().sum(-1).expand(2, *actions.shape[:2])  # type: ignore
    _, gap = model.conservative_gap(batch.observations, batch.next_observations, batch.actions, model.draw_noise(B))
    integral = math.pi / 3 * math.erf(math.sqrt(3.0)) ** 2  # of exp(−3|a|²) over the square
    expected = math.log(integral) + math.log(9000) + 3.0 * batch.actions.square().sum(1).mean().item()
    assert gap[0].item() == pytest.approx(expected, abs=0.03)


def test_q_of_many_actions_is_q_of_each_with_the_same_gradient(make_cql: MakeCql) -> None:
    critic = make_cql(policy_kwargs={"net_arch": [6, 5], "critic_layer_norm": True}).critic
    states, actions = th.randn(B, S), th.rand(B, N, A)
    weight = th.randn(2, B, N)
    together = critic.of_samples(states, actions)
    apart = th.stack([critic(states, actions[:, n]) for n in range(N)], dim=-1)
    assert th.allclose(together, apart)
    for first, second in zip(
        *(th.autograd.grad((q * weight).sum(), critic.parameters()) for q in (together, apart)), strict=True
    ):
        assert th.allclose(first, second)


# ---------------------------------------------------------------------- around the update


def test_the_target_critics_follow_in_each_update(make_cql: MakeCql) -> None:
    model = make_cql(tau=0.1)
    before = weights_of(model.critic_target)
    model.step(make_batch(), model.draw_noise(B))
    for name, value in weights_of(model.critic).items():
        np.testing.assert_allclose(weights_of(model.critic_target)[name], 0.1 * value + 0.9 * before[name])


def test_predicting_is_the_mode_or_a_sample(make_cql: MakeCql) -> None:
    model = make_cql()
    observations = np.random.default_rng(0).normal(size=(400, S))
    mean, _ = gaussian(weights_of(model.actor), observations)
    np.testing.assert_allclose(model.predict(observations, deterministic=True)[0], np.tanh(mean), rtol=1e-6)
    sampled = model.predict(observations, deterministic=False)[0]
    assert 0.3 < np.std(np.arctanh(sampled.clip(-0.999, 0.999)) - mean) < 3.0
