"""One update of IQL in float64 against numbers computed with numpy, and the properties the paper names."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import (
    GAMMA,
    B,
    Weights,
    adam_first_step,
    assert_close,
    flat,
    gradient_of,
    log_normal,
    make_agent,
    make_batch,
    mlp,
    numeric_gradient,
    q_values,
    standardised,
    weights_of,
)

from sb3_genoffline import BC, IQL
from sb3_genoffline.iql.iql import expectile_loss

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(("expectile", "temperature", "max_weight"), [(0.7, 3.0, 100.0), (0.9, 10.0, 2.0)])
def test_one_update_is_the_papers_three_losses_in_the_codes_order(
    expectile: float, temperature: float, max_weight: float
) -> None:
    settings = {"expectile": expectile, "temperature": temperature, "max_weight": max_weight}
    model, batch = make_agent(IQL, learning_rate=1e-2, **settings), make_batch()
    model.value.net[-1].bias.data -= 0.8  # so that advantages have both signs
    states, next_states = standardised(batch.observations), standardised(batch.next_observations)
    actions, rewards, masks = batch.actions.numpy(), batch.rewards.numpy(), batch.masks.numpy()
    value, actor, critics = weights_of(model.value), weights_of(model.actor), weights_of(model.critic)
    target_critics = weights_of(model.critic_target)
    target_q = q_values(target_critics, states, actions).min(0)

    def value_loss(weights: Weights) -> float:
        u = target_q - mlp(weights, states)[:, 0]
        assert (u < 0).any() and (u > 0).any()
        return float((np.abs(expectile - (u < 0)) * u**2).mean())

    value_gradient = numeric_gradient(value, value_loss)
    info = model.step(batch, None)
    assert_close(info["value_loss"], value_loss(value))
    assert_close(gradient_of(model.value), value_gradient)
    moved = weights_of(model.value)
    assert_close(flat(moved), adam_first_step(value, value_gradient, 1e-2), atol=1e-6)

    advantages = target_q - mlp(moved, states)[:, 0]
    weights_of_rows = np.minimum(np.exp(temperature * advantages), max_weight)
    clipped = weights_of_rows == max_weight
    assert clipped.any() == (max_weight == 2.0) and not clipped.all()

    def actor_loss(weights: Weights) -> float:
        return float(-(weights_of_rows * log_normal(weights, states, actions)).mean())

    assert_close(info["actor_loss"], actor_loss(actor))
    assert_close([info["weight_mean"], info["clipped_share"]], [weights_of_rows.mean(), clipped.mean()])
    actor_gradient = numeric_gradient(actor, actor_loss)
    assert_close(gradient_of(model.actor), actor_gradient)
    assert_close(flat(weights_of(model.actor)), adam_first_step(actor, actor_gradient, 1e-2), atol=1e-6)

    target = rewards + GAMMA * masks * mlp(moved, next_states)[:, 0]

    def critic_loss(weights: Weights) -> float:
        return float(((q_values(weights, states, actions) - target) ** 2).mean(1).sum())

    assert_close(info["critic_loss"], critic_loss(critics))
    critic_gradient = numeric_gradient(critics, critic_loss)
    assert_close(gradient_of(model.critic), critic_gradient)
    assert_close(flat(weights_of(model.critic)), adam_first_step(critics, critic_gradient, 1e-2), atol=1e-6)
    expected = 0.995 * flat(target_critics) + 0.005 * flat(weights_of(model.critic))
    assert_close(flat(weights_of(model.critic_target)), expected)


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.7, 0.9])
def test_the_minimiser_of_the_loss_is_the_expectile(expectile: float) -> None:
    candidates = th.linspace(0.0, 1.0, 1001)
    coin = th.tensor([0.0, 1.0])  # whose τ-expectile is τ
    losses = expectile_loss(coin - candidates.unsqueeze(1), expectile).mean(1)
    assert candidates[losses.argmin()].item() == pytest.approx(expectile, abs=1e-3)


def test_no_action_but_the_datas_is_ever_judged() -> None:
    model, batch, seen = make_agent(IQL), make_batch(), []
    for critic in (model.critic, model.critic_target):
        critic.register_forward_hook(lambda _, inputs, output: seen.append(inputs))
    model.step(batch, model.draw_noise(B))
    assert len(seen) == 2
    states = model.policy.normalize_observations(batch.observations)
    assert all(th.equal(actions, batch.actions) and th.equal(given, states) for given, actions in seen)


def test_at_temperature_zero_the_actor_is_gaussian_behaviour_cloning() -> None:
    gradients = []
    for cls, changes in ((IQL, {"temperature": 0.0}), (BC, {"gaussian": True})):
        model: Any = make_agent(cls, **changes)
        model.step(make_batch(), None)
        gradients.append(gradient_of(model.actor))
    assert_close(*gradients, rtol=1e-12)


def test_the_actors_rate_alone_decays_by_a_cosine() -> None:
    model = make_agent(IQL, lr_decay_steps=10)
    for step in range(6):
        model.step(make_batch(), None)
        expected = 3e-4 * 0.5 * (1 + math.cos(math.pi * step / 10))
        assert model.actor_optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)
        assert model.critic_optimizer.param_groups[0]["lr"] == model.value_optimizer.param_groups[0]["lr"] == 3e-4


@pytest.mark.parametrize(("name", "value"), [("expectile", 1.0), ("expectile", 0.0), ("temperature", -1.0)])
def test_values_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        make_agent(IQL, **{name: value})
