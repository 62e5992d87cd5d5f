"""Mish on each of its paths against numbers that are known and against torch."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch as th
from torch import Tensor

from sb3_genoffline.nets.activations import Mish, mish


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    th.set_default_dtype(th.float64)
    yield
    th.set_default_dtype(th.float32)


MISH = [(-2, -0.2525014827), (-1, -0.3034014614), (0, 0), (0.5, 0.3752452113), (1, 0.8650983883), (2, 1.9439589595)]


def mish_of_each_path(x: Tensor) -> dict[str, Tensor]:
    with th.no_grad():
        values = {"without gradients": mish(x)}
    values["with gradients"] = mish(x.clone().requires_grad_(True)).detach()
    return values


def test_mish_has_the_reference_values_on_every_path() -> None:
    points, expected = th.tensor(MISH).T
    for path, values in mish_of_each_path(points).items():
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-10, err_msg=path)


@pytest.mark.parametrize(("dtype", "tolerance"), [(th.float64, 1e-12), (th.float32, 2e-6)])
def test_mish_and_its_slope_are_torchs_over_the_whole_range(dtype: th.dtype, tolerance: float) -> None:
    extremes = th.tensor([-1e4, -800.0, -100.0, -88.0, 20.0, 44.0, 88.0, 89.0, 100.0, 800.0, 1e4])
    x = th.cat([th.linspace(-30, 30, 2001), extremes]).to(dtype)
    expected = th.nn.functional.mish(x)
    for path, values in mish_of_each_path(x).items():
        assert values.dtype == dtype
        np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance * 10, err_msg=path)
    ours, theirs = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    mish(ours).sum().backward()
    th.nn.functional.mish(theirs).sum().backward()
    np.testing.assert_allclose(ours.grad, theirs.grad, rtol=0, atol=tolerance * 10)  # type: ignore[arg-type]


def test_a_second_derivative_of_mish_is_refused_and_not_silently_wrong() -> None:
    x = th.linspace(-2, 2, 4096, requires_grad=True)
    slope = th.autograd.grad(Mish()(x).sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError):
        slope.sum().backward()


@pytest.mark.parametrize(("shape", "bias_shape"), [((4, 16, 64), (4, 1, 64)), ((40, 64), (64,)), ((8, 5, 64), (8, 1, 64))])
def test_mish_of_a_sum_is_that_of_the_sum_made_first(shape: tuple[int, ...], bias_shape: tuple[int, ...]) -> None:
    x, bias, weights = th.randn(shape), th.randn(bias_shape).requires_grad_(), th.randn(shape)
    with th.no_grad():
        np.testing.assert_allclose(mish(x.clone(), bias), th.nn.functional.mish(x + bias), rtol=0, atol=1e-12)
    x.requires_grad_()
    ours = th.autograd.grad((mish(x * 1.0, bias) * weights).sum(), (x, bias))
    theirs = th.autograd.grad((th.nn.functional.mish(x + bias) * weights).sum(), (x, bias))
    for gradient, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-12)
