"""One update of AWAC in float64 against numbers computed with numpy, and its weights."""

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
    gaussian_sample,
    gradient_of,
    log_normal,
    make_agent,
    make_batch,
    numeric_gradient,
    q_values,
    standardised,
    weights_of,
)

from sb3_genoffline import AWAC
from sb3_genoffline.awac import AWACNoise

pytestmark = pytest.mark.usefixtures("float64")
LAM, DECAY = 0.1, 0.05


@pytest.mark.parametrize("weighting", ["softmax", "exp"])
def test_one_update_is_a_bellman_step_and_a_weighted_likelihood(weighting: Any) -> None:
    settings = {"weighting": weighting, "lam": LAM, "max_weight": 1.5, "actor_weight_decay": DECAY}
    model, batch = make_agent(AWAC, learning_rate=1e-2, **settings), make_batch()
    model.actor.std_logit.data.copy_(th.tensor([2.5, 9.0]))
    noise = AWACNoise(*(2 * part for part in model.draw_noise(B)))
    states, next_states = standardised(batch.observations), standardised(batch.next_observations)
    actions, actor = batch.actions.numpy(), weights_of(model.actor)
    critics, target_critics = weights_of(model.critic), weights_of(model.critic_target)

    next_actions = gaussian_sample(actor, next_states, noise.next_action.numpy())
    assert (np.abs(next_actions) == 1).any() and (np.abs(next_actions) < 1).any()
    next_q = q_values(target_critics, next_states, next_actions).min(0)
    target = batch.rewards.numpy() + GAMMA * batch.masks.numpy() * next_q

    def critic_loss(weights: Weights) -> float:
        return float(((q_values(weights, states, actions) - target) ** 2).mean(1).sum())

    critic_gradient = numeric_gradient(critics, critic_loss)
    info = model.step(batch, noise)
    assert_close(info["critic_loss"], critic_loss(critics))
    assert_close(gradient_of(model.critic), critic_gradient)
    moved = weights_of(model.critic)
    assert_close(flat(moved), adam_first_step(critics, critic_gradient, 1e-2), atol=1e-6)

    own_actions = gaussian_sample(actor, states, noise.baseline.numpy())
    advantages = q_values(moved, states, actions).min(0) - q_values(moved, states, own_actions).min(0)
    exponentials = np.exp(advantages / LAM)
    assert (exponentials > 1.5).any() and (exponentials < 1.5).any()
    rows = B * exponentials / exponentials.sum() if weighting == "softmax" else np.minimum(exponentials, 1.5)

    def actor_loss(weights: Weights) -> float:
        return float(-(rows * log_normal(weights, states, actions)).mean())

    assert_close(info["actor_loss"], actor_loss(actor))
    actor_gradient = numeric_gradient(actor, actor_loss)
    assert_close(gradient_of(model.actor), actor_gradient)
    expected = adam_first_step(actor, actor_gradient, 1e-2, weight_decay=DECAY)
    assert_close(flat(weights_of(model.actor)), expected, atol=1e-6)
    assert_close(flat(weights_of(model.critic_target)), 0.995 * flat(target_critics) + 0.005 * flat(moved))


def test_the_two_actions_of_an_update_are_drawn_apart() -> None:
    noise = make_agent(AWAC).draw_noise(2000)
    both = th.stack([part.flatten() for part in noise])
    assert th.corrcoef(both)[0, 1].abs() < 0.08 and both.std(1).numpy() == pytest.approx([1, 1], abs=0.06)


def test_softmax_weights_mean_one_whatever_the_advantages_and_exponential_ones_are_clipped() -> None:
    advantages = th.tensor([-2000.0, 0.0, 3.0, 1000.0])
    softmax, exponential = (make_agent(AWAC, lam=1.0, weighting=kind).weights(advantages) for kind in ("softmax", "exp"))
    assert softmax.tolist() == pytest.approx([0, 0, 0, 4])
    assert exponential.tolist() == pytest.approx([0, 1, np.exp(3), 100])
    shifted = make_agent(AWAC).weights(advantages[1:3] + 500)
    assert_close(shifted, make_agent(AWAC).weights(advantages[1:3]))


@pytest.mark.parametrize(("name", "value"), [("lam", 0.0), ("weighting", "'linear'")])
def test_values_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        make_agent(AWAC, **{name: value.strip("'") if isinstance(value, str) else value})
