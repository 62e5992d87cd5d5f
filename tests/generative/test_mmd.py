"""The maximum mean discrepancy: known numbers, and what a wrong kernel, root or pairing would make of them."""

from typing import Any

import pytest
import torch as th
from exact import close

from sb3_genoffline.generative.mmd import mmd

pytestmark = pytest.mark.usefixtures("float64")
X, Y = th.tensor([[[0.0], [1.0]]], dtype=th.float64), th.tensor([[[0.5], [0.5]]], dtype=th.float64)
K = th.arange(12, dtype=th.float64).view(2, 3, 2)
I4 = th.arange(4, dtype=th.float64)
FOUR = th.zeros(1, 4, 2, dtype=th.float64), th.tensor([1.0, 2.0], dtype=th.float64).expand(1, 4, 2)
CURVES = th.stack([I4.sin(), I4.cos()], -1)[None], th.stack([(0.5 * I4).sin(), -(0.3 * I4).cos()], -1)[None]
BATCH = th.sin(K), 1.2 * th.cos(K)


@pytest.mark.parametrize(
    ("samples", "kernel", "sigma", "expected"),
    [
        ((X, Y), "laplacian", 20.0, [0.11180499]),
        ((X, Y), "laplacian", 10.0, [0.15810088]),
        ((X, Y), "gaussian", 20.0, [0.01081549]),
        ((X, Y), "gaussian", 10.0, [0.02145020]),
        (FOUR, "laplacian", 20.0, [0.38015001]),
        (FOUR, "gaussian", 20.0, [0.48477541]),
        (CURVES, "laplacian", 20.0, [0.15090201]),
        (CURVES, "gaussian", 20.0, [0.19446208]),
        (BATCH, "laplacian", 20.0, [0.08994661, 0.09134660]),
        (BATCH, "gaussian", 20.0, [0.03023642, 0.03231298]),  # with σ squared 0.0056
        (BATCH, "gaussian", 50.0, [0.01698580, 0.01748102]),
        (tuple(part.tanh() for part in BATCH), "laplacian", 20.0, [0.07415958, None]),
    ],
)
def test_the_discrepancy_is_a_known_number(samples: Any, kernel: Any, sigma: float, expected: list[float]) -> None:
    found = mmd(*samples, kernel, sigma)
    for value, number in zip(found, expected, strict=True):
        assert number is None or value.item() == pytest.approx(number, abs=5e-9)


@pytest.mark.parametrize("kernel", ["laplacian", "gaussian"])
@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_equal_samples_are_a_thousandth_apart_and_their_gradient_is_zero(kernel: Any, dtype: th.dtype) -> None:
    """Leaving a sample's pair with itself out would put a negative number under the root."""
    for samples in (BATCH[0], BATCH[0][:, :1].expand(-1, 2, -1), 1e3 * BATCH[1]):
        drawn = samples.to(dtype).clone().requires_grad_(True)
        found = mmd(samples.to(dtype), drawn, kernel, 20.0)
        close(found, [1e-3, 1e-3], 1e-15 if dtype == th.float64 else 1e-10)
        (gradient,) = th.autograd.grad(found.sum(), drawn)
        close(gradient, th.zeros_like(gradient), 1e-4)


def test_a_threshold_is_a_distance_between_two_points() -> None:
    for kernel, distance in (("laplacian", 0.05001125), ("gaussian", 0.22363195)):
        points = th.zeros(1, 1, 1), th.full((1, 1, 1), distance)
        close(mmd(*points, kernel, 20.0), [0.05], 5e-9)  # type: ignore[arg-type]
