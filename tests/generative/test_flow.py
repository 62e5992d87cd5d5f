"""The densities of behaviour: one battery over all of them, then what each promises (CPED's claims 1–7 and 11)."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch as th
from torch import Tensor

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.behavior import Base, Density
from sb3_genoffline.generative.flow import make_density

DENSITIES: dict[str, dict[str, Any]] = {
    "spline": {"flow": "spline"},
    "affine": {"flow": "affine"},
    "spline in the box, uniform base": {"flow": "spline", "squash": "logistic"},
    "affine in the box, normal base": {"flow": "affine", "squash": "normal"},
    "nice": {"flow": "nice"},
    "nice of three couplings": {"flow": "nice", "n_transforms": 3},
}
IN_THE_BOX = [name for name, arguments in DENSITIES.items() if "squash" in arguments]
CONDITIONAL = [name for name, arguments in DENSITIES.items() if arguments["flow"] != "nice"]


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    th.set_default_dtype(th.float64)
    yield
    th.set_default_dtype(th.float32)


def make(name: str, state_dim: int = 3, action_dim: int = 2, spread: float = 0.3) -> Density:
    """A density whose parameters, scales included, and state statistics are all far from their first values."""
    th.manual_seed(0)
    density = make_density(state_dim=state_dim, action_dim=action_dim, net_arch=(16, 16), **DENSITIES[name])
    with th.no_grad():
        for parameter in density.parameters():
            parameter.normal_(std=spread)
    density.set_state_statistics(th.linspace(-1, 2, state_dim), th.linspace(0.5, 2, state_dim))
    return density


def draw(state_dim: int = 3, action_dim: int = 2, n_rows: int = 16) -> tuple[Tensor, Tensor]:
    generator = th.Generator().manual_seed(1)
    return th.randn(n_rows, state_dim, generator=generator), 1.8 * th.rand(n_rows, action_dim, generator=generator) - 0.9


def generator(seed: int = 0) -> th.Generator:
    return th.Generator().manual_seed(seed)


def close(actual: Any, expected: Any, tolerance: float = 1e-8) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=tolerance)


def identity(squash: Any = None) -> Density:
    """A conditional flow that leaves actions as they are."""
    density = make_density("spline", 1, 2, net_arch=(4,), squash=squash)
    with th.no_grad():
        for parameter in density.parameters():
            parameter.zero_()
    return density


# ---------------------------------------------------------------------- one battery


@pytest.mark.parametrize("name", DENSITIES)
@th.no_grad()
def test_log_prob_is_the_base_at_the_latents_plus_the_jacobian_of_autograd(name: str) -> None:
    density = make(name)
    for state, action in zip(*draw(n_rows=5), strict=True):

        def latents_of(pair: Tensor) -> Tensor:
            return density.encode(pair[:3], pair[3:])[0]

        jacobian = th.autograd.functional.jacobian(latents_of, th.cat([state, action]))
        log_det = th.linalg.slogdet(jacobian if density.joint else jacobian[:, 3:])[1]
        expected = density.base.log_prob(density.encode(state, action)[0]) + log_det
        close(density.log_prob(state, action), expected)


@pytest.mark.parametrize("name", DENSITIES)
@th.no_grad()
def test_decoding_undoes_encoding_and_encoding_undoes_decoding(name: str) -> None:
    density = make(name)
    states, actions = draw()
    decoded_states, decoded_actions = density.decode(states, density.encode(states, actions)[0])
    close(decoded_states, states)
    close(decoded_actions, actions)
    latents = density.draw_latents(16, generator())
    close(density.encode(*density.decode(states, latents))[0], latents)


@pytest.mark.parametrize("name", DENSITIES)
def test_likelihood_and_samples_send_gradients_to_all_parameters(name: str) -> None:
    density = make(name)
    states, actions = draw()
    sampled = th.cat(density.decode(states, density.draw_latents(16, generator())), dim=-1)
    for loss in (density.log_prob(states, actions).sum(), sampled.square().sum()):
        gradients = th.autograd.grad(loss, list(density.parameters()), allow_unused=True)
        without = [
            parameter
            for (parameter, _), gradient in zip(density.named_parameters(), gradients, strict=True)
            if gradient is None or not gradient.isfinite().all() or not gradient.abs().max() > 0
        ]
        assert without == []


@pytest.mark.parametrize("name", DENSITIES)
def test_a_frozen_density_still_tells_the_actor_where_to_go(name: str) -> None:
    density = make(name).requires_grad_(False).eval()
    states, actions = draw(n_rows=4)
    actions.requires_grad_(True)
    assert th.autograd.gradcheck(lambda a: density.log_prob(states, a), actions)
    density.log_prob(states, actions).sum().backward()
    assert actions.grad is not None and (actions.grad != 0).all()
    assert all(parameter.grad is None for parameter in density.parameters())


@pytest.mark.parametrize("name", DENSITIES)
@th.no_grad()
def test_a_density_comes_back_bit_for_bit_from_its_settings_and_its_state(name: str) -> None:
    density = make(name)
    other = make_density(**json.loads(json.dumps(density.settings)))
    other.load_state_dict(density.state_dict())
    assert other.settings == density.settings
    assert th.equal(other.log_prob(*draw()), density.log_prob(*draw()))


@pytest.mark.parametrize("name", DENSITIES)
@th.no_grad()
def test_randomness_comes_from_the_generator_alone(name: str) -> None:
    density = make(name)
    states, actions = draw()
    before = th.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # type: ignore[index]
    first, again = density.draw_latents(16, generator()), density.draw_latents(16, generator())
    assert th.equal(first, again)
    shared = generator()
    assert not th.equal(density.draw_latents(16, shared), density.draw_latents(16, shared))
    assert th.equal(density.log_prob(states, actions), density.log_prob(states, actions))
    assert th.equal(density.decode(states, first)[1], density.decode(states, first)[1])
    density.dequantise(actions, 0.01, shared)
    repr(density)
    assert th.equal(th.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index]


@pytest.mark.parametrize("name", DENSITIES)
@th.no_grad()
def test_single_precision_agrees_with_double_and_extra_dimensions_with_rows(name: str) -> None:
    density = make(name)
    states, actions = draw()
    expected = density.log_prob(states, actions)
    stacked = density.log_prob(states.view(4, 4, 3), actions.view(4, 4, 2))
    close(stacked.flatten(), expected, 1e-12)
    single = density.float().log_prob(states.float(), actions.float())
    assert single.dtype == th.float32 and density.draw_latents(2, generator()).dtype == th.float32
    close(single, expected, 1e-4)


@pytest.mark.parametrize("name", DENSITIES)
@th.no_grad()
def test_broken_weights_give_nan_that_a_caller_can_count_and_no_exception(name: str) -> None:
    density = make(name)
    next(density.parameters()).fill_(math.nan)
    assert density.log_prob(*draw()).isnan().all()


@pytest.mark.parametrize("name", DENSITIES)
@th.no_grad()
def test_permuted_states_change_the_density(name: str) -> None:
    density = make(name)
    states, actions = draw()
    difference = density.log_prob(states.flip(0), actions) - density.log_prob(states, actions)
    assert (difference.abs() > 1e-3).all()


@pytest.mark.parametrize("name", DENSITIES)
def test_action_dimensions_depend_on_each_other(name: str) -> None:
    density = make(name)
    for state, action in zip(*draw(n_rows=2), strict=True):
        mixed = th.autograd.functional.hessian(lambda a, s=state: density.log_prob(s, a), action)[0, 1]
        assert mixed.abs() > 1e-6


@pytest.mark.parametrize("name", DENSITIES)
@th.no_grad()
def test_state_statistics_are_the_same_as_standardised_states(name: str) -> None:
    density = make(name)
    states, actions = draw()
    mean, std = th.tensor([3.0, -20.0, 0.5]), th.tensor([0.01, 100.0, 1.0])
    density.set_state_statistics(th.zeros(3), th.ones(3))
    expected = density.log_prob(states, actions)
    density.set_state_statistics(mean, th.tensor([0.01, 100.0, 0.0]))  # a constant column keeps std 1
    log_volume = std.log().sum() if density.joint else 0.0
    close(density.log_prob(states * std + mean, actions) + log_volume, expected)


# ---------------------------------------------------------------------- integrals


def integral(density: Density, half_width: float, state: float | None) -> float:
    """Of exp(log p) over a square of 241² midpoints: of two actions at a state, or of state and action (None)."""
    edges = th.linspace(-half_width, half_width, 242)
    total = 0.0
    for points in th.cartesian_prod(*[0.5 * (edges[1:] + edges[:-1])] * 2).split(30_000):
        given = points[:, :1] if state is None else th.full((len(points), 1), state)
        log_probs = density.log_prob(given, points[:, 1:] if state is None else points)
        total += float(log_probs.exp().sum()) * (2 * half_width / 241) ** 2
    return total


@pytest.mark.parametrize("name", DENSITIES)
@th.no_grad()
def test_densities_integrate_to_one(name: str) -> None:
    if name in CONDITIONAL:
        density = make(name, state_dim=1, spread=0.15)  # or much of the mass is within 1e-5 of the bounds
        half_width, tolerance = (1.0, 5e-3) if name in IN_THE_BOX else (8.0, 1e-3)
        assert integral(density, half_width, state=0.7) == pytest.approx(1, abs=tolerance)
    else:
        density = make(name, state_dim=1, action_dim=1)
        density.set_state_statistics(th.zeros(1), th.tensor([0.7]))
        assert integral(density, 16.0, state=None) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", CONDITIONAL)
@th.no_grad()
def test_densities_of_a_single_action_dimension_integrate_to_one(name: str) -> None:
    density = make(name, action_dim=1, spread=0.15)
    half_width = 1.0 if name in IN_THE_BOX else 12.0
    edges = th.linspace(-half_width, half_width, 20_001)
    middles = (0.5 * (edges[1:] + edges[:-1])).unsqueeze(-1)
    total = density.log_prob(th.full((20_000, 3), 0.7), middles).exp().sum() * (2 * half_width / 20_000)
    assert float(total) == pytest.approx(1, abs=5e-3 if name in IN_THE_BOX else 1e-3)


def test_a_spline_over_one_action_dimension_is_more_than_a_gaussian() -> None:
    """A Gaussian's score is linear in the action."""
    bends = {}
    for name in ("spline", "affine"):
        actions = th.linspace(-1, 1, 41).unsqueeze(-1).requires_grad_(True)
        log_probs = make(name, action_dim=1, spread=1.0).log_prob(th.full((41, 3), 0.7), actions)
        (score,) = th.autograd.grad(log_probs.sum(), actions)
        bends[name] = float(score.squeeze(-1).diff(n=2).abs().max() / score.abs().max())
    assert bends["affine"] < 1e-9 < 1e-2 < bends["spline"]


