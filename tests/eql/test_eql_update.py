"""One update of EQL in float64 against numbers computed with numpy, known numbers of its losses, and its traps."""

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
from in_sample import DIFFERENCE, Q1, Q, V, loss_and_gradient, normed_mlp, slope, stationary

from sb3_genoffline import EQL
from sb3_genoffline.common.in_sample import exponential_weights
from sb3_genoffline.eql.eql import exponential_value_loss
from sb3_genoffline.errors import UserError

pytestmark = pytest.mark.usefixtures("float64")


def loss_at(alpha: float, official: bool = False, clip: float = 5.0) -> Any:
    return lambda q, v: exponential_value_loss(q, v, alpha, clip, official)


def plain_value_loss(
    q: np.ndarray, v: np.ndarray, alpha: float, clip: float, official: bool, largest: float | None = None
) -> Any:
    x = (q - v) / alpha
    cut = np.minimum(x, clip)
    slope_goes_on = 0.0 if official else np.exp(clip - largest) * np.maximum(x - clip, 0)
    return np.exp(cut - largest) + slope_goes_on + np.exp(-largest) * v / alpha


@pytest.mark.parametrize(
    ("alpha", "clip", "official", "max_weight"), [(2.0, 5.0, False, 100.0), (0.3, 1.0, False, 3.0), (0.3, 1.0, True, 3.0)]
)
def test_one_update_is_the_three_losses_in_the_codes_order(
    alpha: float, clip: float, official: bool, max_weight: float
) -> None:
    settings = {"alpha": alpha, "exponent_clip": clip, "official_clip": official, "max_weight": max_weight}
    model, batch = make_agent(EQL, learning_rate=1e-2, **settings), make_batch()
    states, next_states = standardised(batch.observations), standardised(batch.next_observations)
    actions, rewards, masks = batch.actions.numpy(), batch.rewards.numpy(), batch.masks.numpy()
    value, actor, critics = weights_of(model.value), weights_of(model.actor), weights_of(model.critic)
    target_critics = weights_of(model.critic_target)
    target_q = q_values(target_critics, states, actions).min(0)
    model.value.net[-1].bias.data += target_q.mean() - normed_mlp(value, states).mean()  # so that advantages have both signs
    value = weights_of(model.value)
    exponents = (target_q - normed_mlp(value, states)[:, 0]) / alpha
    largest = max(np.minimum(exponents, clip).max(), -1.0)  # of this update: no gradient goes through it
    assert (exponents > clip).any() == (clip == 1.0)

    def value_loss(weights: Weights) -> float:
        v = normed_mlp(weights, states)[:, 0]
        return float(plain_value_loss(target_q, v, alpha, clip, official, largest).mean())

    value_gradient = numeric_gradient(value, value_loss)
    info = model.step(batch, None)
    assert_close(info["value_loss"], value_loss(value))
    assert_close(info["exp_clipped_share"], (exponents > clip).mean())
    assert_close(gradient_of(model.value), value_gradient, atol=1e-7)
    moved = weights_of(model.value)
    assert_close(flat(moved), adam_first_step(value, gradient_of(model.value), 1e-2), atol=1e-9)

    advantages = target_q - normed_mlp(moved, states)[:, 0]
    weights_of_rows = np.minimum(np.exp(10 * advantages / alpha), max_weight)
    assert 0 < (weights_of_rows == max_weight).sum() < B

    def actor_loss(weights: Weights) -> float:
        return float(-(weights_of_rows * log_normal(weights, states, actions)).mean())

    assert_close(info["actor_loss"], actor_loss(actor))
    assert_close([info["weight_mean"], info["advantage_mean"]], [weights_of_rows.mean(), advantages.mean()])
    assert_close(info["clipped_share"], (weights_of_rows == max_weight).mean())
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


@pytest.mark.parametrize("official", [False, True])
def test_the_loss_of_v_and_its_gradient_are_known_numbers(official: bool) -> None:
    """README claim 1: below the limit of the exponent both forms are one."""
    loss, gradient = loss_and_gradient(loss_at(2.0, official))
    close(loss, 0.54957183, 5e-9)
    close(gradient, [0.03222971, -0.27050342, -0.11787568, 0.09055740, 0.08515726, -0.14087863], 5e-9)
    loss, gradient = loss_and_gradient(loss_at(2.0, official), Q1, np.full(6, 10.0))
    close(loss, 13.6150094, 5e-8)  # M is at its floor of −1
    close(gradient[0], 1.3479704, 5e-8)


def test_the_officially_cut_loss_pushes_v_down_at_the_best_row() -> None:
    """README claim 2."""
    loss, gradient = loss_and_gradient(loss_at(0.25, official=True))
    close(loss, 0.24772639, 5e-9)
    close(gradient, [0.01892002, 0.02695179, -0.71562086, 0.02646541, 0.02629192, -1.21330936], 5e-9)
    assert (Q - V)[1] / 0.25 > 5 and gradient[1] > 0
    close(gradient[1], np.exp(-5) / 0.25, 1e-12)


