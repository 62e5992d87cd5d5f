"""DPM-Solver against numbers of its authors' code and against the exact flow of a Gaussian (SfBC's README claims 3 and 4)."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import close
from torch import Tensor

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.diffusion import NoiseSchedule, ddim_sample, dpm_sample
from sb3_genoffline.generative.dpm_solver import ContinuousVP, dpm_solver, step_orders

pytestmark = pytest.mark.usefixtures("float64")
VP = ContinuousVP()
START = np.cos(np.arange(4.0)).reshape(2, 2)


def grid(n_steps: int) -> tuple[list[float], np.ndarray, np.ndarray]:
    times = np.linspace(1.0, 1e-3, n_steps + 1)
    return times.tolist(), *VP.levels(times)


def solve(n_steps: int, order: int = 3) -> tuple[Tensor, list[float]]:
    """The solution with ε̂(x, t) = 0.5x + 0.1·cos 3t, and the times it asked for."""
    times, alphas, sigmas = grid(n_steps)
    asked: list[float] = []

    def predict(x: Tensor, k: int) -> Tensor:
        asked.append(times[k])
        return 0.5 * x + 0.1 * math.cos(3 * times[k])

    return dpm_solver(predict, alphas, sigmas, th.as_tensor(START), order), asked


def test_levels_of_noise_are_known_numbers() -> None:
    times = [1e-3, 0.1, 0.5, 1.0]
    alphas, sigmas = VP.at(th.tensor(times))
    for ours, on_host in zip((alphas, sigmas), VP.levels(np.array(times)), strict=True):
        close(ours, on_host, 1e-14)
    close(alphas, [0.99994503, 0.94672180, 0.28118288, 0.00657159], 5e-9)
    close(sigmas, [0.01048542, 0.32205254, 0.95965420, 0.99997841], 5e-9)
    close((alphas / sigmas).log()[[0, 2, 3]], [4.55771493, -1.22756773, -5.02497841], 5e-9)


@pytest.mark.parametrize(
    ("n_steps", "order", "expected"),
    [
        (15, 3, [9.83591723, 5.79682112, -2.60694088, -7.64898874]),
        (25, 3, [9.78674161, 5.76427143, -2.60489858, -7.62619211]),
        (15, 1, [13.04849123, 7.77962463, -3.18280353, -9.75998734]),
        (3000, 3, [9.80693314, 5.77626065, None, None]),
    ],
)
def test_solutions_are_known_numbers(n_steps: int, order: int, expected: list[float | None]) -> None:
    solution, asked = solve(n_steps, order)
    for value, known in zip(solution.ravel().tolist(), expected, strict=True):
        assert known is None or value == pytest.approx(known, abs=6e-9)
    close(asked, np.linspace(1.0, 1e-3, n_steps + 1)[:-1])  # each level once, the last one never


@pytest.mark.parametrize(
    ("n_steps", "order", "orders"),
    [
        *((15, 3, [3, 3, 3, 3, 2, 1]), (25, 3, [3] * 8 + [1]), (8, 3, [3, 3, 2]), (3, 3, [2, 1]), (2, 3, [2]), (1, 3, [1])),
        *((5, 2, [2, 2, 1]), (4, 2, [2, 2]), (3, 1, [1, 1, 1]), (0, 3, [])),
    ],
)
def test_steps_have_the_authors_orders(n_steps: int, order: int, orders: list[int]) -> None:
    assert step_orders(n_steps, order) == orders


@pytest.mark.parametrize(("order", "at_most"), [(1, 0.2), (2, 4e-3), (3, 6e-5)])
def test_the_flow_of_a_gaussian_is_approached_in_the_solvers_order(order: int, at_most: float) -> None:
    """Data N(0, c²): ε̂ = σx/(α²c² + σ²) is exact, and so is x_t = x_1·√((α_t²c² + σ_t²)/(α_1²c² + σ_1²))."""
    spread, errors = 0.5, []
    for n_steps in (62, 122):  # the last step of order 3 is of order 2, whose error is as small
        half_log_snr = np.linspace(-5.0, 4.5, n_steps + 1)
        alphas, sigmas = (np.sqrt(1 / (1 + np.exp(sign * 2 * half_log_snr))) for sign in (-1, 1))
        variances = (alphas * spread) ** 2 + sigmas**2

        def predict(x: Tensor, k: int, factors: np.ndarray = sigmas / variances) -> Tensor:
            return float(factors[k]) * x

        reached = dpm_solver(predict, alphas, sigmas, th.ones(()), order)
        errors.append(abs(reached.item() / math.sqrt(variances[-1] / variances[0]) - 1))
    assert errors[1] < at_most
    assert errors[0] / errors[1] > 0.75 * 2**order


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_last_level_without_noise_is_the_clean_prediction(order: int) -> None:
    schedule = NoiseSchedule.make("vp", 7)
    clean, seen = th.tensor([0.3, -0.9]), []

    def exact(x: Tensor, t: int) -> Tensor:
        seen.append(t)
        return (x - math.sqrt(schedule.alpha_bars[t]) * clean) / schedule.sigmas[t]

    start = th.tensor([[1.0, -2.0]])
    for stride in (1, 2, 7):
        seen.clear()
        close(dpm_sample(exact, schedule, start, stride=stride, clip="none", order=order), clean)
        assert seen == list(range(7, 0, -stride))


def test_order_one_is_ddim() -> None:
    schedule, start = NoiseSchedule.make("vp", 6), th.as_tensor(START)[None]
    predict: Any = lambda x, t: 0.5 * x + 0.1 * t  # noqa: E731
    for clip in ("clean", "none"):
        for stride in (1, 4):
            ours = dpm_sample(predict, schedule, start, stride=stride, clip=clip, order=1)
            close(ours, ddim_sample(predict, schedule, start, stride=stride, clip=clip), 1e-12)


def test_what_can_not_be_solved_is_refused() -> None:
    with pytest.raises(UserError, match="solver_order=4"):
        step_orders(15, 4)
    with pytest.raises(UserError, match="at least one step"):
        dpm_solver(lambda x, k: x, np.ones(1), np.ones(1), th.ones(2))
    with pytest.raises(UserError, match="stride=0"):
        dpm_sample(lambda x, t: x, NoiseSchedule.make("vp", 5), th.ones(1, 2), stride=0)
