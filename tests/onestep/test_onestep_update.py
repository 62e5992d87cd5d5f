"""The known numbers of Onestep, computed with the functions of its authors' code in double precision, and its traps."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import SPACES, close
from golden import A, B, counted, fill, golden_batch, normal, uniform

from sb3_genoffline.common.in_sample import exponential_weights
from sb3_genoffline.data.batches import SarsaBatch
from sb3_genoffline.errors import UserError
from sb3_genoffline.onestep import Onestep, OnestepNoise
from sb3_genoffline.onestep.fit import SarsaFit

pytestmark = pytest.mark.usefixtures("float64")
DRAWS = {"truncated": uniform, "normal": normal}


def sarsa_batch() -> SarsaBatch:
    return SarsaBatch(*golden_batch(), next_actions=0.9 * th.cos(3.0 + counted(B, A)))


def make_onestep(**settings: Any) -> Onestep:
    """With the weights of the known numbers."""
    model = Onestep("MlpPolicy", SPACES, seed=0, device="cpu", policy_kwargs={"net_arch": [32, 32]}, **settings)
    models = model.policy.behavior_and_q
    for network, shift in ((model.actor, 0.45), (models.behavior, 0.4), (models.critic, 0.2)):
        fill(network, shift)
    return model


def best_of(model: Onestep, states: th.Tensor, samples: th.Tensor) -> th.Tensor:
    policy = model.policy
    return samples[th.arange(len(states)), policy.choose(policy.candidate_values(states, samples))]


def candidates_of(draws: th.Tensor) -> th.Tensor:
    """(n, B, A), as the code counts them -> (B, n, A)"""
    return draws.transpose(0, 1)


def gradient_norm(model: Onestep) -> th.Tensor:
    return th.cat([parameter.grad.flatten() for parameter in model.actor.parameters()]).norm()  # type: ignore[union-attr]


# ---------------------------------------------------------------------- β̂ and Q


@pytest.mark.parametrize("distribution", ["truncated", "normal"])
def test_the_likelihood_of_the_data_is_a_known_number(distribution: str) -> None:
    """README claim 1."""
    model, batch = make_onestep(distribution=distribution), sarsa_batch()
    behavior = model.policy.behavior_and_q.behavior.distribution(batch.observations)
    close(behavior.mean[0], [-0.38216018, -0.32723502], 5e-9)
    close(behavior.std[0], [0.04774355, 0.07059490], 5e-9)
    close(-behavior.log_prob(batch.actions).mean(), 82.81910896, 5e-9)


def sarsa_fit(model: Onestep) -> SarsaFit:
    fit = SarsaFit(3, model.policy, sarsa_batch, 1e-4, gamma=0.99, tau=0.005, target_update_interval=2)
    fill(fit.critic_target, 0.25)
    return fit


def test_q_follows_the_datas_next_action_and_its_slow_copy_every_second_step() -> None:
    """README claims 2 and 3."""
    model, batch = make_onestep(), sarsa_batch()
    fit, q = sarsa_fit(model), model.policy.behavior_and_q.q
    close(q(batch.observations, batch.actions), [-0.45652578, 0.07669198, 0.04040273, -0.12052824], 5e-9)
    next_q = fit.critic_target(batch.next_observations, batch.next_actions)[0]
    target = batch.rewards + 0.99 * batch.masks * next_q
    close(target, [0.46073741, 0.23676299, -0.41614684, -1.52493711], 5e-9)
    close(target[2], math.cos(2), 1e-15)  # the end of an episode
    start = fit.critic_target(batch.observations, batch.actions)
    losses = []
    for step in range(2):
        assert th.equal(start, fit.critic_target(batch.observations, batch.actions)), step
        losses.append(fit.update()["loss"])
        fit.step += 1
    close(losses, [0.76194906, 0.75785747], 5e-9)
    slow = fit.critic_target(batch.observations, batch.actions)[0]
    close(slow, [-0.50961505, 0.08313453, 0.00939927, -0.16749602], 5e-9)
    close(q(batch.observations, batch.actions), [-0.44936096, 0.07640798, 0.03634320, -0.12623297], 5e-9)


def test_no_policy_plays_a_part_in_q() -> None:
    """README claim 2."""
    models = [make_onestep(), make_onestep()]
    fill(models[1].actor, 3.0)
    fill(models[1].policy.behavior_and_q.behavior, 5.0)
    assert th.equal(*(sarsa_fit(model).update()["loss"] for model in models))


# ---------------------------------------------------------------------- the one step


@pytest.mark.parametrize(
    ("distribution", "expected", "norm"),
    [
        ("truncated", [0.26425767, 0.13562554, -0.22357001], 2.94665449),
        ("normal", [0.26271615, 0.13770840, -0.22140363], 3.00285388),
    ],
)
def test_reverse_kl_and_its_gradient_are_known_numbers(distribution: str, expected: list[float], norm: float) -> None:
    """README claim 4: the gradient passes through the samples and both densities."""
    model, draw = make_onestep(distribution=distribution, alpha=0.3), DRAWS[distribution]
    before = th.nn.utils.parameters_to_vector(model.actor.parameters()).detach().clone()
    info = model.step(sarsa_batch(), OnestepNoise(draw((B, A), 2), candidates_of(draw((10, B, A), 3))))
    close([info["actor_loss"], info["kl"], info["actor_q"]], expected, 5e-9)
    close(gradient_norm(model), norm, 5e-9)
    moved = th.nn.utils.parameters_to_vector(model.actor.parameters()).detach() - before
    close(moved.abs().max(), 1e-4, 1e-8)  # Adam's first step


@pytest.mark.parametrize(
    ("distribution", "weights", "loss"),
    [
        ("truncated", [1.00360356, 1.78862502, 3.75925866, 0.68206482], 173.92781209),
        ("normal", [1.00233750, 1.79124047, 3.75898083, 0.68230840], 173.93906453),
    ],
)
def test_exponential_weights_are_known_numbers(distribution: str, weights: list[float], loss: float) -> None:
    """README claim 5: V is Q of β̂'s samples."""
    model, batch = make_onestep(distribution=distribution, improvement="exp_weight", temperature=3.0), sarsa_batch()
    draws = candidates_of(DRAWS[distribution]((10, B, A), 4))
    models = model.policy.behavior_and_q
    values = models.q(batch.observations, models.behavior.distribution(batch.observations).sample(draws)).mean(1)
    if distribution == "truncated":
        close(values, [-0.45772480, -0.11712374, -0.40100453, 0.00701529], 5e-9)
    found = exponential_weights(models.q(batch.observations, batch.actions) - values, 3.0, 100.0)
    close(found, weights, 5e-9)
    info = model.step(batch, OnestepNoise(None, draws))
    close(info["actor_loss"], loss, 5e-9)
    close([info["weight_mean"], info["v_mean"]], [np.mean(weights), values.mean()], 5e-9)


