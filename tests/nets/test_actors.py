"""Actors: how far a perturbation may go, and the squashed Gaussian's spread and values before the tanh."""

import pytest
import torch as th
from exact import close

from sb3_genoffline.nets.actors import PerturbationActor, SquashedGaussianActor

pytestmark = pytest.mark.usefixtures("float64")


def perturbation(pre_tanh: float, max_perturbation: float = 0.05) -> PerturbationActor:
    """One whose network's output before the tanh is a constant."""
    actor = PerturbationActor(max_perturbation, 3, 1, [4])
    last = actor.net[-2]
    assert isinstance(last, th.nn.Linear)
    last.weight.data.zero_()
    last.bias.data.fill_(pre_tanh)
    return actor


@pytest.mark.parametrize(("action", "pre_tanh", "expected"), [(0.98, 1.0, 1.0), (-0.3, -2.0, -0.34820138), (0.5, 0.0, 0.5)])
def test_a_perturbed_action_is_a_known_number(action: float, pre_tanh: float, expected: float) -> None:
    close(perturbation(pre_tanh)(th.zeros(1, 3), th.full((1, 1), action)), [[expected]], 5e-9)


def test_an_action_is_changed_by_no_more_than_the_largest_perturbation_and_stays_in_the_box() -> None:
    generator = th.Generator().manual_seed(0)
    states, actions = th.randn(50, 3, generator=generator), th.rand(50, 4, 2, generator=generator) * 2 - 1
    actor = PerturbationActor(0.05, 3, 2, [8])
    for parameter in actor.parameters():
        parameter.data.normal_(std=3.0, generator=generator)
    changed = actor(states, actions)
    assert changed.shape == (50, 4, 2) and changed.abs().max() <= 1
    assert 0.049 < (changed - actions).abs().max() <= 0.05 + 1e-12
    for sample in range(4):
        close(changed[:, sample], actor(states, actions[:, sample]), 1e-14)
    assert th.equal(PerturbationActor(0.0, 3, 2, [8])(states, actions), actions)


def test_the_clip_lets_no_gradient_through() -> None:
    actor = perturbation(3.0)
    for action, moved in ((0.98, False), (0.5, True)):
        actor.zero_grad()
        actor(th.zeros(1, 3), th.full((1, 1), action)).sum().backward()
        assert bool(actor.net[-2].bias.grad.abs().item() > 0) == moved  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("bounds", "smallest", "largest"), [((-20.0, 2.0), -20, 2), ((-5.0, 2.0), -5, 2), (None, -30, 30)], ids=str
)
def test_the_logarithm_of_the_spread_keeps_its_bounds(bounds: tuple[float, float] | None, smallest: int, largest: int) -> None:
    actor = SquashedGaussianActor(3, 2, [4], log_std_bounds=bounds)
    last = actor.net[-1]
    assert isinstance(last, th.nn.Linear)
    last.weight.data.zero_()
    last.bias.data.copy_(th.tensor([0.0, 0.0, -30.0, 30.0]))
    close(actor.distribution(th.zeros(1, 3))[1].log(), [[smallest, largest]], 1e-12)


def test_a_raw_sample_is_the_action_before_the_tanh() -> None:
    actor = SquashedGaussianActor(3, 2, [4])
    states, noise = th.randn(5, 3), 3 * th.randn(5, 6, 2)
    raw = actor.raw_sample(states, noise)
    close(raw.tanh(), actor.sample(states, noise)[0], 1e-15)
    mean, std = actor.distribution(states)
    close(raw[:, 4], mean + std * noise[:, 4], 1e-15)
    close(actor.raw_sample(states, noise[:, 4]), raw[:, 4], 1e-15)
