"""What the densities learn of the two-mode bandit (CPED's README, claims 6, 7, 10 and 11)."""

import math

import pytest
import torch as th
from toy_world import ACTION_DIM, MEAN_NLL, STATE_DIM, draw_behaviour, draw_unsupported, fit, true_log_prob

from sb3_genoffline.generative.behavior import Density
from sb3_genoffline.generative.flow import FlowName, make_density
from sb3_genoffline.generative.flow_gan import Discriminator, FlowGAN


def make(flow: FlowName, n_transforms: int | None = None) -> Density:
    th.manual_seed(0)
    return make_density(flow, STATE_DIM, ACTION_DIM, net_arch=(64, 64), n_transforms=n_transforms)


@th.no_grad()
def nll(density: Density, states: th.Tensor, actions: th.Tensor) -> th.Tensor:
    return -density.log_prob(states, actions)


def test_the_toys_behaviour_has_the_likelihood_it_is_said_to_have_and_unsupported_actions_do_not() -> None:
    held_out = -true_log_prob(*draw_behaviour(100_000, seed=1))
    assert float(held_out.mean()) == pytest.approx(MEAN_NLL, abs=0.02)
    unsupported = -true_log_prob(*draw_unsupported(1000, seed=2))
    assert unsupported.min() > MEAN_NLL + 0.5 * 4**2 - 1.01 > held_out.quantile(0.99)  # one nat is the mean of ½·(a/σ)²


@pytest.mark.slow
@pytest.mark.parametrize(("flow", "largest_mean_nll"), [("spline", 20), ("affine", 1000)])
def test_likelihood_separates_behaviour_from_the_rest_and_stays_bounded(flow: FlowName, largest_mean_nll: float) -> None:
    density = fit(make(flow), *draw_behaviour(100_000, seed=0))
    states, actions = draw_behaviour(2000, seed=1)
    behaviour = nll(density, states, actions)
    unsupported = nll(density, *draw_unsupported(3000, seed=2))
    assert float(behaviour.mean()) < MEAN_NLL + 0.5
    assert (unsupported[:, None] > behaviour[None, :]).float().mean() >= 0.97  # area under the ROC curve
    assert (unsupported < behaviour.quantile(0.95)).float().mean() <= 0.07
    assert nll(density, states, th.zeros_like(actions)).mean() > behaviour.mean() + 1  # between the modes
    assert behaviour.mean() < unsupported.mean() < largest_mean_nll


@pytest.mark.slow
def test_a_density_that_knows_the_state_beats_one_that_does_not() -> None:
    states, actions = draw_behaviour(100_000, seed=0)
    held_states, held_actions = draw_behaviour(10_000, seed=1)
    informed = fit(make("affine"), states, actions, n_steps=600)
    blind = fit(make("affine"), th.zeros_like(states), actions, n_steps=600)
    gain = nll(blind, th.zeros_like(held_states), held_actions).mean() - nll(informed, held_states, held_actions).mean()
    assert gain > 0.5


@pytest.mark.slow
def test_the_official_density_learns_but_under_fits() -> None:
    states, actions = draw_behaviour(100_000, seed=0)
    before = nll(make("nice"), states[:5000], actions[:5000]).mean()
    after = nll(fit(make("nice"), states, actions), states[:5000], actions[:5000]).mean()
    state_entropy = 0.693  # of U(−1, 1): the joint density pays for the states too
    assert MEAN_NLL + state_entropy + 1 < after < before - 0.5


@pytest.mark.slow
def test_noise_sets_a_floor_under_the_nll_of_saturated_actions() -> None:
    """The floor is the entropy of the noise."""
    states, _ = draw_behaviour(5000, seed=0)
    saturated = th.ones(5000, 1)
    reached = {}
    for width in (0.0, 0.01):
        th.manual_seed(0)
        density = fit(make_density("affine", STATE_DIM, 1, net_arch=(64, 64)), states, saturated, n_steps=600, width=width)
        actions = density.dequantise(saturated, width, th.Generator().manual_seed(1))
        reached[width] = float(nll(density, states, actions).mean())
    floor = math.log(0.02)
    assert reached[0.0] < floor - 0.5
    assert floor <= reached[0.01] < floor + 1


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["affine", "nice"])
def test_the_adversarial_term_leaves_the_likelihood_about_where_it_is(flow: FlowName) -> None:
    states, actions = draw_behaviour(100_000, seed=0)
    reached = {}
    for adv_weight in (0.0, 1.0):
        density, discriminator = make(flow), Discriminator(STATE_DIM + ACTION_DIM, net_arch=(64, 64))
        gan, generator = FlowGAN(adv_weight=adv_weight), th.Generator().manual_seed(0)
        flow_optimizer = th.optim.Adam(density.parameters(), lr=3e-4)
        critic_optimizer = th.optim.Adam(discriminator.parameters(), lr=1e-4, betas=(0.5, 0.9))
        for _ in range(600):
            rows = th.randint(len(states), (256,), generator=generator)
            noise = gan.draw_noise(density, 256, generator)
            if adv_weight:
                loss, _ = gan.discriminator_loss(discriminator, density, states[rows], actions[rows], noise)
                critic_optimizer.zero_grad()
                loss.backward()
                critic_optimizer.step()
            loss, _ = gan.flow_loss(discriminator, density, states[rows], actions[rows], noise)
            flow_optimizer.zero_grad()
            loss.backward()
            flow_optimizer.step()
        reached[adv_weight] = float(nll(density, *draw_behaviour(10_000, seed=1)).mean())
    assert reached[1.0] == pytest.approx(reached[0.0], abs=0.15)
