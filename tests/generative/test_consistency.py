"""The consistency model of a scalar and its teacher (QDQ's README, claims 5 to 13)."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch as th
from exact import close
from torch import Tensor, nn

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.consistency import (
    T_MAX,
    T_MIN,
    ConsistencyModel,
    DiffusionTeacher,
    DistillationDraws,
    NoisyScalarNetwork,
    denoising_loss,
    distillation_loss,
    draw_noise_levels,
    group_norm,
    heun_step,
    karras_grid,
    sample_heun,
)

CONDITION_DIM = 5
MEAN, STD = 0.3, 0.2  # of the Gaussian data whose denoiser and trajectories are known in closed form


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    th.set_default_dtype(th.float64)
    yield
    th.set_default_dtype(th.float32)


def make_network(spread: float = 0.3, **kwargs: Any) -> NoisyScalarNetwork:
    """A network whose parameters, those of the norms included, are all far from their first values."""
    th.manual_seed(0)
    network = NoisyScalarNetwork(CONDITION_DIM, **({"net_arch": (16, 24, 16)} | kwargs))
    with th.no_grad():
        for parameter in network.parameters():
            parameter.add_(spread * th.randn_like(parameter))
    return network


def draw(n_rows: int = 12, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """c, x and t of all magnitudes."""
    generator = th.Generator().manual_seed(seed)
    t = T_MIN * (T_MAX / T_MIN) ** th.linspace(0, 1, n_rows)
    c, z = th.randn(n_rows, CONDITION_DIM, generator=generator), th.randn(n_rows, generator=generator)
    return c, (0.25 + t.square()).sqrt() * z, t


def gaussian_denoiser(c: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """E[x_0 | x] where x_0 ~ N(m, v²)."""
    return (STD**2 * x + t**2 * MEAN) / (STD**2 + t**2)


def gaussian_consistency(c: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Where the probability-flow trajectory through (x, t) is at t_min."""
    return MEAN + (x - MEAN) * ((STD**2 + T_MIN**2) / (STD**2 + t**2)).sqrt()


def antithetic(n_pairs: int) -> Tensor:
    """Normal numbers whose mean is exactly 0."""
    z = th.randn(n_pairs, generator=th.Generator().manual_seed(0))
    return th.cat([z, -z])


# ---------------------------------------------------------------------- noise levels


@pytest.mark.parametrize(("n", "second"), [(18, 57.586), (1000, 79.564)])
def test_the_grid_falls_from_80_to_two_thousandths_through_the_papers_levels(n: int, second: float) -> None:
    grid = karras_grid(n)
    assert grid.shape == (n,) and grid[0] == 80.0 and grid[-1] == 0.002
    assert (grid.diff() < 0).all()
    close(grid[1], second, 5e-4)
    close((grid ** (1 / 7)).diff(), th.full((n - 1,), (0.002 ** (1 / 7) - 80 ** (1 / 7)) / (n - 1)), 1e-12)


def test_a_grid_of_one_level_is_refused() -> None:
    assert karras_grid(2).tolist() == [80.0, 0.002]
    with pytest.raises(UserError, match="n=1 noise levels are too few"):
        karras_grid(1)


def test_the_teachers_noise_levels_are_lognormal() -> None:
    close(draw_noise_levels(th.tensor([0.0, 1.0, -2.0])), [math.exp(-1.2), 1.0, math.exp(-3.6)], 1e-14)


# ---------------------------------------------------------------------- the network


@pytest.mark.parametrize(("condition_dim", "input_width"), [(23, 56), (14, 47), (37, 70)])
def test_the_networks_parameters_have_the_published_shapes(condition_dim: int, input_width: int) -> None:
    """HalfCheetah and Walker2d, Hopper, AntMaze."""
    network = NoisyScalarNetwork(condition_dim)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    norms = {f"norms.{i}.{kind}": (256,) for i in range(3) for kind in ("weight", "bias")}
    assert shapes == norms | {
        "time_mlp.0.weight": (32, 16),
        "time_mlp.0.bias": (32,),
        "time_mlp.2.weight": (32, 32),
        "time_mlp.2.bias": (32,),
        "input_layer.weight": (256, input_width),
        "input_layer.bias": (256,),
        "layers.0.weight": (256, 256),
        "layers.0.bias": (256,),
        "layers.1.weight": (256, 256),
        "layers.1.bias": (256,),
        "layers.2.weight": (1, 256),
        "layers.2.bias": (1,),
    }
    assert {name: tuple(buffer.shape) for name, buffer in network.named_buffers()} == {"fourier_weights": (8,)}
    assert all(isinstance(norm, nn.GroupNorm) and (norm.num_groups, norm.eps) == (32, 1e-6) for norm in network.norms)


