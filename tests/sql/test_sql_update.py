"""One update of SQL in float64 against numbers computed with numpy, known numbers of its losses, and its traps."""

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
    close,
    flat,
    gradient_of,
    log_normal,
    make_agent,
    make_batch,
    numeric_gradient,
    q_values,
    standardised,
    weights_of,
)
from in_sample import DIFFERENCE, Q1, Q, V, loss_and_gradient, normed_mlp, stationary

from sb3_genoffline import SQL
from sb3_genoffline.errors import UserError
from sb3_genoffline.sql.sql import sparse_value_loss

pytestmark = pytest.mark.usefixtures("float64")


def loss_at(alpha: float) -> Any:
    return lambda q, v: sparse_value_loss(q, v, alpha)


@pytest.mark.parametrize(("alpha", "paper_weights", "max_weight"), [(1.0, False, 100.0), (0.3, False, 0.5), (0.3, True, 3.0)])
def test_one_update_is_the_three_losses_in_the_codes_order(alpha: float, paper_weights: bool, max_weight: float) -> None:
    settings = {"alpha": alpha, "paper_weights": paper_weights, "max_weight": max_weight}
    model, batch = make_agent(SQL, learning_rate=1e-2, **settings), make_batch()
    states, next_states = standardised(batch.observations), standardised(batch.next_observations)
    actions, rewards, masks = batch.actions.numpy(), batch.rewards.numpy(), batch.masks.numpy()
    value, actor, critics = weights_of(model.value), weights_of(model.actor), weights_of(model.critic)
    target_critics = weights_of(model.critic_target)
    target_q = q_values(target_critics, states, actions).min(0)
    model.value.net[-1].bias.data += target_q.mean() - normed_mlp(value, states).mean()  # so that advantages have both signs
    value = weights_of(model.value)

    def value_loss(weights: Weights) -> float:
        v = normed_mlp(weights, states)[:, 0]
        u = (target_q - v) / (2 * alpha) + 1
        return float(((u > 0) * u**2 + v / alpha).mean())

    value_gradient = numeric_gradient(value, value_loss)
    info = model.step(batch, None)
    assert_close(info["value_loss"], value_loss(value))
    assert_close(gradient_of(model.value), value_gradient, atol=1e-7)
    moved = weights_of(model.value)
    assert_close(flat(moved), adam_first_step(value, gradient_of(model.value), 1e-2), atol=1e-9)

    new_values = normed_mlp(moved, states)[:, 0]
    advantages = target_q - new_values
    weights_of_rows = np.clip(1 + advantages / (2 * alpha) if paper_weights else advantages, 0, max_weight)
    assert 0 < (weights_of_rows == 0).sum() < B

    def actor_loss(weights: Weights) -> float:
        return float(-(weights_of_rows * log_normal(weights, states, actions)).mean())

    assert_close(info["actor_loss"], actor_loss(actor))
    shares = [(weights_of_rows == 0).mean(), (weights_of_rows == max_weight).mean()]
    assert_close([info["zero_share"], info["clipped_share"]], shares)
    assert_close([info["weight_mean"], info["advantage_mean"]], [weights_of_rows.mean(), advantages.mean()])
    actor_gradient = numeric_gradient(actor, actor_loss)
    assert_close(gradient_of(model.actor), actor_gradient, atol=1e-7)
    assert_close(flat(weights_of(model.actor)), adam_first_step(actor, gradient_of(model.actor), 1e-2), atol=1e-9)

    target = rewards + GAMMA * masks * normed_mlp(moved, next_states)[:, 0]

    def critic_loss(weights: Weights) -> float:
        return float(((q_values(weights, states, actions) - target) ** 2).mean(1).sum())

    assert_close(info["critic_loss"], critic_loss(critics))
    critic_gradient = numeric_gradient(critics, critic_loss)
    assert_close(gradient_of(model.critic), critic_gradient, atol=1e-7)
    assert_close(flat(weights_of(model.critic)), adam_first_step(critics, gradient_of(model.critic), 1e-2), atol=1e-9)
    expected = 0.995 * flat(target_critics) + 0.005 * flat(weights_of(model.critic))
    assert_close(flat(weights_of(model.critic_target)), expected)


# ---------------------------------------------------------------------- known numbers


def test_the_rows_are_those_of_the_known_numbers() -> None:
    close(Q - V, DIFFERENCE, 5e-9)


def test_the_loss_of_v_and_its_gradient_are_known_numbers() -> None:
    """README claim 1."""
    loss, gradient = loss_and_gradient(loss_at(1.0))
    close(loss, 1.36249257, 5e-9)
    close(gradient, [0.15133067, -0.77871997, -0.41450888, 0.50185186, 0.46372121, -0.47862845], 5e-9)
    close(1 - np.maximum(1 + (Q - V) / 2, 0), gradient, 1e-14)  # 1 less the paper's weights
    loss, gradient = loss_and_gradient(loss_at(0.1))
    close(loss, 22.1412295, 5e-8)
    close(gradient, [10, -77.8719972, -41.4508883, 10, 10, -47.862845], 5e-7)


def test_the_weights_of_the_actor_are_known_numbers() -> None:
    """README claim 2."""
    difference = th.tensor(Q - V)
    for settings, expected in (
        ({}, [0, 1.55743994, 0.82901777, 0, 0, 0.95725690]),
        ({"paper_weights": True}, [0.84866933, 1.77871997, 1.41450888, 0.49814814, 0.53627879, 1.47862845]),
    ):
        close(make_agent(SQL, **settings).weights(difference), expected, 5e-9)


@pytest.mark.parametrize(("alpha", "expected"), [(5.0, 0.11498693), (1.0, 0.11498693), (0.5, 0.46800119), (0.1, 1.00234491)])
def test_v_lies_between_the_mean_and_the_best_of_the_datas_actions(alpha: float, expected: float) -> None:
    """README claim 3."""
    close([Q1.mean(), Q1.max()], [0.11498693, 1.99498997], 5e-9)
    found = stationary(loss_at(alpha), -5, 5)
    close(found, expected, 5e-9)
    close(np.maximum(1 + (Q1 - found) / (2 * alpha), 0).mean(), 1, 1e-9)


def test_an_alpha_of_the_code_before_2023_is_four_of_todays() -> None:
    """README claim 4."""

    def old(q: th.Tensor, v: th.Tensor) -> th.Tensor:
        residual = (q - v) / 2.0 + 0.5
        return (residual > 0) * residual.square() + v / 2.0

    close(stationary(old, -5, 5), 0.46800119, 5e-9)
    close(stationary(loss_at(0.5), -5, 5), 0.46800119, 5e-9)


# ---------------------------------------------------------------------- traps


def test_a_batch_of_bad_actions_leaves_the_actor_where_it_is() -> None:
    model = make_agent(SQL, learning_rate=1e-2)
    model.value.net[-1].bias.data += 1e3
    before = weights_of(model.actor)
    info = model.step(make_batch(), None)
    assert info["zero_share"] == 1 and info["actor_loss"] == 0
    assert_close(flat(weights_of(model.actor)), flat(before), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "value"), [("alpha", 0.0), ("max_weight", -1.0)])
def test_values_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name}={value}"):
        make_agent(SQL, **{name: value})


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(AssertionError):
        sparse_value_loss(th.zeros(6), th.zeros(6, 1), 1.0)