def test_actions_at_the_bounds_count_as_a_little_within_them() -> None:
    """Difference 6."""
    model, batch = make_onestep(improvement="exp_weight", temperature=0.0), sarsa_batch()
    batch = batch._replace(actions=batch.actions.sign())
    expected = -model.actor.distribution(batch.observations).log_prob(batch.actions * (1 - 1e-4)).mean().detach()
    info = model.step(batch, OnestepNoise(None, candidates_of(DRAWS["truncated"]((10, B, A), 4))))
    close(info["actor_loss"], expected, 5e-9)


@pytest.mark.parametrize(
    ("temperature", "advantage", "weight"),
    [(0.1, 5, 1.64872127), (3, 1, 20.08553692), (3, 2, 100), (30, 0.2, 100), (10, -0.3, 0.04978707)],
)
def test_a_weight_is_the_exponential_of_the_advantage_up_to_100(temperature: float, advantage: float, weight: float) -> None:
    """README claim 5."""
    close(exponential_weights(th.tensor(float(advantage)), temperature, 100.0), weight, 5e-9)


def test_weights_that_bite_at_the_largest_are_counted() -> None:
    close(math.log(100) / 3, 1.53505673, 5e-9)
    model = make_onestep(improvement="exp_weight", temperature=3.0, max_weight=1.1)
    info = model.step(sarsa_batch(), OnestepNoise(None, candidates_of(uniform((10, B, A), 4))))
    close(info["clipped_share"], 0.5, 1e-15)


def test_a_temperature_of_zero_imitates() -> None:
    """README claim 5."""
    model, batch = make_onestep(improvement="exp_weight", temperature=0.0), sarsa_batch()
    likelihood = model.actor.distribution(batch.observations).log_prob(batch.actions).mean()
    info = model.step(batch, model.draw_noise(B))
    close(info["actor_loss"], -likelihood, 1e-12)


def test_the_best_of_ten_samples_of_behaviour_is_a_known_action() -> None:
    """README claim 6."""
    model, batch = make_onestep(improvement="easy_bcq"), sarsa_batch()
    behavior = model.policy.behavior_and_q.behavior
    samples = behavior.distribution(batch.observations).sample(candidates_of(uniform((10, B, A), 6)))
    best = [[-0.45829848, -0.36061128], [-0.13026497, -0.07970518], [-0.13332534, -0.02011659], [-0.00742635, -0.04998941]]
    close(best_of(model, batch.observations, samples), best, 5e-9)
    alone = behavior.distribution(batch.observations[:1]).sample(uniform((1, 10, A), 6))
    close(best_of(model, batch.observations[:1], alone), [[-0.44544798, -0.33781363]], 5e-9)


def test_with_easy_bcq_an_update_measures_and_moves_nothing() -> None:
    model, batch = make_onestep(improvement="easy_bcq"), sarsa_batch()
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    noise = model.draw_noise(B)
    info, models = model.step(batch, noise), model.policy.behavior_and_q
    samples = models.behavior.distribution(batch.observations).sample(noise.samples)
    chosen = best_of(model, batch.observations, samples)
    close(info["chosen_q"], models.q(batch.observations, chosen).mean(), 1e-12)
    assert all(th.equal(tensor, before[name]) for name, tensor in model.policy.state_dict().items())


def test_two_critics_count_by_the_smaller() -> None:
    model: Any = Onestep("MlpPolicy", SPACES, policy_kwargs={"net_arch": [8], "n_critics": 2}, seed=0, device="cpu")
    models, batch = model.policy.behavior_and_q, sarsa_batch()
    models.critic.output_layer.bias.data[0] -= 0.35
    both = models.critic(batch.observations, batch.actions)
    assert (both[0] < both[1]).any() and (both[0] > both[1]).any()
    close(models.q(batch.observations, batch.actions), both.amin(0), 1e-15)


@pytest.mark.parametrize(("name", "value"), [("improvement", "bc"), ("alpha", -1.0), ("n_action_samples", 0)])
def test_values_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{name}={value!r}"):
        make_onestep(**{name: value})
