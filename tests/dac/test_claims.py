"""Claims about DAC with the numbers of its reference implementation (C5–C8, C10, C12–C21), in float64."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor, nn

from sb3_genoffline import DAC, OfflineDataset, load_dataset
from sb3_genoffline.common.networks import EnsembleLinear, EnsembleQ
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.schedules import cosine_decay
from sb3_genoffline.dac import UpdateNoise
from sb3_genoffline.data.buffers import OfflineBuffer, TransitionBatch
from sb3_genoffline.data.transforms import reward_affine
from sb3_genoffline.generative.diffusion import ConditionalDiffusion
from zoo.plain_dac import PlainDAC

pytestmark = pytest.mark.usefixtures("float64")
MakeDac = Callable[..., DAC]
MakeBatch = Callable[..., TransitionBatch]


def close(actual: Any, expected: Any, tolerance: float = 1e-9) -> None:
    actual, expected = (x.detach() if isinstance(x, Tensor) else x for x in (actual, expected))
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=tolerance)


# ---------------------------------------------------------------------- C5: pessimism

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


# ---------------------------------------------------------------------- C6: the critics' loss


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
    return SimpleNamespace(param_groups=[{}], step=lambda: None)


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
    info = model.update(make_batch(2), model.draw_noise(2))
    close(info["critic_loss"], 1.75)
    close(fixed.values.grad, [[-0.5, 1.0], [0.5, -0.5]])


# ---------------------------------------------------------------------- C7, C8: eta and the learning rate


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
    info = model.update(make_batch(6), noise)
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
        model.update(make_batch(), model.draw_noise(6))
        close(model.actor_optimizer.param_groups[0]["lr"], 3e-4 * expected)
        close(model.critic_optimizer.param_groups[0]["lr"], 1e-3 * expected)


# ---------------------------------------------------------------------- C10: the actor's loss


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
        info = model.update(batch, noise)
        if minimum:
            close(actor.predicted.grad, np.zeros((2, 2)), 1e-9)
        else:
            close(info["bc_loss"], 0.0325)
            close(info["guidance_loss"], guidance_loss)
            close(info["actor_loss"], loss)
            close(actor.predicted.grad, slope)


# ---------------------------------------------------------------------- C12, C16, C17: data


def test_trajectory_scaling_divides_by_the_spread_of_returns() -> None:
    """Episodes end after rows 3, 5 and 7, one of them only seen from where its next observation lies."""
    rewards = np.array([1, 1, 1, 2, 0, 0, 5], np.float32)
    observations = np.arange(7, dtype=np.float32)[:, None]
    following = observations + 1
    following[4] += 0.5
    terminations = np.isin(np.arange(7), [2, 6])
    data = load_dataset(
        {
            "observations": observations,
            "actions": np.zeros((7, 1), np.float32),
            "rewards": rewards,
            "next_observations": following,
            "terminations": terminations,
        }
    )
    np.testing.assert_array_equal(data.episode_ends, [3, 5, 7])
    np.testing.assert_array_equal(data.episode_returns(), [3, 2, 5])
    scale, shift = reward_affine(data, "iql_locomotion")
    close(scale * rewards + shift, [333.3333, 333.3333, 333.3333, 666.6667, 0, 0, 1666.6667], 1e-4)


def ten_rows(actions: Any = None) -> OfflineDataset:
    rows = np.arange(10)
    return OfflineDataset(
        observations=rows[:, None],
        actions=np.linspace(-1, 1, 10)[:, None] if actions is None else actions,
        rewards=rows,
        next_observations=rows[:, None] + 1,
        terminations=rows == 4,
        truncations=rows == 9,
        observation_space=spaces.Box(-np.inf, np.inf, (1,)),
        action_space=spaces.Box(-1, 1, (1,)),
    )


def buffer_of(data: OfflineDataset, **kwargs: Any) -> OfflineBuffer:
    return OfflineBuffer(100, data.observation_space, data.action_space, "cpu", dataset=data, seed=0, **kwargs)


def test_the_sampler_visits_every_row_once_an_epoch_and_reshuffles() -> None:
    buffer = buffer_of(ten_rows())
    epochs = []
    for _ in range(6):
        batches = [buffer.sample(4).observations.flatten().tolist() for _ in range(3)]
        assert [len(batch) for batch in batches] == [4, 4, 2]
        epochs.append([row for batch in batches for row in batch])
        assert sorted(epochs[-1]) == list(range(10))
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_stored_actions_keep_off_the_edge_and_masks_are_zero_at_terminations_only() -> None:
    buffer = buffer_of(ten_rows())
    rows = buffer.rows_at(th.arange(10))
    assert rows.actions.double().abs().max() <= 1 - 1e-5
    close(rows.actions.flatten()[1:-1], np.linspace(-1, 1, 10)[1:-1], 1e-6)
    close(rows.masks, [1, 1, 1, 1, 0, 1, 1, 1, 1, 1])


# ---------------------------------------------------------------------- C13: clipping


def test_the_gradient_norm_is_one_over_all_tensors_together() -> None:
    for pieces, expected in (((3.0, 4.0), (0.6, 0.8)), ((0.3, 0.4), (0.3, 0.4))):
        parameters = [nn.Parameter(th.zeros(1)), nn.Parameter(th.zeros(1))]
        optimizer = th.optim.SGD(parameters, lr=1.0)
        loss = pieces[0] * parameters[0].sum() + pieces[1] * parameters[1].sum()
        gradient_step(optimizer, loss, learning_rate=1.0, max_grad_norm=1.0)
        close([p.item() for p in parameters], [-x for x in expected], 1e-6)  # torch divides by (norm + 1e-6)


# ---------------------------------------------------------------------- C14: moving averages


def test_the_actors_target_first_moves_at_update_1005_and_then_every_fifth(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model = make_dac()
    batch, noise = make_batch(2), model.draw_noise(2)
    moved = []
    for n in [0, 1, 5, 999, 1000, 1001, 1004, 1005, 1006, 1010]:
        model._n_updates = n
        before = [p.clone() for p in model.actor_target.parameters()]
        model.update(batch, noise)
        if any((p != q).any() for p, q in zip(model.actor_target.parameters(), before, strict=True)):
            moved.append(n)
    assert moved == [1005, 1010]


def test_the_critics_targets_move_at_every_update_from_the_first(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model = make_dac()
    initial = [p.clone() for p in model.critic_target.parameters()]
    model.update(make_batch(), model.draw_noise(6))
    for start, online, target in zip(initial, model.critic.parameters(), model.critic_target.parameters(), strict=True):
        close(target, 0.995 * start + 0.005 * online, 1e-14)
    assert any((p != q).any() for p, q in zip(model.critic_target.parameters(), initial, strict=True))


def test_after_200_moves_the_initial_target_weighs_0_367(make_dac: MakeDac) -> None:
    from sb3_genoffline.common.networks import soft_update

    model = make_dac()
    with th.no_grad():
        for online, target in zip(model.actor.parameters(), model.actor_target.parameters(), strict=True):
            online.zero_()
            target.fill_(1.0)
    for _ in range(200):
        soft_update(model.actor, model.actor_target, 0.005)
    close(next(model.actor_target.parameters()), np.full((32, 16), 0.3669578217), 1e-9)


# ---------------------------------------------------------------------- C15: initialisation


def test_parameter_counts_are_the_references() -> None:
    actor, critic = ConditionalDiffusion(17, 6), EnsembleQ(10, 17, 6)
    assert sum(p.numel() for p in actor.parameters()) == 149_062
    assert sum(p.numel() for p in critic.parameters()) == 1_379_850


def test_kernels_are_xavier_uniform_with_the_fans_of_one_layer_and_biases_zero() -> None:
    th.manual_seed(0)
    kernels: list[Tensor] = []
    for module in ConditionalDiffusion(17, 6).modules():
        if isinstance(module, nn.Linear):
            kernels.append(module.weight)
            assert (module.bias == 0).all()
    for module in EnsembleQ(10, 17, 6).modules():
        if isinstance(module, EnsembleLinear):
            kernels.extend(module.weight)
            assert (module.bias == 0).all()
    assert len(kernels) == 6 + 4 * 10
    for kernel in kernels:
        std = (2 / sum(kernel.shape)) ** 0.5
        assert abs(kernel.std().item() - std) < 4 * std / kernel.numel() ** 0.5
        assert kernel.abs().max() <= 3**0.5 * std
    stds = {tuple(sorted(kernel.shape)): (2 / sum(kernel.shape)) ** 0.5 for kernel in kernels}
    close([stds[55, 256], stds[256, 256], stds[1, 256]], [0.0802, 0.0625, 0.0882], 5e-5)


def test_targets_start_as_copies_and_members_differ(make_dac: MakeDac) -> None:
    model = make_dac()
    for online, target in ((model.actor, model.actor_target), (model.critic, model.critic_target)):
        for p, q in zip(online.parameters(), target.parameters(), strict=True):
            assert (p == q).all() and p.data_ptr() != q.data_ptr() and not q.requires_grad
    for layer in model.critic.modules():
        if isinstance(layer, EnsembleLinear):
            assert not any((layer.weight[i] == layer.weight[j]).any() for i in range(3) for j in range(i))


# ---------------------------------------------------------------------- C18: acting


def test_acting_takes_the_candidate_with_the_largest_mean_target_q(make_dac: MakeDac) -> None:
    model = make_dac(n_action_samples=10)
    with th.no_grad():
        for parameter in model.critic.parameters():  # the online critics must not matter
            parameter.normal_()
    states = th.randn(7, 3)
    model.policy.seed_acting(1)
    candidates = model.policy.sample_actions(states, 10).detach()
    model.policy.seed_acting(1)
    actions = model.policy._predict(states, deterministic=True).detach()
    q = th.stack([model.critic_target(states, candidates[:, i]).mean(0) for i in range(10)], dim=1)
    close(actions, candidates[th.arange(7), q.argmax(1)], 1e-14)
    assert len(set(q.argmax(1).tolist())) > 1


def test_candidates_come_from_the_online_actor(make_dac: MakeDac) -> None:
    model = make_dac()
    states = th.randn(4, 3)
    model.policy.seed_acting(0)
    before = model.policy._predict(states, deterministic=True).detach()
    with th.no_grad():
        for parameter in model.actor_target.parameters():
            parameter.zero_()
    model.policy.seed_acting(0)
    close(model.policy._predict(states, deterministic=True), before, 1e-14)


@pytest.mark.parametrize("deterministic", [True, False])
def test_with_one_candidate_the_critics_are_irrelevant(make_dac: MakeDac, deterministic: bool) -> None:
    model = make_dac(n_action_samples=1 if deterministic else 10)
    states = th.randn(4, 3)
    model.policy.seed_acting(0)
    before = model.policy._predict(states, deterministic=deterministic).detach()
    with th.no_grad():
        for parameter in [*model.critic.parameters(), *model.critic_target.parameters()]:
            parameter.fill_(float("nan"))
    model.policy.seed_acting(0)
    close(model.policy._predict(states, deterministic=deterministic), before, 1e-14)


# ---------------------------------------------------------------------- C19, C20: where gradients go


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
        model.update(make_batch(), model.draw_noise(6))
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
    model.update(make_batch(), model.draw_noise(6))


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
    model, batch = make_dac(), make_batch()
    reference = guidance_of(model, batch, 1.0, 0.0)
    np.testing.assert_allclose(guidance_of(model, batch, 7.0, 0.0), reference, rtol=1e-4)
    assert (guidance_of(model, batch, 1.0, 10.0).abs() < 0.5 * reference.abs()).all()


# ---------------------------------------------------------------------- C21: the fast form is the plain form


def plain_pairs(model: DAC, plain: PlainDAC) -> dict[str, tuple[nn.Parameter, Tensor]]:
    """Every parameter of the plain form with a view of the same numbers in the agent."""
    pairs: dict[str, tuple[nn.Parameter, Tensor]] = {}

    def add(name: str, p: nn.Parameter, data: Tensor, grad: Tensor | None) -> None:
        view = data.detach()
        view.grad = grad
        pairs[name] = (p, view)

    for name in ("actor", "actor_target"):
        linears = [m for m in getattr(model, name).noise_net.modules() if isinstance(m, nn.Linear)]
        net = getattr(plain, name)
        for i, (ours, theirs) in enumerate(zip(linears, [net.time_in, net.time_out, *net.hidden, net.out], strict=True)):
            add(f"{name}.{i}.weight", theirs.weight, ours.weight, ours.weight.grad)
            add(f"{name}.{i}.bias", theirs.bias, ours.bias, ours.bias.grad)
    for ours_name, name in (("critic", "critics"), ("critic_target", "critics_target")):
        layers = [m for m in getattr(model, ours_name).modules() if isinstance(m, EnsembleLinear)]
        for h, member in enumerate(getattr(plain, name)):
            for i, (ours, theirs) in enumerate(zip(layers, member.linears, strict=True)):
                grads = [None if p.grad is None else p.grad[h] for p in (ours.weight, ours.bias)]
                add(f"{name}.{h}.{i}.weight", theirs.weight, ours.weight[h].T, None if grads[0] is None else grads[0].T)
                add(f"{name}.{h}.{i}.bias", theirs.bias, ours.bias[h, 0], None if grads[1] is None else grads[1][0])
    return pairs


CASES: list[dict[str, Any]] = [
    {},
    {"guidance": "hard"},
    {"guidance": "denoised"},
    {"guidance": "none"},
    {"max_q": True},
    {"q_target": "min"},
    {"q_target": "convex", "rho": 0.75},
    {"q_target": "rand_convex"},
    {"sampler": "ddim"},
    {"sampler": "ddim", "ddim_stride": 2, "guidance": "hard"},
    {"clip_denoised": False, "guidance": "denoised"},
    {"max_grad_norm": None, "eta_lr": 0.0, "eta": 0.1},
    {"n_diffusion_steps": 7, "beta_schedule": "cosine", "n_critics": 1},
    {"lr_decay_steps": 3, "critic_learning_rate": 1e-3},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: ",".join(f"{k}={v}" for k, v in case.items()) or "default")
def test_an_update_equals_its_plain_form(make_dac: MakeDac, make_batch: MakeBatch, case: dict[str, Any]) -> None:
    """Losses, gradients and parameters of three updates, of which two move the actor's target."""
    model = make_dac(**({"actor_ema_every": 2, "actor_ema_start": -1, "eta_lr": 0.05} | case))
    plain = PlainDAC(model)
    for step, n_rows in enumerate((7, 7, 1)):
        batch, noise = make_batch(n_rows, seed=step), model.draw_noise(n_rows)
        ours, theirs = model.update(batch, noise), plain.update(batch, noise)
        for name, value in theirs.items():
            close(ours[name], value, 1e-10)
        close(model.eta_tensor, plain.eta, 1e-10)
        for name, (p, view) in plain_pairs(model, plain).items():
            np.testing.assert_allclose(view, p.detach(), rtol=0, atol=1e-10, err_msg=f"{name} after update {step}")
            if "target" in name or (model.guidance == "none" and "critic" in name):
                assert p.grad is None and view.grad is None
            else:
                assert p.grad is not None and view.grad is not None
                np.testing.assert_allclose(view.grad, p.grad, rtol=0, atol=1e-10, err_msg=f"gradient of {name}, {step}")


def test_the_plain_form_matches_over_a_larger_batch_split_into_blocks(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model = make_dac(n_q_samples=10, policy_kwargs={"net_arch": [8, 8]})
    plain = PlainDAC(model)
    batch, noise = make_batch(300), model.draw_noise(300)
    ours, theirs = model.update(batch, noise), plain.update(batch, noise)
    close(ours["critic_loss"], theirs["critic_loss"], 1e-10)
    close(ours["actor_loss"], theirs["actor_loss"], 1e-10)


def test_drawn_noise_has_the_shapes_of_the_update(make_dac: MakeDac) -> None:
    noise = make_dac(guidance="denoised").draw_noise(6)
    assert isinstance(noise, UpdateNoise)
    assert noise.next_actions is not None and noise.denoised is not None
    assert noise.next_actions.shape == (5, 6, 4, 2)
    assert noise.denoised.shape == (5, 6, 1, 2)
    assert noise.eps.shape == (6, 2) and noise.t.shape == (6,)


def test_schedules_may_be_given_as_objects(make_dac: MakeDac) -> None:
    assert make_dac(learning_rate=FloatSchedule(1e-3)).lr_schedule(0.5) == 1e-3