def test_linear_layers_start_from_xavier_weights_and_zero_biases() -> None:
    th.manual_seed(0)
    layers = [module for module in NoisyScalarNetwork(14).modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 6
    for layer in layers:
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert layer.bias.abs().max() == 0
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        close(layer.weight.detach().std(), bound / math.sqrt(3), 0.15 * bound)


def test_the_fourier_frequencies_are_normal_with_standard_deviation_16() -> None:
    th.manual_seed(0)
    frequencies = th.cat([NoisyScalarNetwork(1, (8,)).fourier_weights for _ in range(100)])
    close(frequencies.mean(), 0, 16 * 4 / math.sqrt(800))
    close(frequencies.std(), 16, 16 * 4 / math.sqrt(1600))


def test_the_network_is_the_one_described() -> None:
    """Written out, with torch's own norm."""
    network, (c, x, t) = make_network(), draw()
    p = dict(network.named_parameters())
    angles = 2 * math.pi * (0.25 * t.log())[:, None] * network.fourier_weights
    hidden = th.cat([angles.sin(), angles.cos()], dim=1)
    for i in (0, 2):
        hidden = nn.functional.silu(hidden @ p[f"time_mlp.{i}.weight"].T + p[f"time_mlp.{i}.bias"])
    hidden = th.cat([c, (x / (t**2 + 0.25).sqrt())[:, None], hidden], dim=1)
    for i, name in enumerate(("input_layer", "layers.0", "layers.1")):
        hidden = hidden @ p[f"{name}.weight"].T + p[f"{name}.bias"]
        norm = nn.functional.group_norm(hidden, hidden.shape[1] // 8, p[f"norms.{i}.weight"], p[f"norms.{i}.bias"], eps=1e-6)
        hidden = nn.functional.silu(norm)
    expected = (hidden @ p["layers.2.weight"].T + p["layers.2.bias"])[:, 0].detach()
    close(network(c, x, t).detach(), expected, 1e-12)
    with th.no_grad():
        close(network(c, x, t), expected, 1e-12)


def test_the_fast_norm_is_torchs_group_norm_with_an_eps_of_a_millionth() -> None:
    norm = make_network().norms[1]
    assert isinstance(norm, nn.GroupNorm)
    for scale in (1e-4, 1e-3, 1.0, 1e3):  # where small, eps decides
        x = scale * th.randn(7, 24, generator=th.Generator().manual_seed(0))
        before = x.clone()
        close(group_norm(norm, x).detach(), norm(x).detach(), 1e-12)
        assert th.equal(x, before)
        other = nn.functional.group_norm(x, 3, norm.weight, norm.bias, eps=1e-5)
        assert scale > 1e-2 or (norm(x) - other).abs().max() > 0.1


@pytest.mark.parametrize("net_arch", [(), (12,), (16, 20)])
def test_widths_that_do_not_fall_into_groups_of_eight_are_refused(net_arch: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="must hold multiples of 8"):
        NoisyScalarNetwork(3, net_arch)


@pytest.mark.parametrize("wrong", ["x as a column", "t as a column", "one t for all", "another batch of c"])
@pytest.mark.parametrize("model", [NoisyScalarNetwork, DiffusionTeacher, ConsistencyModel])
def test_shapes_that_would_broadcast_are_refused(wrong: str, model: Any) -> None:
    network = make_network()
    function = network if model is NoisyScalarNetwork else model(network)
    c, x, t = draw(4)
    arguments = {
        "x as a column": (c, x[:, None], t),
        "t as a column": (c, x, t[:, None]),
        "one t for all": (c, x, t[:1]),
        "another batch of c": (c[:1], x, t),
    }
    with pytest.raises(ValueError, match="have shapes"):
        function(*arguments[wrong])


def test_losses_of_columns_are_refused_and_not_silently_wrong() -> None:
    teacher, model = DiffusionTeacher(make_network()), ConsistencyModel(make_network())
    c, x, t = draw(4)
    with pytest.raises((ValueError, AssertionError)):
        denoising_loss(teacher, c, x[:, None], t, x, 0.5)
    draws = DistillationDraws(th.zeros(4, dtype=th.long), x)
    with pytest.raises((ValueError, AssertionError)):
        distillation_loss(model, model, teacher, karras_grid(5), c, x[:, None], draws)

    def column(c: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return x[:, None]

    with pytest.raises(AssertionError):
        denoising_loss(column, c, x, t, x)
    with pytest.raises(AssertionError):
        distillation_loss(column, model, teacher, karras_grid(5), c, x, draws)


# ---------------------------------------------------------------------- preconditioning


def test_the_consistency_model_is_the_identity_at_the_smallest_noise_level() -> None:
    model, (c, x, _) = ConsistencyModel(make_network()), draw()
    for dtype, tolerance in ((th.float64, 1e-14), (th.float32, 1e-6)):
        t = th.full_like(x, T_MIN)
        close(model.to(dtype)(c.to(dtype), x.to(dtype), t.to(dtype)).detach() / x, th.ones_like(x), tolerance)


def test_at_the_largest_noise_level_next_to_nothing_of_x_is_passed_on() -> None:
    skip, out = ConsistencyModel.scalings(th.tensor([80.0]), 0.5)
    close(skip, [3.906e-5], 5e-9)
    close(out, [0.49998], 5e-6)


def test_both_preconditionings_are_those_of_the_table() -> None:
    network, (c, x, t) = make_network(data_std=0.7), draw()
    f = network(c, x, t)
    total = t**2 + 0.49
    close((DiffusionTeacher(network)(c, x, t) - (0.49 / total * x + 0.7 * t / total.sqrt() * f)).detach(), 0, 1e-12)
    skip = 0.49 / ((t - 0.002) ** 2 + 0.49)
    close((ConsistencyModel(network)(c, x, t) - (skip * x + 0.7 * (t - 0.002) / total.sqrt() * f)).detach(), 0, 1e-12)


# ---------------------------------------------------------------------- losses


def test_the_teachers_loss_is_the_weighted_residual_of_the_score() -> None:
    teacher, (c, _, t) = DiffusionTeacher(make_network(data_std=0.7)), draw()
    x_0, z = th.randn(2, len(t), generator=th.Generator().manual_seed(2))
    loss = denoising_loss(teacher, c, x_0, t, z, 0.7).detach()
    residual = (teacher(c, x_0 + t * z, t).detach() - x_0) / t
    expected = (residual**2 * (t**2 + 0.49) / 0.49).mean()
    close(loss / expected, 1, 1e-12)


def test_distillation_compares_neighbouring_levels_one_teachers_step_apart() -> None:
    online, average = ConsistencyModel(make_network()), ConsistencyModel(make_network(spread=0.4))
    teacher, grid = DiffusionTeacher(make_network(spread=0.5)), karras_grid(18)
    x_0, z = th.randn(2, 18 - 1, generator=th.Generator().manual_seed(2))
    c = draw(17)[0]
    level = th.arange(17)
    t, t_next = grid[:-1], grid[1:]
    x = x_0 + t * z
    slope = (x - teacher(c, x, t)) / t
    euler = x + (t_next - t) * slope
    x_next = x + (t_next - t) * 0.5 * (slope + (euler - teacher(c, euler, t_next)) / t_next)
    expected = (online(c, x, t) - average(c, x_next, t_next)).square().mean().detach()
    loss = distillation_loss(online, average, teacher, grid, c, x_0, DistillationDraws(level, z))
    close(loss.detach() / expected, 1, 1e-12)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in online.parameters())
    assert all(p.grad is None for module in (average, teacher) for p in module.parameters())


def test_gradients_reach_every_parameter_of_the_teacher_and_not_its_frequencies() -> None:
    teacher, (c, x, t) = DiffusionTeacher(make_network()), draw()
    denoising_loss(teacher, c, x, t, x.flip(0)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in teacher.parameters())
    assert "network.fourier_weights" not in dict(teacher.named_parameters())
    assert not teacher.network.fourier_weights.requires_grad


# ---------------------------------------------------------------------- the closed form of a Gaussian


@pytest.mark.parametrize(("n", "tolerance"), [(300, 1e-4), (40, 0.01), (18, 0.1)])
def test_a_heun_step_of_the_exact_denoiser_stays_on_its_trajectory(n: int, tolerance: float) -> None:
    grid = karras_grid(n)
    z = th.linspace(-3, 3, 13)
    for t, t_next in itertools.pairwise(grid):
        x = MEAN + (STD**2 + t**2).sqrt() * z
        following = heun_step(gaussian_denoiser, z, x, t.expand_as(x), t_next.expand_as(x))
        drift = gaussian_consistency(z, following, t_next) - gaussian_consistency(z, x, t)
        assert (drift / z)[z != 0].abs().max() < tolerance * STD


@pytest.mark.parametrize(("n", "std"), [(18, 0.214), (40, 0.204), (300, 0.199)])
def test_the_exact_denoiser_integrated_from_pure_noise_gives_the_data(n: int, std: float) -> None:
    z = antithetic(2000)
    samples = sample_heun(gaussian_denoiser, z, z, n)
    close(samples.mean(), 0.299, 1e-3)
    close(samples.std(), std, 3e-3)


def test_the_integration_ends_with_a_step_to_no_noise_at_all() -> None:
    z = antithetic(5)
    samples = sample_heun(lambda c, x, t: th.full_like(x, 0.7), z, z, 2)
    close(samples, th.full_like(z, 0.7), 0)


def test_the_exact_consistency_model_maps_pure_noise_to_the_data_and_has_no_distillation_loss() -> None:
    z = antithetic(10_000)
    samples = gaussian_consistency(z, T_MAX * z, th.full_like(z, T_MAX))
    close(samples.mean(), MEAN, 1e-3)
    close(samples.std(), STD, 4e-3)
    level = th.randint(0, 999, (20_000,), generator=th.Generator().manual_seed(1))
    x_0 = MEAN + STD * z[th.randperm(20_000, generator=th.Generator().manual_seed(2))]
    exact = (gaussian_consistency, gaussian_consistency, gaussian_denoiser)
    assert distillation_loss(*exact, karras_grid(1000), z, x_0, DistillationDraws(level, z)) < 1e-10


# ---------------------------------------------------------------------- one-step samples


@pytest.mark.parametrize(("n_conditions", "n_samples"), [(1, 1), (6, 4), (40, 60), (2, 3000)])
def test_a_sample_is_the_model_at_its_own_condition_and_noise(n_conditions: int, n_samples: int) -> None:
    """Row b, column j belongs to condition b and noise j, over block borders too."""
    model = ConsistencyModel(make_network())
    generator = th.Generator().manual_seed(3)
    c = th.randn(n_conditions, CONDITION_DIM, generator=generator)
    noise = th.randn(n_conditions, n_samples, generator=generator)
    samples = model.sample(c, noise)
    assert samples.shape == noise.shape
    for b in range(n_conditions):
        t = th.full((n_samples,), 80.0)
        close(samples[b], model(c[b].expand(n_samples, -1), 80.0 * noise[b], t).detach(), 1e-12)


def test_each_condition_and_noise_passes_the_network_once_and_decides_the_sample() -> None:
    model = ConsistencyModel(make_network())
    rows = []
    model.network.layers[-1].register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    c = draw(300)[0]
    noise = [th.randn(300, 7, generator=th.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    first, again, other = (model.sample(c, z) for z in noise)
    assert sum(rows) == 3 * 300 * 7
    assert th.equal(first, again)
    assert (first != other).all()


def test_samples_have_no_gradient_and_are_right_in_single_precision() -> None:
    """Noise levels span 4.6 decades."""
    model = ConsistencyModel(make_network(spread=0.1))
    c, noise = draw(20)[0], th.randn(20, 5, generator=th.Generator().manual_seed(0))
    exact = model.sample(c.requires_grad_(True), noise.requires_grad_(True))
    assert not exact.requires_grad
    single = model.float().sample(c.float(), noise.float())
    assert single.dtype == th.float32 and not single.requires_grad
    close(single, exact, 1e-4)


def test_samples_that_ignore_the_network_still_spread_by_the_skip_path() -> None:
    """0.003125 per unit of noise: the smallest uncertainty there is."""
    network = make_network()
    for parameter in network.layers[-1].parameters():
        nn.init.zeros_(parameter)
    noise = th.randn(3, 50, generator=th.Generator().manual_seed(0))
    close(ConsistencyModel(network).sample(draw(3)[0], noise), 0.003125 * noise, 1e-6)


# ---------------------------------------------------------------------- copies


def test_weights_and_frequencies_survive_a_state_dict_and_a_fresh_network_shares_neither() -> None:
    network = make_network(data_std=0.7)
    fresh = network.fresh()
    assert fresh.data_std == 0.7 and fresh.net_arch == [16, 24, 16]
    before = fresh.state_dict()
    assert all(not th.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    fresh.load_state_dict(network.state_dict())
    close(fresh(*draw()).detach(), network(*draw()).detach(), 0)
