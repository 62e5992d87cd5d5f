"""One update of TD3+BC in float64 against numbers computed with numpy, and the properties the paper names."""

from typing import Any

import numpy as np
import pytest
from exact import (
    GAMMA,
    B,
    Weights,
    adam_first_step,
    assert_close,
    flat,
    gradient_of,
    make_agent,
    make_batch,
    mlp,
    numeric_gradient,
    q_values,
    standardised,
    weights_of,
)

from sb3_genoffline import BC, TD3BC

pytestmark = pytest.mark.usefixtures("float64")


def test_one_update_is_td3s_with_q_normalised_and_the_squared_distance_to_the_data() -> None:
    model, batch = make_agent(TD3BC, learning_rate=1e-2, alpha=1.7), make_batch()
    noise = 4 * model.draw_noise(B)
    states, next_states = standardised(batch.observations), standardised(batch.next_observations)
    actions, actor = batch.actions.numpy(), weights_of(model.actor)
    critics, target_critics = weights_of(model.critic), weights_of(model.critic_target)

    smoothing = np.clip(0.2 * noise.numpy(), -0.5, 0.5)
    next_actions = np.tanh(mlp(weights_of(model.actor_target), next_states)) + smoothing
    assert (np.abs(smoothing) == 0.5).any() and (np.abs(next_actions) > 1).any()
    next_q = q_values(target_critics, next_states, np.clip(next_actions, -1, 1)).min(0)
    target = batch.rewards.numpy() + GAMMA * batch.masks.numpy() * next_q

    def critic_loss(weights: Weights) -> float:
        return float(((q_values(weights, states, actions) - target) ** 2).mean(1).sum())

    critic_gradient = numeric_gradient(critics, critic_loss)
    info = model.step(batch, noise)
    assert_close(info["critic_loss"], critic_loss(critics))
    assert_close(gradient_of(model.critic), critic_gradient)
    moved = weights_of(model.critic)
    assert_close(flat(moved), adam_first_step(critics, critic_gradient, 1e-2), atol=1e-6)

    weight = 1.7 / np.abs(q_values(moved, states, np.tanh(mlp(actor, states)))[0]).mean()

    def actor_loss(weights: Weights) -> float:
        own = np.tanh(mlp(weights, states))
        return float(-weight * q_values(moved, states, own)[0].mean() + ((own - actions) ** 2).mean())

    assert_close(info["q_weight"], weight)
    assert_close(info["actor_loss"], actor_loss(actor))
    actor_gradient = numeric_gradient(actor, actor_loss)
    assert_close(gradient_of(model.actor), actor_gradient)
    assert_close(flat(weights_of(model.actor)), adam_first_step(actor, actor_gradient, 1e-2), atol=1e-6)
    assert_close(flat(weights_of(model.critic_target)), 0.995 * flat(target_critics) + 0.005 * flat(moved))


def test_the_actor_and_all_targets_move_every_second_update() -> None:
    model = make_agent(TD3BC)
    names = ("actor", "actor_target", "critic", "critic_target")
    state = {name: flat(weights_of(getattr(model, name))) for name in names}
    for step in range(4):
        model.step(make_batch(step), model.draw_noise(B))
        before, state = state, {name: flat(weights_of(getattr(model, name))) for name in names}
        assert {name for name in names if (state[name] != before[name]).any()} == (set(names) if step % 2 == 0 else {"critic"})
        if step % 2 == 0:
            assert_close(state["actor_target"], 0.995 * before["actor_target"] + 0.005 * state["actor"])


def actor_gradient(cls: Any, q_scale: float = 1.0, **changes: Any) -> np.ndarray:
    model, batch = make_agent(cls, critic_learning_rate=0.0, **changes) if cls is TD3BC else make_agent(cls), make_batch()
    if cls is TD3BC:
        model.critic.trunk[-1].weight.data *= q_scale
        model.critic.trunk[-1].bias.data *= q_scale
    model.step(batch, model.draw_noise(B))
    return gradient_of(model.actor)


def test_the_scale_of_q_does_not_matter_to_the_actor() -> None:
    assert_close(actor_gradient(TD3BC), actor_gradient(TD3BC, q_scale=1000.0))
    assert np.abs(actor_gradient(TD3BC) - actor_gradient(TD3BC, alpha=1.0)).max() > 1e-3


def test_with_alpha_zero_the_actor_is_behaviour_cloning() -> None:
    assert_close(actor_gradient(TD3BC, alpha=0.0), actor_gradient(BC), rtol=1e-12)
