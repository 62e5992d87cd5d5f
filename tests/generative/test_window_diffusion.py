"""Diffusion of windows and planning give the numbers of Diffuser's authors' code, in double precision."""

from typing import Any

import numpy as np
import pytest
import torch as th
from exact import close
from torch import Tensor, nn

from sb3_genoffline.generative.schedules import NoiseSchedule
from sb3_genoffline.generative.window_diffusion import WindowDiffusion, loss_weights, plan_windows, with_present

pytestmark = pytest.mark.usefixtures("float64")
STEPS = [1, 2, 10, 19, 20]


class Line(nn.Module):
    """0.5x + 0.1·(t − 1)"""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * x + 0.1 * (t - 1).view(-1, 1, 1)


def flat(*shape: int) -> Tensor:
    return th.arange(int(np.prod(shape)), dtype=th.float64).view(shape)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("betas", [0.00799272, 0.02007500, 0.13592207, 0.74847609, 0.999]),
        ("alpha_bars", [0.99200728, None, 0.49384359, 0.00605964, 6.0596e-6]),
        ("reverse_variances", [0.0, 0.00574954, 0.11506123, 0.73489723, 0.99295243]),
        ("clean_coefficients", [1.0, 0.71646609, 0.20301283, 0.11688305, 0.07776635]),
        ("noisy_coefficients", [0.0, 0.28351357, 0.78689268, 0.49242298, 0.03143134]),
    ],
)
def test_the_schedule_has_known_constants(what: str, expected: list[float | None]) -> None:
    constants = getattr(NoiseSchedule.make("cosine", 20, "posterior"), what)
    for t, number in zip(STEPS, expected, strict=True):
        if number is not None:
            close(constants[t], number, 1e-8)


def test_the_first_action_counts_its_weight_and_later_steps_less() -> None:
    """The weight of the first action is not multiplied by its step's."""
    like = th.zeros(())
    discounted, even = loss_weights(4, 3, 1, 10.0, 0.9, like), loss_weights(4, 3, 1, 10.0, 1.0, like)
    close(discounted[0], [10, 1.16312882, 1.16312882], 1e-8)
    close(discounted[1:], np.repeat([[1.04681593], [0.94213434], [0.84792091]], 3, 1), 1e-8)
    k = flat(2, 4, 3)
    errors = (th.sin(k) - th.cos(0.5 * k)).square()
    close(((discounted * errors).mean(), (even * errors).mean()), (2.05434962, 2.12206933), 1e-8)
    close(errors[:, 0, :1].mean() / 10, 0.16201201, 1e-8)  # the code's a0_loss


def test_the_loss_of_noisy_windows_is_known() -> None:
    """The present state is clean in what the network reads, and an error of the network there counts nothing."""
    model, k = WindowDiffusion(Line(), 2, 20), flat(2, 4, 3)
    clean, noise, t = 0.5 * th.cos(0.7 * k), th.sin(1 + k), th.tensor([4, 18])
    noisy = model.add_noise(clean, noise, t)
    assert th.equal(noisy[:, 0, 1:], clean[:, 0, 1:]) and not th.isclose(noisy[:, 0, 0], clean[:, 0, 0]).any()
    predicted = model(noisy, t)
    assert th.equal(predicted[:, 0, 1:], clean[:, 0, 1:])
    close((loss_weights(4, 3, 1, 10.0, 1.0, clean) * (predicted - clean).square()).mean(), 2.98048716, 1e-8)


def plan(**changes: Any) -> tuple[Tensor, Tensor]:
    """Two windows of one action and two states over five steps, up the sum of cos(k)·x_k + ½x_k²."""
    model, k = WindowDiffusion(Line(), 2, 5), flat(2, 4, 3)
    noise = th.stack([th.cos(k), *(th.sin(1 + k + 0.3 * j) for j in range(4))])

    def value(x: Tensor, t: int) -> Tensor:
        return (th.cos(flat(4, 3)) * x + 0.5 * x.square()).sum((1, 2))

    present = th.tensor([[0.2, -0.4]]).repeat(2, 1)
    return plan_windows(model.predict_clean, value, model.schedule, noise, present, **changes)


def test_a_guided_plan_is_known() -> None:
    """The guide moves the input, twice, by the variance, as the sum over windows has it; values are those of x_1."""
    windows, values = plan()
    close(values, [11.76351400, 10.05324334], 1e-8)
    close(windows[0, :, 0], [0.75059135, -0.48899305, 0.70608173, -0.42056400], 1e-8)
    close(windows[0, 1, 1:], [-0.34048521, 0.23390301], 1e-8)
    close(windows[:, 0, 1:], [[0.2, -0.4]] * 2, 0.0)


def test_a_plan_without_a_guide_is_known() -> None:
    for changes in ({"guide_scale": 0.0}, {"n_guide_steps": 0}, {"guide_stop": 5}):
        windows, values = plan(**changes)
        close(windows[:, 0, 0], [0.68221447, 0.56375797], 1e-8)
        close(values, [10.18880678, 8.72917131], 1e-8)


def test_the_last_steps_are_guided_too_where_that_is_wanted() -> None:
    close(plan(guide_stop=0)[0][0, 0, 0], 0.76492702, 1e-8)


def test_a_guide_works_where_gradients_are_off_and_leaves_none_behind() -> None:
    weight = nn.Parameter(th.tensor(0.5))
    model = WindowDiffusion(Line(), 2, 5)

    def value(x: Tensor, t: int) -> Tensor:
        return weight * x.square().sum((1, 2))

    with th.no_grad():
        arguments = (model.predict_clean, value, model.schedule, th.cos(flat(5, 2, 4, 3)), th.zeros(2, 2))
        guided, free = (plan_windows(*arguments, guide_scale=scale)[0] for scale in (0.5, 0.0))
    assert weight.grad is None and not guided.requires_grad and not th.allclose(guided, free)


def test_writing_the_present_leaves_the_window_that_it_is_given() -> None:
    windows = flat(2, 4, 3)
    written = with_present(windows, -th.ones(2, 2))
    assert th.equal(windows, flat(2, 4, 3)) and th.equal(written[:, 0], th.tensor([[0.0, -1, -1], [12.0, -1, -1]]))
