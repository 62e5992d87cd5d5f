"""The actor-critic of CPED (its README, claims 13 to 20 and 25)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from torch import Tensor

from sb3_genoffline import OfflineDataset
from sb3_genoffline.cped import CPED
from sb3_genoffline.cped.cped import CPEDNoise
from sb3_genoffline.cped.multiplier import SCHEDULES, scheduled_alpha
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import EnsembleLinear

MakeCped = Callable[..., CPED]
MakeBatch = Callable[..., TransitionBatch]


def flat(tensors: Any) -> Tensor:
    return th.cat([tensor.detach().flatten() for tensor in tensors])


def weights(model: CPED) -> dict[str, Tensor]:
    """Of each network, as one vector."""
    names = ("actor", "actor_target", "critic", "critic_target")
    state = {name: flat(getattr(model, name).parameters()) for name in names}
    return state | {"density": flat(model.policy.density.state_dict().values()), "log_alpha": model.log_alpha.detach().clone()}


def constant_critics(model: CPED, first: float, second: float) -> None:
    """Both critics and their targets give these values everywhere."""
    for critic in (model.critic, model.critic_target):
        last = critic.trunk[-1]
        assert isinstance(last, EnsembleLinear)
        with th.no_grad():
            last.weight.zero_()
            last.bias.copy_(th.tensor([first, second]).view(2, 1, 1))


def actor_gradient(model: CPED, batch: TransitionBatch) -> Tensor:
    """Of an update that changes nothing else, as the optimizer gets it."""
    model.step(batch, model.draw_noise(len(batch.rewards)))
    return flat(parameter.grad for parameter in model.actor.parameters())


# ---------------------------------------------------------------------- claim 14: random numbers


@pytest.mark.parametrize("flow", ["spline", "affine", "nice"])
def test_the_target_noise_is_new_at_every_step_and_no_flow_touches_the_global_generators(
    make_cped: MakeCped, make_data: Callable[..., OfflineDataset], monkeypatch: pytest.MonkeyPatch, flow: str
) -> None:
    seen: list[Tensor] = []
    update = CPED.update

    def spy(model: CPED, batch: TransitionBatch, noise: CPEDNoise) -> dict[str, Tensor]:
        seen.append(noise.smoothing)
        return update(model, batch, noise)

    monkeypatch.setattr(CPED, "update", spy)
    model = make_cped(flow=flow, fitted=False, n_critic_steps=2, flow_joint_steps=8)
    before = th.get_rng_state(), np.random.get_state()
    model.learn_offline(make_data(), 12)
    assert th.equal(before[0], th.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(before[1], np.random.get_state(), strict=True))
    drawn = th.stack([noise.flatten()[:24] for noise in seen])  # the last batch of an epoch is smaller
    assert len(drawn) == 12 and (th.corrcoef(drawn) - th.eye(12)).abs().max() < 0.9
    assert len(drawn.unique()) == drawn.numel()


def test_the_same_seed_trains_the_same_agent_and_another_seed_another(
    make_cped: MakeCped, make_data: Callable[..., OfflineDataset]
) -> None:
    first, again, other = (make_cped(fitted=False, seed=seed).learn_offline(make_data(), 9) for seed in (3, 3, 4))
    for name, value in weights(first).items():
        assert th.equal(value, weights(again)[name]), name
        assert not th.equal(value, weights(other)[name]), name


# ---------------------------------------------------------------------- claim 15: the target


@pytest.mark.parametrize("clipped", [True, False])
def test_the_target_is_the_smaller_q_at_a_clipped_action_with_clipped_noise(
    make_cped: MakeCped, make_batch: MakeBatch, clipped: bool
) -> None:
    model, batch = make_cped(clip_target_action=clipped), make_batch(300)
    for parameter in (*model.actor_target.parameters(), *model.critic_target.parameters()):
        parameter.data.normal_(generator=th.Generator().manual_seed(parameter.numel()))  # not the online networks'
    judged: list[Tensor] = []
    model.critic_target.register_forward_hook(lambda _, inputs, output: judged.append(inputs[1]))
    noise = CPEDNoise(4 * th.randn(300, 2, generator=th.Generator().manual_seed(0)))
    target = model.critic_targets(batch, noise)
    (chosen,) = judged
    smoothing = chosen - model.actor_target(batch.next_observations)
    assert smoothing.abs().max() <= 0.5 + 1e-6
    inside = chosen.abs() < 1
    assert th.allclose(smoothing[inside], (0.2 * noise.smoothing).clamp(-0.5, 0.5)[inside], atol=1e-5)
    assert bool((chosen.abs() > 1).any()) != clipped and ((chosen.abs() == 1).any() if clipped else True)
    first, second = model.critic_target(batch.next_observations, chosen)
    assert (first < second).any() and (second < first).any()
    assert th.allclose(target, batch.rewards + 0.99 * batch.masks * th.minimum(first, second), atol=1e-5)
    assert not target.requires_grad


def test_terminals_cut_the_bootstrap_and_time_outs_do_not(
    make_cped: MakeCped, make_data: Callable[..., OfflineDataset]
) -> None:
    model, data = make_cped(gamma=0.9), make_data()
    model.set_dataset(data)
    constant_critics(model, 10.0, 20.0)
    rows = model.replay_buffer.rows_at(th.arange(len(data)))  # type: ignore[union-attr]
    bootstrapped = model.critic_targets(rows, model.draw_noise(len(data))) - rows.rewards
    ended, cut = th.tensor(data.terminations), th.tensor(data.truncations)
    assert ended.sum() == cut.sum() == 10
    assert (bootstrapped[ended] == 0).all()
    assert th.allclose(bootstrapped[~ended], th.tensor(9.0), atol=1e-5)


# ---------------------------------------------------------------------- claim 16: who moves when


def test_each_part_starts_at_its_update_and_the_actor_moves_every_second(make_cped: MakeCped, make_batch: MakeBatch) -> None:
    model = make_cped(warmup_steps=3, critic_start=5, q_start=8, tau=0.25, learning_rate=1e-2)
    state = weights(model)
    assert th.equal(state["actor"], state["actor_target"]) and th.equal(state["critic"], state["critic_target"])
    for t in range(13):
        info = model.step(make_batch(12, seed=t), model.draw_noise(12))
        before, state = state, weights(model)
        moved = {name for name in state if not th.equal(before[name], state[name])}
        even = t % 2 == 0
        expected = {"critic"} if t >= 5 else set()
        if even and t >= 3:
            expected |= {"actor", "actor_target"}
        if even and t >= 5:
            expected |= {"critic_target"}
        if even and t >= 8:
            expected |= {"log_alpha"}
        assert moved == expected, t
        assert ("q_mean" in info) == (t >= 5), t
        assert ("nll_pi" in info) == (even and t >= 4) and ("actor_q" in info) == (even and t >= 8), t
        if even:
            for name in ("actor", "critic"):
                assert th.allclose(state[f"{name}_target"], 0.75 * before[f"{name}_target"] + 0.25 * state[name], atol=1e-6)


def test_before_the_q_term_the_critics_have_no_say_and_without_a_constraint_the_actor_waits(
    make_cped: MakeCped, make_batch: MakeBatch
) -> None:
    trained = []
    for q in (0.0, 100.0):
        model = make_cped(q_start=4)
        model.critic.trunk[-1].weight.data.mul_(1 + q)  # type: ignore[union-attr,operator]
        for t in range(4):
            model.step(make_batch(12, seed=t), model.draw_noise(12))
        trained.append(weights(model)["actor"])
    assert th.equal(*trained)
    free = make_cped(q_start=4, alpha_mode="fixed", alpha=0.0)
    start = weights(free)["actor"]
    for t in range(5):
        assert th.equal(weights(free)["actor"], start)
        free.step(make_batch(12, seed=t), free.draw_noise(12))
    assert not th.equal(weights(free)["actor"], start)


# ---------------------------------------------------------------------- claims 18 to 20: the multiplier


@pytest.mark.parametrize("sgd", [True, False])
def test_alpha_rises_where_the_policy_is_less_likely_than_allowed_and_falls_where_it_is_more(
    make_cped: MakeCped, make_batch: MakeBatch, sgd: bool
) -> None:
    for epsilon, sign in ((-50.0, 1), (50.0, -1)):
        model = make_cped(epsilon=epsilon, alpha_sgd=sgd, alpha_learning_rate=0.01, alpha=2.0)
        info = model.step(make_batch(12), model.draw_noise(12))
        step = model.log_alpha.item() - math.log(2.0)
        gap = (info["nll_pi"] - epsilon).item()
        assert gap * sign > 0 and info["alpha"].item() == pytest.approx(2.0)
        assert step == pytest.approx(0.01 * gap if sgd else 0.01 * sign, rel=1e-3)


def test_alpha_stays_within_its_bounds(make_cped: MakeCped, make_batch: MakeBatch) -> None:
    for epsilon, bound in ((-50.0, 10.0), (50.0, -5.0)):
        model = make_cped(epsilon=epsilon, alpha_sgd=True, alpha_learning_rate=100.0)
        for _ in range(3):
            model.step(make_batch(12), model.draw_noise(12))
            assert model.log_alpha.item() == bound


@pytest.mark.parametrize(("mode", "matters"), [("fixed", False), ("schedule", False), ("dual", True)])
def test_only_in_the_dual_does_the_threshold_change_the_training(
    make_cped: MakeCped, make_batch: MakeBatch, mode: str, matters: bool
) -> None:
    trained = []
    for epsilon in (-5.0, 5.0):
        model = make_cped(alpha_mode=mode, epsilon=epsilon, alpha_learning_rate=0.1)
        for t in range(5):
            info = model.step(make_batch(12, seed=t), model.draw_noise(12))
        assert info["epsilon"] == epsilon
        trained.append(weights(model))
    assert th.equal(trained[0]["actor"], trained[1]["actor"]) != matters
    assert th.equal(trained[0]["log_alpha"], trained[1]["log_alpha"]) != matters


def test_the_three_thresholds_are_what_they_are_called(make_cped: MakeCped, make_batch: MakeBatch) -> None:
    batch = make_batch(12)
    for epsilon, expected in (("batch_mean", None), ("quantile", 3.0), (-0.7, -0.7)):
        model = make_cped(epsilon=epsilon)
        mean = model.policy.nll(batch.observations, batch.actions).mean().item()
        info = model.step(batch, model.draw_noise(12))
        assert info["epsilon"].item() == pytest.approx(mean if expected is None else expected)


MUJOCO_STEPS = [
    *((0, 1000.0), (99_999, 1000.0), (100_000, 1000.0), (100_001, 10.0), (199_999, 10.0), (200_000, 7.5), (299_999, 7.5)),
    *((300_000, 5.0), (399_999, 5.0), (400_000, 2.5), (499_999, 2.5), (500_000, 2.5), (500_001, 1.5), (10**7, 1.5)),
]
ANTMAZE_STEPS = [(0, 0.25), (200_000, 0.25), (200_001, 0.1), (500_000, 0.1), (500_001, 0.08), (10**7, 0.08)]


@pytest.mark.parametrize(("schedule", "steps"), [("mujoco", MUJOCO_STEPS), ("antmaze", ANTMAZE_STEPS)])
@pytest.mark.parametrize("flow_steps", [1, 50_000, 300_000, 500_000])
def test_the_schedules_are_the_released_ones_counted_from_the_policys_first_update(
    make_cped: MakeCped, schedule: str, steps: list[tuple[int, float]], flow_steps: int
) -> None:
    model = make_cped(alpha_mode="schedule", alpha_schedule=schedule, flow_steps=flow_steps)
    for update, expected in steps:
        model._n_updates = update
        assert model.alpha_now().item() == pytest.approx(expected), update


def test_no_schedule_turns_negative_and_mujocos_is_the_formula_where_that_is_right() -> None:
    for name in SCHEDULES:
        assert min(scheduled_alpha(name, update) for update in range(0, 2_000_000, 5000)) > 0
    for update in range(100_001, 500_000, 7919):
        assert scheduled_alpha("mujoco", update) == 10 - 2.5 * ((update - 100_000) // 100_000)


def test_a_schedule_of_ones_own_is_followed(make_cped: MakeCped, make_batch: MakeBatch) -> None:
    model = make_cped(alpha_mode="schedule", alpha_schedule=[(0, 4.0), (3, 0.5), (6, 0.0)], policy_delay=1)
    seen = [model.step(make_batch(12), model.draw_noise(12))["alpha"].item() for _ in range(8)]
    assert seen == [4.0, 4.0, 4.0, 0.5, 0.5, 0.5, 0.0, 0.0]


# ---------------------------------------------------------------------- claim 17: the actor's loss


def test_the_actor_climbs_the_smaller_q_and_descends_the_nll_of_its_own_actions(
    make_cped: MakeCped, make_batch: MakeBatch
) -> None:
    model, batch = make_cped(alpha_mode="fixed", alpha=0.7, max_grad_norm=None, critic_start=9), make_batch(64)
    for parameter in model.critic.parameters():
        parameter.data.normal_(generator=th.Generator().manual_seed(parameter.numel()))
    actions = model.actor(batch.observations)
    first, second = model.critic(batch.observations, actions)
    assert (first < second).any() and (second < first).any()
    loss = 0.7 * model.policy.nll(batch.observations, actions).mean() - th.minimum(first, second).mean()
    expected = flat(th.autograd.grad(loss, list(model.actor.parameters())))
    assert th.allclose(actor_gradient(model, batch), expected, rtol=1e-4, atol=1e-6)


def test_normalised_the_size_of_q_does_not_matter_and_otherwise_it_does(make_cped: MakeCped, make_batch: MakeBatch) -> None:
    batch = make_batch(32)
    shares = {}
    for normalize in (True, False):
        gradients = []
        for scale in (1.0, 100.0):
            model = make_cped(q_normalize=normalize, alpha_mode="fixed", alpha=0.0, max_grad_norm=None, critic_start=9)
            last = model.critic.trunk[-1]
            for parameter in last.parameters():  # type: ignore[union-attr]
                parameter.data.mul_(scale)
            gradients.append(actor_gradient(model, batch))
        shares[normalize] = (gradients[1].norm() / gradients[0].norm()).item()
    assert shares[True] == pytest.approx(1.0, rel=1e-4) and shares[False] == pytest.approx(100.0, rel=1e-4)


@pytest.mark.parametrize("limit", [0.01, None])
def test_the_actors_gradient_alone_is_clipped(make_cped: MakeCped, make_batch: MakeBatch, limit: float | None) -> None:
    model, batch = make_cped(max_grad_norm=limit), make_batch(12)
    norm = actor_gradient(model, batch).norm().item()
    critic_norm = flat(parameter.grad for parameter in model.critic.parameters()).norm()
    assert critic_norm > 0.1
    assert norm == pytest.approx(0.01, rel=1e-3) if limit else norm > 0.1


# ---------------------------------------------------------------------- claim 13: frozen means frozen


@pytest.mark.parametrize("flow", ["spline", "affine", "nice"])
def test_the_fitted_density_is_frozen_to_the_bit_and_still_pulls_the_actor(
    make_cped: MakeCped, make_data: Callable[..., OfflineDataset], flow: str
) -> None:
    model = make_cped(flow=flow, fitted=False, q_start=10**6)
    data = make_data()
    model.pretrain(data)
    before = {name: tensor.clone() for name, tensor in model.policy.density.state_dict().items()}
    actor = weights(model)["actor"]
    model.learn_offline(data, 8)
    assert not any(parameter.requires_grad for parameter in model.policy.density.parameters())
    assert all(th.equal(tensor, before[name]) for name, tensor in model.policy.density.state_dict().items())
    assert not th.equal(weights(model)["actor"], actor)  # the NLL alone moves it: the Q-term has not begun


def test_with_joint_steps_the_density_moves_in_those_updates_only(make_cped: MakeCped, make_batch: MakeBatch) -> None:
    model = make_cped(flow_joint_steps=3)
    for t in range(6):
        before = weights(model)["density"]
        info = model.step(make_batch(12, seed=t), model.draw_noise(12))
        assert th.equal(before, weights(model)["density"]) == (t >= 3), t
        assert ("flow_nll" in info) == (t < 3)
        assert not any(parameter.requires_grad for parameter in model.policy.density.parameters())


# ---------------------------------------------------------------------- claim 25: what a mean hides


def test_the_share_of_states_where_the_policy_leaves_the_data_is_logged_though_the_mean_is_fine(
    make_cped: MakeCped, make_data: Callable[..., OfflineDataset], make_batch: MakeBatch
) -> None:
    model = make_cped(epsilon=0.0)
    nll = th.tensor([9.0, 9.0, 9.0] + [-9.0] * 9)
    model.policy.nll = lambda states, actions: nll + 0.0 * actions.sum(1)  # type: ignore
    info = model.step(make_batch(12), model.draw_noise(12))
    assert info["nll_pi"].item() == -4.5 < info["epsilon"].item() == 0.0
    assert info["violation_share"].item() == 0.25  # more than 6.0, the 99% quantile of the data
    logged = make_cped(fitted=False).learn_offline(make_data(), 6).last_metrics
    assert 0.0 <= logged["violation_share"] <= 1.0
    assert {"alpha", "epsilon", "nll_pi", "q_min", "q_max", "skipped"} <= set(logged)
    assert logged["skipped"] == 0.0
