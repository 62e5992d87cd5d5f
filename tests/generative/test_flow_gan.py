"""The adversarial side of a flow-GAN: divergences, gradient penalty, who gets gradients (CPED's README, claims 9, 10)."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch as th
from torch import Tensor, nn

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.behavior import Density
from sb3_genoffline.generative.flow import make_density
from sb3_genoffline.generative.flow_gan import (
    REAL_LABEL,
    Discriminator,
    FlowGAN,
    discriminator_divergence,
    generator_divergence,
    gradient_penalty,
)

STATE_DIM, ACTION_DIM, N_ROWS = 3, 2, 16
DIVERGENCES: list[Any] = ["wgan", "ce", "hellinger", "rkl", "kl", "tv", "lsgan"]

# Two distributions over three outcomes, as ten draws each.
DATA, SAMPLES = [0] * 5 + [1] * 3 + [2] * 2, [0] * 2 + [1] * 2 + [2] * 6
P, Q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
KL, REVERSE_KL = float(P @ np.log(P / Q)), float(Q @ np.log(Q / P))
JS = float(P @ np.log(2 * P / (P + Q)) + Q @ np.log(2 * Q / (P + Q))) / 2
BEST = {  # divergence: best scores of the outcomes, loss there
    "ce": (np.log(P / Q), math.log(4) - 2 * JS),
    "hellinger": (np.log(P / Q) / 2, -float(((np.sqrt(P) - np.sqrt(Q)) ** 2).sum())),
    "rkl": (np.log(P / Q), -REVERSE_KL),
    "kl": (1 + np.log(P / Q), -KL),
    "tv": (20 * np.sign(P - Q), -float(np.abs(P - Q).sum()) / 2),
    "lsgan": (REAL_LABEL * P / (P + Q), float((REAL_LABEL**2 / 2 * P * Q / (P + Q)).sum())),
}


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    th.set_default_dtype(th.float64)
    yield
    th.set_default_dtype(th.float32)


def generator(seed: int = 0) -> th.Generator:
    return th.Generator().manual_seed(seed)


def make(flow: Any = "spline", n_scores: int = 1) -> tuple[Density, Discriminator]:
    th.manual_seed(0)
    density = make_density(flow, STATE_DIM, ACTION_DIM, net_arch=(16,), n_transforms=2)
    density.set_state_statistics(th.tensor([1.0, 0.0, -1.0]), th.tensor([2.0, 0.5, 1.0]))
    return density, Discriminator(STATE_DIM + ACTION_DIM, n_scores=n_scores)


def draw() -> tuple[Tensor, Tensor]:
    return th.randn(N_ROWS, STATE_DIM, generator=generator(1)), 2 * th.rand(N_ROWS, ACTION_DIM, generator=generator(2)) - 1


# ---------------------------------------------------------------------- divergences


@pytest.mark.parametrize("divergence", BEST)
def test_at_the_best_scores_the_loss_is_the_divergence_and_no_other_scores_do_better(divergence: Any) -> None:
    scores, expected = BEST[divergence]
    best = th.as_tensor(scores)
    assert float(discriminator_divergence(divergence, best[DATA], best[SAMPLES])) == pytest.approx(expected, abs=1e-12)
    for _ in range(20):
        other = best + 0.3 * th.randn(3, generator=generator(3))
        assert float(discriminator_divergence(divergence, other[DATA], other[SAMPLES])) > expected - 1e-12


def test_the_wasserstein_loss_is_the_difference_of_the_mean_scores() -> None:
    loss = discriminator_divergence("wgan", th.tensor([[1.0, 3.0], [0.0, 0.0]]), th.tensor([[0.5, 0.5], [0.0, 1.0]]))
    assert float(loss) == -0.5
    assert float(generator_divergence("wgan", th.tensor([2.0, 4.0]))) == -3


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_discriminator_raises_scores_of_data_and_the_flow_those_of_its_samples(divergence: Any) -> None:
    real, fake = th.tensor([0.2, -0.4], requires_grad=True), th.tensor([0.5, -0.3], requires_grad=True)
    by_real, by_fake = th.autograd.grad(discriminator_divergence(divergence, real, fake), (real, fake))
    assert (by_real < 0).all()
    assert (by_fake * (fake.sign() if divergence == "lsgan" else 1) > 0).all()  # least squares pulls them to 0
    (by_fake,) = th.autograd.grad(generator_divergence(divergence, fake), fake)
    assert (by_fake < 0).all()


# ---------------------------------------------------------------------- gradient penalty


@pytest.mark.parametrize(("norm", "expected"), [(1.0, 0.0), (3.0, 4.0), (0.0, 1.0)])
def test_the_penalty_of_a_linear_critic_is_its_squared_distance_from_unit_slope(norm: float, expected: float) -> None:
    slope = norm * th.tensor([0.6, 0.0, -0.8])
    real, fake, weights = (th.randn(8, n, generator=generator(n)) for n in (3, 3, 1))
    penalty = gradient_penalty(lambda x: (x @ slope).unsqueeze(-1), real, fake, weights)
    assert float(penalty) == pytest.approx(expected, abs=1e-12)


def test_the_penalty_looks_between_sample_and_data() -> None:
    """The slope of ‖x‖²/2 at x is x, so that the penalty tells where it looked."""
    real, fake = th.tensor([[3.0, 4.0]]), th.tensor([[0.0, 0.0]])
    for weight, norm in [(1.0, 5.0), (0.0, 0.0), (0.4, 2.0)]:
        penalty = gradient_penalty(lambda x: 0.5 * x.square().sum(-1), real, fake, th.tensor([[weight]]))
        assert float(penalty.detach()) == pytest.approx((norm - 1) ** 2, abs=1e-12)


def test_the_penalty_leaves_out_columns_that_are_fixed_and_sums_a_vector_of_scores() -> None:
    slopes = th.tensor([[100.0, 0.3, 0.0], [-7.0, 0.3, 0.8]])  # together (…, 0.6, 0.8)
    penalty = gradient_penalty(lambda x: x @ slopes.T, th.ones(4, 3), th.zeros(4, 3), th.ones(4, 1), n_fixed=1)
    assert float(penalty) == pytest.approx(0, abs=1e-12)


# ---------------------------------------------------------------------- the hybrid loss


@pytest.mark.parametrize("flow", ["spline", "affine", "nice"])
def test_without_an_adversarial_weight_the_loss_is_the_likelihood_alone(flow: Any) -> None:
    density, _ = make(flow)
    states, actions = draw()
    loss, info = FlowGAN(adv_weight=0).flow_loss(None, density, states, actions, None)
    expected = -density.log_prob(states, actions).mean()
    assert th.equal(loss, expected) and th.equal(info["nll"], loss) and info.keys() == {"nll"}
    for mine, pure in zip(*(th.autograd.grad(it, list(density.parameters())) for it in (loss, expected)), strict=True):
        assert th.equal(mine, pure)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("flow", ["spline", "nice"])
def test_each_side_gets_the_gradients_of_its_own_step_only(flow: Any, divergence: Any) -> None:
    density, discriminator = make(flow)
    gan = FlowGAN(divergence)
    noise = gan.draw_noise(density, N_ROWS, generator())

    gan.discriminator_loss(discriminator, density, *draw(), noise)[0].backward()
    assert all(parameter.grad is None for parameter in density.parameters())
    assert all(parameter.grad is not None for parameter in discriminator.parameters())

    discriminator.zero_grad()
    loss, info = gan.flow_loss(discriminator, density, *draw(), noise)
    assert float(loss.detach()) == pytest.approx(float(info["nll"] + info["adversarial"]), abs=1e-12)
    loss.backward()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in discriminator.parameters())
    assert all(parameter.grad is not None for parameter in density.parameters())


@pytest.mark.parametrize("flow", ["spline", "affine", "nice"])
def test_the_adversarial_term_differentiates_through_the_inverse_of_the_flow(flow: Any) -> None:
    density, discriminator = make(flow)
    states, actions = draw()
    noise = FlowGAN().draw_noise(density, N_ROWS, generator())
    adversarial = FlowGAN(adv_weight=3.0).flow_loss(discriminator, density, states, actions, noise)[0]
    adversarial = adversarial + density.log_prob(states, actions).mean()
    parameters = list(density.parameters())
    gradients = th.autograd.grad(adversarial, parameters)
    directions = [th.randn(parameter.shape, generator=generator(5)) for parameter in parameters]
    expected = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))

    @th.no_grad()
    def moved(step: float) -> Tensor:
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.add_(step * direction)
        return -3 * discriminator(density.pair(*density.decode(states, noise.latents))).mean()

    h = 1e-6
    slope = (moved(h) - moved(-2 * h)) / (2 * h)
    assert float(slope) == pytest.approx(float(expected), rel=1e-4)
    assert abs(float(expected)) > 1e-6


class Recorder(Discriminator):
    """Keeps what it is shown."""

    def forward(self, pairs: Tensor) -> Tensor:
        self.__dict__.setdefault("seen", []).append(pairs.detach())
        return super().forward(pairs)


def shown(flow: Any, gan: FlowGAN) -> list[Tensor]:
    density, _ = make(flow)
    recorder = Recorder(STATE_DIM + ACTION_DIM)
    noise = gan.draw_noise(density, N_ROWS, generator())
    gan.discriminator_loss(recorder, density, *draw(), noise)
    return recorder.seen  # type: ignore[return-value]


def test_the_discriminator_compares_actions_at_the_same_standardised_states_unless_the_density_is_joint() -> None:
    states, actions = draw()
    standardised = (states - th.tensor([1.0, 0.0, -1.0])) / th.tensor([2.0, 0.5, 1.0])
    real, fake, mixed = shown("spline", FlowGAN())
    np.testing.assert_allclose(real, th.cat([standardised, actions], dim=-1))
    for pairs in (fake, mixed):
        np.testing.assert_allclose(pairs[:, :STATE_DIM], standardised)
    assert not th.isclose(fake[:, STATE_DIM:], actions).any()
    _, fake, _ = shown("nice", FlowGAN())
    assert not th.isclose(fake, real).any()


def test_noise_on_the_data_reaches_the_data_alone() -> None:
    clean_real, clean_fake, _ = shown("spline", FlowGAN())
    noisy_real, noisy_fake, _ = shown("spline", FlowGAN(instance_noise=1.0))
    assert th.equal(clean_fake, noisy_fake)
    assert 0.7 < float((noisy_real - clean_real).std()) < 1.3


def test_the_noise_of_a_loss_is_the_generators_and_new_each_time() -> None:
    density, discriminator = make()
    gan = FlowGAN(interpolation="normal", instance_noise=1.0)
    before = th.get_rng_state()
    source = generator()
    first, second = gan.draw_noise(density, N_ROWS, source), gan.draw_noise(density, N_ROWS, source)
    again = gan.draw_noise(density, N_ROWS, generator())
    for a, b, c in zip(first, second, again, strict=True):
        assert th.equal(a, c) and not th.equal(a, b)
    losses = [gan.discriminator_loss(discriminator, density, *draw(), noise)[0] for noise in (first, again, second)]
    assert losses[0] == losses[1] != losses[2]
    assert th.equal(th.get_rng_state(), before)


def test_interpolation_is_uniform_unless_the_official_code_is_asked_for() -> None:
    density, _ = make()
    uniform = FlowGAN().draw_noise(density, 2000, generator()).weights
    assert uniform.shape == (2000, 1) and 0 <= uniform.min() < 0.01 and 0.99 < uniform.max() <= 1
    normal = FlowGAN.official().draw_noise(density, 2000, generator()).weights
    assert normal.min() < -2 and float(normal.std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("gan", "gp_weight"), [(FlowGAN(), 10.0), (FlowGAN.official(), 0.5)])
def test_the_critics_loss_is_the_gap_and_the_weighted_penalty(gan: FlowGAN, gp_weight: float) -> None:
    density, discriminator = make("nice", n_scores=STATE_DIM + ACTION_DIM)
    noise = gan.draw_noise(density, N_ROWS, generator())
    loss, info = gan.discriminator_loss(discriminator, density, *draw(), noise)
    assert float(loss.detach()) == pytest.approx(float(gp_weight * info["gradient_penalty"] - info["score_gap"]), abs=1e-12)
    assert info["gradient_penalty"] > 0.1  # of a critic with slopes near 0


def test_the_official_discriminator_widens_twice_and_scores_every_coordinate() -> None:
    discriminator = Discriminator(14, n_scores=14)
    widths = [layer.out_features for layer in discriminator.net if isinstance(layer, nn.Linear)]
    assert widths == [28, 56, 14]
    hidden, last = discriminator.net[0], discriminator.net[-1]
    assert (hidden.bias == 0.1).all() and 0.15 < hidden.weight.abs().max() <= 28**-0.5
    assert last.weight.abs().max() <= 3e-3
    normalised = discriminator.net[1](th.randn(5, 28))
    np.testing.assert_allclose(normalised.detach().mean(-1), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"divergence": "mmd"}, "divergence='mmd' is not known"),
        ({"interpolation": "none"}, "interpolation='none' is not known"),
        ({"adv_weight": -1.0}, r"adv_weight=-1.0 must not be negative"),
        ({"gp_weight": math.nan}, "gp_weight=nan must not be negative"),
    ],
)
def test_unusable_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FlowGAN(**arguments)


def test_an_adversarial_weight_without_a_discriminator_is_refused() -> None:
    density, _ = make()
    with pytest.raises(ValueError, match=r"adv_weight=1.0 needs a discriminator"):
        FlowGAN().flow_loss(None, density, *draw(), None)
