"""What the consistency model learns in a minute: a spread that depends on the action (QDQ's README, claim 14)."""

from typing import NamedTuple

import pytest
import torch as th
from torch import Tensor

from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.generative.consistency import ConsistencyModel, DiffusionTeacher, sample_heun
from sb3_genoffline.qdq.fit import DistillationFit, QItems, TeacherFit
from sb3_genoffline.qdq.sampler import ConsistencyQ

N_ITEMS, N_JUDGED, N_SAMPLES, N_STEPS = 5000, 600, 50, 2500


class Fitted(NamedTuple):
    """
    What is known of the judged items, each (600,).

    :param actions: a
    :param spread: σ(a), what H should be
    :param h: of the consistency model
    :param h_teacher: standard deviation of the teacher's many-step samples from the same noise
    :param error: of the mean of the consistency model's samples
    """

    actions: Tensor
    spread: Tensor
    h: Tensor
    h_teacher: Tensor
    error: Tensor


def run(phase: Fit) -> None:
    phase.begin()
    while not phase.done:
        phase.update()
        phase.step += 1
    phase.finish()


def fit(seed: int, n_levels: int) -> Fitted:
    """q = s + a + σ(a)·ε with σ(a) = 0.1 + 0.9·sigmoid(8a), fitted with the settings for short runs."""
    generator = th.Generator().manual_seed(seed)
    conditions = 2 * th.rand(N_ITEMS, 2, generator=generator) - 1
    states, actions = conditions.split(1, dim=1)
    spread = 0.1 + 0.9 * th.sigmoid(8 * actions[:, 0])
    q = conditions.sum(1) + spread * th.randn(N_ITEMS, generator=generator)
    th.manual_seed(seed)
    sampler = ConsistencyQ(1, 1, (64, 64, 64))
    sampler.set_range(q)
    items = QItems(conditions, sampler.normalize(q), 128, generator)
    teacher = DiffusionTeacher(sampler.model.network.fresh())
    target = ConsistencyModel(sampler.model.network.fresh()).requires_grad_(False)
    run(TeacherFit(N_STEPS, items, teacher, learning_rate=2e-3))
    run(
        DistillationFit(N_STEPS, items, teacher, sampler, target, n_levels=n_levels, learning_rate=1e-3, ema=0.05, ema_every=1)
    )
    c, states, actions = conditions[:N_JUDGED], states[:N_JUDGED], actions[:N_JUDGED]
    noise = th.randn(N_JUDGED, N_SAMPLES, generator=generator)
    many_steps = sample_heun(teacher, c.repeat_interleave(N_SAMPLES, 0), noise.flatten()).view_as(noise)
    return Fitted(
        actions=actions[:, 0],
        spread=spread[:N_JUDGED],
        h=sampler.uncertainty(states, actions, noise),
        h_teacher=sampler.denormalize(many_steps).std(dim=1, correction=0),
        error=sampler.sample(states, actions, noise).mean(1) - c.sum(1),
    )


def rank_correlation(x: Tensor, y: Tensor) -> float:
    ranks = th.stack([x.argsort().argsort(), y.argsort().argsort()]).double()
    return th.corrcoef(ranks)[0, 1].item()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_uncertainty_is_the_spread_of_the_returns(seed: int) -> None:
    fitted = fit(seed, n_levels=18)
    wide, narrow = fitted.h[fitted.actions > 0.5].median(), fitted.h[fitted.actions < -0.5].median()
    print(
        f"seed {seed}: rank correlation {rank_correlation(fitted.h, fitted.spread):.3f}, of the teacher "
        f"{rank_correlation(fitted.h_teacher, fitted.spread):.3f}; median H {wide:.3f} (1.0), {narrow:.3f} (0.1); "
        f"|mean's error| {fitted.error.abs().mean():.3f}; H by the teacher's {(fitted.h / fitted.h_teacher).median():.3f}"
    )
    assert rank_correlation(fitted.h, fitted.spread) > 0.8
    assert rank_correlation(fitted.h_teacher, fitted.spread) > 0.8
    assert 0.75 < wide < 1.25
    assert narrow < 0.4
    assert fitted.error.abs().mean() < 0.25
    assert (fitted.h / fitted.h_teacher).median() > 1  # distillation blurs


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_thousand_noise_levels_need_more_than_a_few_thousand_steps(seed: int) -> None:
    """News travels from t_min to t_max one level at a time: a short fit looks fine and its uncertainty says the opposite."""
    fitted = fit(seed, n_levels=1000)
    correlation = rank_correlation(fitted.h, fitted.spread)
    print(f"seed {seed}: rank correlation {correlation:.3f}")
    assert rank_correlation(fitted.h_teacher, fitted.spread) > 0.8
    assert correlation < 0.3