# ---------------------------------------------------------------------- bases and bounds


def test_the_logistic_base_has_its_closed_form_and_a_score_below_one() -> None:
    latents = th.linspace(-60, 60, 241).unsqueeze(-1).requires_grad_(True)
    log_probs = Base("logistic").log_prob(latents)
    close(log_probs.detach(), (-latents.abs() - 2 * th.log1p((-latents.abs()).exp())).detach().squeeze(-1), 1e-12)
    (score,) = th.autograd.grad(log_probs.sum(), latents)
    assert score.abs().max() <= 1 and score[latents.abs() < 30].abs().max() < 1


@pytest.mark.parametrize(("base", "variance"), [(Base("normal", 0.5), 0.25), (Base("logistic"), math.pi**2 / 3)])
@th.no_grad()
def test_draws_from_a_base_follow_its_log_prob(base: Base, variance: float) -> None:
    draws = base.draw(th.empty(200_000, 1), generator())
    assert float(draws.mean()) == pytest.approx(0, abs=0.02)
    assert float(draws.var()) == pytest.approx(variance, rel=0.02)
    grid = th.linspace(-40, 40, 80_001).unsqueeze(-1)
    density = base.log_prob(grid).exp()
    assert float(density.sum() * 1e-3) == pytest.approx(1, abs=1e-6)
    assert float((density * grid.squeeze(-1) ** 2).sum() * 1e-3) == pytest.approx(variance, abs=1e-6)