def test_above_the_limit_the_tangent_draws_v_up_as_strongly_as_at_it() -> None:
    """README claim 2."""
    _, official = loss_and_gradient(loss_at(0.25, official=True))
    _, gradient = loss_and_gradient(loss_at(0.25))
    others = np.arange(6) != 1
    close(gradient[others], official[others], 1e-15)
    close(gradient[1], np.exp(-5) / 0.25 * (1 - np.exp(5)), 1e-12)


def test_the_weights_of_the_actor_are_known_numbers() -> None:
    """README claim 3."""
    weights = exponential_weights(th.tensor(Q - V), 10.0 / 2.0, 100.0)
    close(weights, [0.22018070, 100, 63.1232291, 0.00661432, 0.00968466, 100], 5e-8)
    model = make_agent(EQL)
    assert (model.weight_scale, model.alpha, model.max_weight) == (10.0, 2.0, 100.0)


@pytest.mark.parametrize(("alpha", "expected"), [(5.0, 0.28125657), (1.0, 0.80716477), (0.5, 1.19300178), (0.1, 1.81581493)])
def test_v_is_the_logarithm_of_the_mean_exponential(alpha: float, expected: float) -> None:
    """README claim 4."""
    close(alpha * np.log(np.exp(Q1 / alpha).mean()), expected, 5e-9)
    close(stationary(loss_at(alpha), -50, 50), expected, 5e-9)


def test_the_official_cut_has_false_zeros_and_v_that_falls_without_end() -> None:
    """README claim 2: three stable zeros and three unstable ones, of which the tangent has the right one alone."""
    official, ours = loss_at(0.1, official=True), loss_at(0.1)
    for zero in (-1.6908848, 0.65390974, 1.81581493):
        assert slope(official, zero - 1e-6) < 0 < slope(official, zero + 1e-6)
    for zero in (-2.13655422, -0.10266134, 1.49498997):
        assert slope(official, zero - 1e-6) > 0 > slope(official, zero + 1e-6)
    assert all(slope(official, v) > 0 for v in (-2.2, -3.0, -10.0, -1000.0))
    values = np.linspace(-10, 4, 400)
    assert ([slope(ours, v) > 0 for v in values] == (values > 1.81581493)).all()


# ---------------------------------------------------------------------- traps


def test_the_largest_exponent_has_no_gradient_and_scales_the_whole_batch_alike() -> None:
    x = (Q - V) / 2.0
    _, gradient = loss_and_gradient(loss_at(2.0))
    close(gradient, np.exp(-x.max()) / 2.0 * (1 - np.exp(x)), 1e-12)
    higher = Q.copy()
    higher[1] += 1.0  # the row with the largest exponent
    _, other = loss_and_gradient(loss_at(2.0), higher)
    rest = np.arange(6) != 1
    close(other[rest] / gradient[rest], np.full(5, np.exp(-0.5)), 1e-12)


def test_large_differences_leave_the_loss_finite() -> None:
    loss, gradient = loss_and_gradient(loss_at(0.1), 1e4 * Q, V)
    assert np.isfinite(loss) and np.isfinite(gradient).all() and gradient[1] < 0


@pytest.mark.parametrize("official", [False, True])
def test_a_large_share_of_cut_exponents_is_warned_of_once(official: bool) -> None:
    """README claim 5."""
    rng = np.random.default_rng(0)
    data = {
        "observations": rng.normal(size=(40, 3)),
        "actions": rng.uniform(-1, 1, (40, 2)),
        "rewards": np.full(40, 500.0),
        "next_observations": rng.normal(size=(40, 3)),
        "terminals": np.arange(40) % 2 == 1,
    }
    model = make_agent(EQL, reward_transform=None, official_clip=official, learning_rate=1e-2, tau=1.0, alpha=0.05)
    message = "only pushes V down" if official else "no longer alpha·log"
    with pytest.warns(UserWarning, match=f"exponent_clip=5: .*{message}.*raise alpha") as caught:
        model.learn_offline(data, 60, log_interval=20)
    assert len([one for one in caught if "exponent_clip" in str(one.message)]) == 1


@pytest.mark.filterwarnings("error:Up to update")
def test_a_small_share_is_not_warned_of() -> None:
    model = make_agent(EQL)
    model.watch({"exp_clipped_share": 0.19})
    model.watch({})


@pytest.mark.parametrize(("name", "value"), [("alpha", 0.0), ("exponent_clip", 0.0), ("weight_scale", -1.0)])
def test_values_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name}={value}"):
        make_agent(EQL, **{name: value})


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(AssertionError):
        exponential_value_loss(th.zeros(6), th.zeros(6, 1), 1.0, 5.0)
