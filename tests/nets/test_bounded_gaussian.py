"""The normal that is truncated to the box, the plain one, and the actor whose σ is bounded."""

import math

import numpy as np
import pytest
import torch as th
from exact import close

from sb3_genoffline.nets.bounded_gaussian import BoundedGaussianActor, Normal, TruncatedNormal

double = pytest.mark.usefixtures("float64")
KNOWN = [  # μ, σ, an action; its log-density, the expectation, the quartile
    (0.3, 0.5, -0.8, -2.55650337, 0.22557011, -0.06400011),
    (0.9, 0.2, 0.99, 0.95819579, 0.79816791, 0.71141968),
    (-0.99, math.exp(-5), -1.0, 3.05111282, -0.98904030, -0.99350115),
]


def one(cls: type[Normal], mean: float, std: float) -> Normal:
    return cls(th.tensor([[mean]]), th.tensor([[std]]))


@double
@pytest.mark.parametrize(("mean", "std", "action", "log_density", "expected", "quartile"), KNOWN)
def test_density_mean_and_quartile_of_the_truncated_normal_are_known_numbers(
    mean: float, std: float, action: float, log_density: float, expected: float, quartile: float
) -> None:
    normal = one(TruncatedNormal, mean, std)
    close(normal.log_prob(th.tensor([[action]])), [log_density], 5e-9)
    close(normal.expectation(), [[expected]], 5e-9)
    close(normal.sample(th.tensor([[0.25]])), [[quartile]], 5e-9)


@double
def test_the_plain_normal_has_no_normaliser_of_its_box() -> None:
    normal = one(Normal, 0.3, 0.5)
    close(normal.log_prob(th.tensor([[-0.8]])), [-2.64579135], 5e-9)
    close(normal.expectation(), [[0.3]], 0)
    close(normal.sample(th.tensor([[-2.0]])), [[-0.7]], 1e-15)


@double
def test_the_truncated_density_integrates_to_one_and_samples_follow_it() -> None:
    grid = th.linspace(-1, 1, 20_001)
    for mean, std, *_ in KNOWN[:2]:
        normal = one(TruncatedNormal, mean, std)
        density = normal.log_prob(grid[None, :, None]).exp().squeeze()
        close(th.trapezoid(density, grid), 1.0, 1e-6)
        samples = normal.sample((th.arange(10_000) + 0.5)[None, :, None] / 10_000).flatten()
        close(samples.mean(), normal.expectation().item(), 1e-4)
        close(samples.square().mean(), th.trapezoid(density * grid**2, grid), 1e-3)


@double
def test_the_divergence_of_samples_is_the_closed_form_one_way_round() -> None:
    first, second = one(Normal, 0.1, 0.2), one(Normal, 0.3, 0.5)
    samples = first.sample(th.special.ndtri((th.arange(10_000) + 0.5) / 10_000)[None, :, None])
    close((first.log_prob(samples) - second.log_prob(samples)).mean(), 0.57629073, 1e-3)


@double
def test_samples_are_differentiable_in_mean_and_std() -> None:
    mean, std = th.tensor([[0.3]], requires_grad=True), th.tensor([[0.5]], requires_grad=True)
    for draw in (0.02, 0.25, 0.7, 0.999):
        draws = th.tensor([[draw]])
        assert th.autograd.gradcheck(lambda m, s, d=draws: TruncatedNormal(m, s).sample(d), (mean, std))  # type: ignore[misc]


@pytest.mark.parametrize("mean", [-1.0, -0.3, 0.999, 1.0])
@pytest.mark.parametrize("std", [math.exp(-5), 0.2, 1.0])
def test_in_single_precision_samples_stay_in_the_box_with_finite_gradients(mean: float, std: float) -> None:
    mu, sigma = th.tensor([[mean]], requires_grad=True), th.tensor([[std]], requires_grad=True)
    normal = TruncatedNormal(mu, sigma)
    draws = th.tensor([0.0, 1e-7, 0.5, 1 - 2**-24])[None, :, None]
    samples = normal.sample(draws)
    assert samples.abs().max() <= 1.0 and normal.expectation().abs() <= 1.0
    edges = normal.log_prob(th.tensor([-1.0, 1.0])[None, :, None])
    gradients = th.autograd.grad(samples.sum() + normal.expectation().sum() + edges.sum(), (mu, sigma))
    assert all(gradient.isfinite().all() for gradient in gradients) and edges.isfinite().all()
    if std > 0.1:  # the order of draws is that of samples
        assert (samples.diff(dim=1) >= 0).all() and samples[0, 0] < samples[0, -1]


@double
def test_the_actors_std_is_bounded_by_a_tanh_not_by_a_clamp() -> None:
    actor = BoundedGaussianActor(3, 2, [])
    layer = actor.net[0]
    assert isinstance(layer, th.nn.Linear)
    layer.weight.data.zero_()
    for raw, log_std in ((0.0, -2.5), (1.0, -0.59601461), (-50.0, -5.0), (50.0, 0.0)):
        layer.bias.data = th.tensor([0.7, -0.2, raw, raw])
        normal = actor.distribution(th.zeros(1, 3))
        close(normal.std.log(), [[log_std, log_std]], 5e-9)
        close(normal.mean, [np.tanh([0.7, -0.2])], 1e-15)
    layer.bias.data = th.zeros(4)
    close(actor.distribution(th.zeros(1, 3)).std, [[0.08208500] * 2], 5e-9)


@double
@pytest.mark.parametrize("truncated", [True, False])
def test_several_samples_of_a_state_are_each_its_own(truncated: bool) -> None:
    actor = BoundedGaussianActor(3, 2, [5], truncated=truncated)
    states, draws = th.randn(4, 3), actor.draws(4, 6, 2, generator=th.Generator().manual_seed(0))
    normal = actor.distribution(states)
    assert (draws.min() >= 0 and draws.max() < 1) == truncated
    together, apart = normal.sample(draws), [normal.sample(draws[:, n]) for n in range(6)]
    close(together, th.stack(apart, 1), 0)
    close(normal.log_prob(together), th.stack([normal.log_prob(x) for x in apart], 1), 1e-13)