@th.no_grad()
def test_a_logistic_of_scale_one_half_is_uniform_in_the_box_and_of_scale_one_rewards_saturation() -> None:
    density = identity(squash="logistic")
    coordinate = th.tensor([-0.9999, -0.5, 0.0, 0.3, 0.999])
    actions = th.stack([coordinate, th.zeros(5)], dim=-1)
    states = th.zeros(5, 1)
    close(density.log_prob(states, actions).exp(), [0.25] * 5)  # ½ per dimension
    density.base = Base("logistic", 1.0)
    per_coordinate = density.log_prob(states, actions).exp() / 0.25
    close(per_coordinate[2], 0.25)
    assert per_coordinate[4] > 10 and per_coordinate[0] > 30
    assert integral(density, 1.0, state=0.0) < 0.98  # so much mass is at the edge that the grid does not see


@pytest.mark.parametrize("name", IN_THE_BOX)
def test_saturated_actions_have_a_finite_density_in_the_box(name: str) -> None:
    density = make(name).float()
    actions = th.tensor([[1.0, -1.0], [1.0, 0.2]]).float().requires_grad_(True)
    log_probs = density.log_prob(th.zeros(2, 3).float(), actions)
    (gradient,) = th.autograd.grad(log_probs.sum(), actions)
    assert log_probs.isfinite().all() and gradient.isfinite().all() and gradient[1, 1] != 0
    _, samples = density.decode(th.zeros(1000, 3).float(), density.draw_latents(1000, generator()))
    assert samples.abs().max() <= 1


def test_affine_scales_are_bounded_whatever_the_weights() -> None:
    density = make_density("affine", 3, 2, net_arch=(16,), n_transforms=1)  # one coupling, of one action given the other
    with th.no_grad():
        for parameter in density.parameters():
            parameter.normal_(std=100.0)
    _, log_det = density.encode(*draw(n_rows=256))
    assert 0.95 * math.log(10) < log_det.abs().max() <= math.log(10)


