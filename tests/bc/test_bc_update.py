"""One update of behaviour cloning in float64 against numbers computed with numpy, and how its actor acts."""

import numpy as np
import pytest
import torch as th
from exact import (
    SPACES,
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
    standardised,
    weights_of,
)

from sb3_genoffline import BC


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("gaussian", [False, True])
def test_one_update_descends_the_error_or_the_likelihood_of_the_datas_actions(gaussian: bool) -> None:
    model, batch = make_agent(BC, gaussian=gaussian, learning_rate=1e-2), make_batch()
    states, actions = standardised(batch.observations), batch.actions.numpy()

    def loss(actor: Weights) -> float:
        if gaussian:
            return float(-log_normal(actor, states, actions).mean())
        return float(((np.tanh(mlp(actor, states)) - actions) ** 2).mean())

    before = weights_of(model.actor)
    gradient = numeric_gradient(before, loss)
    info = model.step(batch, None)
    assert_close(info["actor_loss"], loss(before))
    assert_close(gradient_of(model.actor), gradient)
    assert_close(flat(weights_of(model.actor)), adam_first_step(before, gradient, 1e-2), atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_rewards_ends_and_next_states_play_no_part() -> None:
    batch, other = make_batch(), make_batch(1)
    mixed = batch._replace(rewards=other.rewards, next_observations=other.next_observations, masks=other.masks * 0)
    first, second = make_agent(BC), make_agent(BC)
    first.step(batch, None)
    second.step(mixed, None)
    assert_close(flat(weights_of(first.actor)), flat(weights_of(second.actor)), rtol=0, atol=0)


@pytest.mark.parametrize(("gaussian", "std"), [(False, 0.1), (True, 0.03)])
def test_sampled_actions_spread_around_the_deterministic_one(gaussian: bool, std: float) -> None:
    model = BC("BCPolicy", SPACES, gaussian=gaussian, seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    if gaussian:
        model.actor.log_std.data.fill_(np.log(std))  # type: ignore[union-attr]
    observations = np.tile(np.float32([0.1, 0.2, -0.3]), (4000, 1))
    mean, sampled = (model.predict(observations, deterministic=flag)[0] for flag in (True, False))
    assert (mean == mean[0]).all()
    assert np.abs(sampled.mean(0) - mean[0]).max() < 0.01
    assert sampled.std(0) == pytest.approx([std, std], rel=0.06)
    assert th.equal(model.policy.actor(th.as_tensor(observations[:1]))[0], th.as_tensor(mean[0]))
