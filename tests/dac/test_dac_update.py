"""The update of DAC with the numbers of its reference implementation (README claims 7 and 9 to 16), in float64."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import close
from torch import Tensor, nn

from sb3_genoffline import DAC
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.schedules import cosine_decay
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.generative.diffusion import ConditionalDiffusion
from sb3_genoffline.nets.ensembles import EnsembleLinear

pytestmark = pytest.mark.usefixtures("float64")
MakeDac = Callable[..., DAC]
MakeBatch = Callable[..., TransitionBatch]


# ---------------------------------------------------------------------- pessimism: README claim 7

SAMPLED_Q = th.tensor([[[1.0, 3.0]], [[2.0, 6.0]], [[6.0, 0.0]]], dtype=th.float64)  # (H=3, B=1, N=2)


def target_of(model: DAC, mask: float, monkeypatch: pytest.MonkeyPatch) -> float:
    """y for r = 0.5 when the target critics give ``SAMPLED_Q``."""
    zeros = th.zeros(1, 3)
    batch = TransitionBatch(zeros, th.zeros(1, 2), th.tensor([0.5]), zeros, th.tensor([mask]))
    with monkeypatch.context() as patch:
        patch.setattr(model.critic_target, "score_samples", lambda states, actions: SAMPLED_Q)
        return model.critic_target_value(batch, model.draw_noise(1)).item()


@pytest.mark.parametrize(
    ("q_target", "rho", "over_mean", "over_max"),
    [
        ("lcb", 0.0, 3.0, 5.0),
        ("lcb", 1.0, 2.1835034191, 3.5857864376),
        ("lcb", 1.5, 1.7752551286, 5 - 1.5 * 1.4142135624),
        ("min", 1.0, 2.0, 3.0),
        ("convex", 0.75, 2.5, 0.75 * 3 + 0.25 * 6),
    ],
)
def test_the_target_reduces_over_samples_within_each_member_and_then_over_members(
    make_dac: MakeDac, monkeypatch: pytest.MonkeyPatch, q_target: str, rho: float, over_mean: float, over_max: float
) -> None:
    for max_q, expected in ((False, over_mean), (True, over_max)):
        model = make_dac(q_target=q_target, rho=rho, max_q=max_q, gamma=0.99)
        close(target_of(model, 1.0, monkeypatch), 0.5 + 0.99 * expected)
        close(target_of(model, 0.0, monkeypatch), 0.5)


def test_the_target_has_the_reference_values(make_dac: MakeDac, monkeypatch: pytest.MonkeyPatch) -> None:
    close(target_of(make_dac(), 1.0, monkeypatch), 2.6616683849)
    close(target_of(make_dac(max_q=True), 1.0, monkeypatch), 4.0499285733)


def test_rand_convex_weights_are_normalised_over_members(make_dac: MakeDac) -> None:
    model = make_dac(q_target="rand_convex")
    values, weights = th.tensor([[2.0, 1.0], [4.0, 1.0], [3.0, 1.0]]), th.tensor([[0.5, 0.1], [0.25, 0.2], [0.25, 0.7]])
    close(model.reduce_ensemble(values, weights), [2.75 / (1 + 1e-6), 1 / (1 + 1e-6)])
    drawn = model.draw_noise(200).ensemble_weights
    assert drawn is not None and drawn.shape == (3, 200)
    assert 0 <= drawn.min() < 0.05 and 0.95 < drawn.max() < 1  # uniform, a draw per member and row


# ---------------------------------------------------------------------- the critics' loss: README claim 9


class FixedQ(nn.Module):
    """Stands in for the ensemble: its output is its parameter."""

    def __init__(self, values: Any) -> None:
        super().__init__()
        self.values = nn.Parameter(th.tensor(values))

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        return self.values


@pytest.fixture
def rest() -> SimpleNamespace:
    """Stands in for an optimizer, so that gradients can be read and nothing moves."""
    return SimpleNamespace(param_groups=[{"lr": 0.0}], step=lambda: None)


def test_the_critic_loss_is_the_mean_over_members_and_rows(
    make_dac: MakeDac, make_batch: MakeBatch, rest: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_dac(n_critics=2, max_grad_norm=None)
    fixed = FixedQ([[1.0, 2.0], [3.0, -1.0]])
    rest.param_groups[0]["params"] = [fixed.values]
    monkeypatch.setattr(model, "critic", fixed)
    monkeypatch.setattr(model, "critic_optimizer", rest)
    monkeypatch.setattr(model, "critic_target_value", lambda batch, noise: th.tensor([2.0, 0.0]))
    monkeypatch.setattr("sb3_genoffline.dac.dac.soft_update", lambda *args: None)
    info = model.step(make_batch(2), model.draw_noise(2))
    close(info["critic_loss"], 1.75)
    close(fixed.values.grad, [[-0.5, 1.0], [0.5, -0.5]])


# ---------------------------------------------------------------------- eta and the learning rate: README claims 14 and 15


class FixedNoise(nn.Module):
    """Stands in for the actor: predicts the same whatever it sees, and knows the vp schedule."""

    def __init__(self, predicted: Any) -> None:
        super().__init__()
        self.predicted = nn.Parameter(th.as_tensor(predicted))
        real = ConditionalDiffusion(3, 2, net_arch=[4])
        self.sigmas, self.add_noise, self.noise_shape = real.sigmas, real.add_noise, real.noise_shape

    def forward(self, states: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return self.predicted


@pytest.mark.parametrize(
    ("eta", "eta_lr", "error", "threshold", "expected"),
    [
        (1.0, 0.001, 0.3, 1.0, 0.9993),
        (1.0, 0.001, 3.5, 1.0, 1.001),
        (0.001, 0.001, 0.5, 1.0, 0.001),
        (100.0, 0.01, 9.0, 1.0, 100.0),
        (0.5, 0.01, 1.35, 1.3, 0.5005),
        (0.7, 0.0, 3.5, 1.0, 0.7),
    ],
)
def test_the_dual_step_is_clipped_and_bounded(
    make_dac: MakeDac, make_batch: MakeBatch, rest: SimpleNamespace, monkeypatch: pytest.MonkeyPatch,
    eta: float, eta_lr: float, error: float, threshold: float, expected: float,
) -> None:  # fmt: skip
    model = make_dac(eta=eta, eta_lr=eta_lr, bc_threshold=threshold)
    noise = model.draw_noise(6)
    actor = FixedNoise(noise.eps + error**0.5)
    rest.param_groups[0]["params"] = [actor.predicted]
    monkeypatch.setattr(model, "actor", actor)
    monkeypatch.setattr(model, "actor_optimizer", rest)
    info = model.step(make_batch(6), noise)
    close(info["eta"], eta)
    close(info["bc_loss"], error)
    close(model.eta_tensor, expected)


def test_the_cosine_learning_rate_has_the_reference_values() -> None:
    expected = {0: 3e-4, 500_000: 2.5606601718e-4, 1_000_000: 1.5e-4, 1_500_000: 4.3933982822e-5, 1_900_000: 1.8467489107e-6}
    for update, rate in expected.items():
        close(3e-4 * cosine_decay(update, 2_000_000), rate, 1e-14)
    for update in (2_000_000, 2_000_001, 10**9):
        assert cosine_decay(update, 2_000_000) == 0.0


def test_the_first_update_uses_the_whole_learning_rate_and_the_next_ones_the_cosine(
    make_dac: MakeDac, make_batch: MakeBatch
) -> None:
    model = make_dac(learning_rate=3e-4, critic_learning_rate=1e-3, lr_decay_steps=4)
    for expected in (1.0, 0.8535533906, 0.5, 0.1464466094, 0.0, 0.0):
        model.step(make_batch(6), model.draw_noise(6))
        close(model.actor_optimizer.param_groups[0]["lr"], 3e-4 * expected)
        close(model.critic_optimizer.param_groups[0]["lr"], 1e-3 * expected)


# ---------------------------------------------------------------------- the actor's loss: README claim 10


@pytest.mark.parametrize(
    ("guidance", "guidance_loss", "loss", "slope", "stationary"),
    [
        (
            "soft", 0.0037577318, 0.0118827318, [[-0.0106211341, 0.0212422682], [-0.0175240736, 0.025]],
            [[0.4849690727, -0.9699381453], [0.1401925891, 0.3]],
        ),
        ("hard", 0.005, 0.013125, [[-0.01, 0.02], [-0.0175, 0.025]], [[0.48, -0.96], [0.14, 0.3]]),
    ],
)  # fmt: skip
def test_the_actor_loss_its_slope_and_its_minimum_have_the_reference_values(
    make_dac: MakeDac, make_batch: MakeBatch, rest: SimpleNamespace, monkeypatch: pytest.MonkeyPatch,
    guidance: str, guidance_loss: float, loss: float, slope: Any, stationary: Any,
) -> None:  # fmt: skip
    model = make_dac(guidance=guidance, eta=0.25, eta_lr=0.0, max_grad_norm=None)
    noise = model.draw_noise(2)._replace(t=th.tensor([2, 5]), eps=th.tensor([[0.5, -1], [0.2, 0.3]]))
    normalised = th.tensor([[0.01, -0.02], [0.03, 0.0]])

    def unscaled(states: Tensor, x_t: Tensor) -> Tensor:
        clean = model.critic_target.score_samples(states, batch.actions.unsqueeze(1))
        return normalised * (clean.abs().mean() + 1e-6)

    batch = make_batch(2)
    monkeypatch.setattr(model, "q_gradient", unscaled)
    for predicted, minimum in (([[0.4, -0.8], [0.0, 0.5]], False), (stationary, True)):
        actor = FixedNoise(predicted)
        rest.param_groups[0]["params"] = [actor.predicted]
        monkeypatch.setattr(model, "actor", actor)
        monkeypatch.setattr(model, "actor_optimizer", rest)
        info = model.step(batch, noise)
        if minimum:
            close(actor.predicted.grad, np.zeros((2, 2)), 1e-9)
        else:
            close(info["bc_loss"], 0.0325)
            close(info["guidance_loss"], guidance_loss)
            close(info["actor_loss"], loss)
            close(actor.predicted.grad, slope)


# ---------------------------------------------------------------------- clipping: README claim 16


def test_the_gradient_norm_is_one_over_all_tensors_together() -> None:
    for pieces, expected in (((3.0, 4.0), (0.6, 0.8)), ((0.3, 0.4), (0.3, 0.4))):
        parameters = [nn.Parameter(th.zeros(1)), nn.Parameter(th.zeros(1))]
        optimizer = th.optim.SGD(parameters, lr=1.0)
        loss = pieces[0] * parameters[0].sum() + pieces[1] * parameters[1].sum()
        gradient_step(optimizer, loss, learning_rate=1.0, max_grad_norm=1.0)
        close([p.item() for p in parameters], [-x for x in expected], 1e-6)  # torch divides by (norm + 1e-6)


# ---------------------------------------------------------------------- where gradients go: README claims 11 and 12


def test_critic_updates_leave_the_actor_alone_and_actor_updates_the_critics(
    make_dac: MakeDac, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_dac()
    trained: list[set[int]] = []

    def recording_step(optimizer: Any, loss: Tensor, learning_rate: float, max_grad_norm: float) -> None:
        parameters = [p for module in (model.actor, model.critic) for p in module.parameters()]
        gradients = th.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        trained.append({id(p) for p, g in zip(parameters, gradients, strict=True) if g is not None})
        gradient_step(optimizer, loss, learning_rate, max_grad_norm)

    monkeypatch.setattr("sb3_genoffline.dac.dac.gradient_step", recording_step)
    for guidance in ("soft", "hard", "denoised"):
        model.guidance = guidance  # type: ignore[assignment]
        trained.clear()
        model.step(make_batch(6), model.draw_noise(6))
        assert trained == [{id(p) for p in model.critic.parameters()}, {id(p) for p in model.actor.parameters()}]
        targets = [*model.actor_target.parameters(), *model.critic_target.parameters()]
        assert all(p.grad is None and not p.requires_grad for p in targets)


@pytest.mark.parametrize("guidance", ["soft", "hard"])
def test_soft_and_hard_guidance_do_not_sample_in_the_actors_update(
    make_dac: MakeDac, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch, guidance: str
) -> None:
    model = make_dac(guidance=guidance)

    def refuse(*args: Any, **kwargs: Any) -> Tensor:
        raise AssertionError("the online actor was sampled from")

    monkeypatch.setattr(model.actor, "sample", refuse)
    model.step(make_batch(6), model.draw_noise(6))


def guidance_of(model: DAC, batch: TransitionBatch, factor: float, constant: float) -> Tensor:
    """g for target critics k·Q̄ + c."""
    last = [m for m in model.critic_target.modules() if isinstance(m, EnsembleLinear)][-1]
    weight, bias = last.weight.clone(), last.bias.clone()
    with th.no_grad():
        last.weight.mul_(factor)
        last.bias.mul_(factor).add_(constant)
    x_t = batch.actions + 0.3
    clean = model.critic_target.score_samples(batch.observations, batch.actions.unsqueeze(1))
    gradient = model.q_gradient(batch.observations, x_t) / (clean.abs().mean() + 1e-6)
    with th.no_grad():
        last.weight.copy_(weight)
        last.bias.copy_(bias)
    return gradient


def test_guidance_is_invariant_to_the_scale_of_q_and_not_to_its_offset(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model, batch = make_dac(), make_batch(6)
    reference = guidance_of(model, batch, 1.0, 0.0)
    np.testing.assert_allclose(guidance_of(model, batch, 7.0, 0.0), reference, rtol=1e-4)
    assert (guidance_of(model, batch, 1.0, 10.0).abs() < 0.5 * reference.abs()).all()