def test_far_outside_the_splines_the_gradient_is_that_of_the_base() -> None:
    density = make("spline", spread=3.0)
    actions = th.tensor([[1e3, -1e3], [6.0, 50.0]]).requires_grad_(True)
    (gradient,) = th.autograd.grad(-density.log_prob(th.ones(2, 3), actions).sum(), actions)
    close(gradient, actions.detach())


@pytest.mark.parametrize("squash", [None, "normal"])
def test_dequantised_actions_stay_within_the_width_and_inside_a_box_that_has_bounds(squash: Any) -> None:
    actions = th.tensor([[1.0, -1.0]]).repeat(1000, 1)
    noisy = identity(squash).dequantise(actions, 0.01, generator())
    assert (actions.abs() == 1).all()
    assert 0.0099 < (noisy - actions).abs().max() <= 0.01
    assert len(noisy.unique()) == 2000
    inside = (noisy.abs() <= 1).double().mean()
    assert inside == 1 if squash else 0.45 < inside < 0.55


# ---------------------------------------------------------------------- NICE


@pytest.mark.parametrize(
    ("state_dim", "action_dim", "n_parameters"), [(11, 3, 2_298_042), (17, 6, 2_325_069), (29, 8, 2_367_111)]
)
def test_the_official_density_has_the_official_number_of_parameters(
    state_dim: int, action_dim: int, n_parameters: int
) -> None:
    density = make_density("nice", state_dim, action_dim)
    assert sum(parameter.numel() for parameter in density.parameters()) == n_parameters


@th.no_grad()
def test_the_log_det_of_additive_couplings_is_the_sum_of_the_scales_everywhere() -> None:
    density = make("nice")
    density.set_state_statistics(th.zeros(3), th.ones(3))
    _, log_det = density.encode(*draw())
    close(log_det, density.log_scale.sum().expand(16), 1e-12)  # type: ignore[operator]


@th.no_grad()
def test_the_first_coupling_shifts_the_second_half_given_the_first() -> None:
    density = make_density("nice", 3, 2, net_arch=(16,), n_transforms=1)
    for parameter in density.parameters():
        parameter.normal_(std=0.5)
    density.log_scale.zero_()  # type: ignore[operator]
    states, actions = draw()
    latents, _ = density.encode(states, actions)
    close(latents[:, :2], states[:, :2], 0)
    shift = latents[:, 2:] - th.cat([states[:, 2:], actions], dim=-1)
    close(shift, density.shifts[0](states[:, :2]), 1e-12)  # type: ignore[index]
    assert (shift > 0).any() and shift.min() > -0.1  # one-sided: its last layer is a LeakyReLU


# ---------------------------------------------------------------------- joint against conditional


def test_joint_and_conditional_densities_pull_an_action_the_same_way() -> None:
    correlation, weight = 0.8, 0.6  # √(1 − 0.8²)
    density = make_density("affine", 1, 1, net_arch=(), n_transforms=1)
    log_scale = -math.log(weight)
    with th.no_grad():  # z = (a − 0.8 s)/0.6
        (_, matrix), (_, offset) = density.named_parameters()
        matrix.copy_(th.tensor([[-correlation / weight], [0.0]]))
        offset.copy_(th.tensor([0.0, log_scale / (1 - log_scale / math.log(10))]))
    joint = th.distributions.MultivariateNormal(th.zeros(2), th.tensor([[1.0, correlation], [correlation, 1.0]]))
    states, actions = draw(1, 1)
    actions.requires_grad_(True)
    conditional_log_probs = density.log_prob(states, actions)
    joint_log_probs = joint.log_prob(th.cat([states, actions], dim=-1))
    state_log_probs = Base("normal").log_prob(states)
    close((conditional_log_probs + state_log_probs).detach(), joint_log_probs.detach())
    (of_conditional,) = th.autograd.grad(conditional_log_probs.sum(), actions)
    (of_joint,) = th.autograd.grad(joint_log_probs.sum(), actions)
    close(of_conditional, of_joint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flow": "maf"}, "flow='maf' is not known; use 'spline', 'affine' or 'nice'"),
        ({"flow": "spline", "squash": "uniform"}, "squash='uniform' is not known"),
        ({"flow": "nice", "squash": "normal"}, "is for conditional flows"),
        ({"flow": "affine", "squash": "logistic"}, "needs flow='spline'"),
        ({"flow": "spline", "n_transforms": 0}, "n_transforms=0 must be at least 1"),
    ],
)
def test_unusable_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_density(state_dim=3, action_dim=2, **arguments)
