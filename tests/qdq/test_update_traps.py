"""
The mistakes that phase D of QDQ makes easily: each test fails if one is made.

The sign of Q, the scale of H, H = 0 and the edges of the quantile are in ``test_penalty.py``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import Tensor, nn

from sb3_genoffline import OfflineDataset
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import EnsembleLinear
from sb3_genoffline.qdq import QDQ

MakeQdq = Callable[..., QDQ]
MakeBatch = Callable[..., TransitionBatch]
MakeData = Callable[..., OfflineDataset]


def fill_with_nan(module: nn.Module) -> None:
    with th.no_grad():
        for parameter in module.parameters():
            parameter.fill_(float("nan"))


def critics_give(model: QDQ, value: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Both target critics are ``value(states, actions)``, (B,)."""
    model.critic_target.forward = lambda s, a: value(s, a).expand(2, -1)  # type: ignore[method-assign,assignment]


def h_is(model: QDQ, h: Tensor) -> None:
    model.policy.q_sampler.uncertainty = lambda *_: h  # type: ignore[method-assign,assignment]


# ---------------------------------------------------------------------- signs and scales


def test_the_log_tells_how_many_uncertain_actions_have_negative_values(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    model, batch = make_qdq(beta=0.5), make_batch(8)
    h_is(model, th.tensor([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 1.05, 0.5]))
    critics_give(model, lambda s, a: th.tensor([-1.0, 2.0, 3.0, 4.0, -5.0, -6.0, -7.0, 8.0]))
    _, _, info = model.critic_targets(batch, batch.next_observations, model.draw_noise(8))
    assert info["uncertain_share"] == 0.5 and info["negative_q_share"] == 0.25
    assert info["small_h_share"] == 0.25  # 1/H > β for H < 2
    assert info["bonus_share"] == 0.5  # −1/9 > −1 inside U; three negative values times β outside
    assert (info["h_min"], info["h_max"], info["h_threshold"]) == (0.5, 9.0, 5.5)
    assert info["h_mean"].item() == pytest.approx(40.55 / 8)
    assert info["weight_mean"].item() == pytest.approx((1 / 9 + 1 / 8 + 1 / 7 + 1 / 6 + 4 * 0.5) / 8)


def test_the_uncertainty_is_in_the_units_of_the_rewards(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    model, batch = make_qdq(), make_batch(12)
    noise, sampler = model.draw_noise(12), model.policy.q_sampler
    h = []
    for scale in (1.0, 1000.0):
        sampler.set_range(scale * th.tensor([-20.0, 60.0]))
        h.append(sampler.uncertainty(batch.next_observations, batch.actions, noise.q))
    assert th.allclose(h[1], 1000.0 * h[0], rtol=1e-4)
    raw = sampler.model.sample(th.cat([batch.next_observations, batch.actions], dim=1), noise.q).std(1, correction=0)
    assert th.allclose(h[0], 40.0 * raw, rtol=1e-4)  # half of 60 − (−20)


def test_uncertainties_of_different_rows_are_never_mixed(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    model, batch = make_qdq(), make_batch(12)
    noise, sampler = model.draw_noise(12).q, model.policy.q_sampler
    together = sampler.uncertainty(batch.observations, batch.actions, noise)
    for b in range(12):
        alone = sampler.uncertainty(batch.observations[b : b + 1], batch.actions[b : b + 1], noise[b : b + 1])
        assert together[b].item() == pytest.approx(alone.item(), rel=1e-4)
    assert together.std() > 1e-3 * together.mean()


@pytest.mark.parametrize("penalty", ["paper", "antmaze_awr", "antmaze_q", "floor", "none"])
def test_each_row_has_a_target_of_its_own(make_qdq: MakeQdq, make_batch: MakeBatch, penalty: str) -> None:
    model, batch = make_qdq(penalty=penalty, q_floor=-5.0, beta=0.5), make_batch(6)
    noise, h = model.draw_noise(6), [7.0, 2.0, 3.0, 5.0, 11.0, 1.5]
    h_is(model, th.tensor(h))
    target_h, target_l, _ = model.critic_targets(batch, batch.next_observations, noise)
    actions = model.target_actions(batch.next_observations, noise)
    assert target_h.shape == target_l.shape == (6,)
    for b in range(6):
        q = min(model.critic_target(batch.next_observations[b : b + 1], actions[b : b + 1]).flatten().tolist())
        inverse, uncertain = 1 / h[b], h[b] > 4.0
        penalized = {
            "paper": q * (inverse if uncertain else 0.5),
            "antmaze_awr": q * (1 + 0.1 * (1 - inverse) if uncertain else 1.0),
            "antmaze_q": q * (inverse if uncertain else 1.0),
            "floor": -5.0 + (min(inverse, 0.5) if uncertain else 0.5) * (max(q, -5.0) + 5.0),
            "none": q,
        }[penalty]
        reward, mask = batch.rewards[b].item(), batch.masks[b].item()
        assert target_h[b].item() == pytest.approx(reward + 0.99 * mask * q, abs=1e-5)
        assert target_l[b].item() == pytest.approx(reward + 0.99 * mask * penalized, abs=1e-5)


def test_a_batch_of_one_row_trains(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    for objective in ("q_bc", "awr"):
        model = make_qdq(actor_objective=objective)
        info = model.step(make_batch(1), model.draw_noise(1))
        assert all(value.shape == () and value.isfinite() for value in info.values())
        assert info["uncertain_share"] == 0 and info["negative_q_share"] == 0


def test_without_any_uncertainty_the_update_stays_finite(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    for penalty in ("paper", "antmaze_awr", "antmaze_q", "floor"):
        model = make_qdq(penalty=penalty, beta=0.0)  # all but the smallest are flagged
        h_is(model, th.tensor([0.0, 1e-30, 1e-12, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]))
        info = model.step(make_batch(12), model.draw_noise(12))
        assert all(value.isfinite() for value in info.values())
        assert all(parameter.isfinite().all() for parameter in model.policy.parameters())


# ---------------------------------------------------------------------- where gradients go


def test_targets_come_from_target_networks_only_and_carry_no_gradient(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    model, batch = make_qdq(), make_batch(12)
    fill_with_nan(model.actor)
    fill_with_nan(model.critic)
    target_h, target_l, info = model.critic_targets(batch, batch.next_observations, model.draw_noise(12))
    for value in (target_h, target_l, *info.values()):
        assert value.isfinite().all() and not value.requires_grad


@pytest.mark.filterwarnings("ignore:The uncertainty H is no larger")
def test_no_weight_of_the_consistency_model_changes_while_the_policy_trains(make_qdq: MakeQdq, make_data: MakeData) -> None:
    model = make_qdq(penalty="floor", learning_rate=1e-2)
    sampler = model.policy.q_sampler
    before = {name: value.clone() for name, value in sampler.state_dict().items()}
    actor = model.actor.log_std.clone()
    model.learn_offline(make_data(), gradient_steps=20, log_interval=5)
    assert all(th.equal(value, before[name]) for name, value in sampler.state_dict().items())
    assert not th.equal(actor, model.actor.log_std)
    for frozen in (sampler, model.actor_target, model.critic_target):
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in frozen.parameters())


def test_the_critics_step_leaves_the_actor_alone_and_the_actors_the_critics(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    optimized = {}
    for name in ("actor", "critic"):
        model = make_qdq(
            learning_rate=0.0 if name == "critic" else 1e-2, critic_learning_rate=0.0 if name == "actor" else 1e-2
        )
        before = {part: [p.clone() for p in getattr(model, part).parameters()] for part in ("actor", "critic")}
        model.step(make_batch(12), model.draw_noise(12))
        for part, parameters in before.items():
            moved = any(not th.equal(p, q) for p, q in zip(parameters, getattr(model, part).parameters(), strict=True))
            assert moved == (part == name)
        optimizer = getattr(model, f"{name}_optimizer")
        optimized[name] = {id(p) for p in optimizer.param_groups[0]["params"]}
        assert optimized[name] == {id(p) for p in getattr(model, name).parameters()}


def test_no_gradient_flows_through_the_weights_of_awr(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    model, batch = make_qdq(actor_objective="awr", awr_temperature=1.0), make_batch(12)
    noise = model.draw_noise(12)
    weight = model.awr_weights(batch.observations, batch.actions, noise)
    assert weight.std() > 0.01 and not weight.requires_grad
    loss, _ = model.actor_loss(batch.observations, batch.actions, noise)
    by_hand = -(weight * model.actor.log_prob(batch.observations, batch.actions)).mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-6)
    parameters = list(model.actor.parameters())
    for ours, theirs in zip(th.autograd.grad(loss, parameters), th.autograd.grad(by_hand, parameters), strict=True):
        assert th.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------------- the log-std without a likelihood, and λ


def test_without_a_likelihood_sigma_stays_one_and_nothing_is_sampled_with_it(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    model, batch = make_qdq(lam=0.0, learning_rate=1e-2), make_batch(12)
    info: dict[str, th.Tensor] = {}
    for _ in range(6):
        info |= model.step(batch, model.draw_noise(12))
    assert (model.actor.log_std == 0).all() and (model.actor_target.log_std == 0).all() and info["actor_std"] == 1
    noise, states = model.draw_noise(12), batch.next_observations
    expected = (model.actor_target(states) + (0.2 * noise.smoothing).clamp(-0.5, 0.5)).clamp(-1, 1)
    assert th.equal(model.target_actions(states, noise), expected)
    model.actor.net[-1].weight.data.mul_(0.01)  # type: ignore[operator,union-attr]
    observation = np.tile(np.float32([0.3, -0.2, 0.1]), (4000, 1))
    mean, _ = model.predict(observation[:1], deterministic=True)
    sampled, _ = model.predict(observation, deterministic=False)
    assert (sampled - mean).std() == pytest.approx(0.1, rel=0.05) and np.abs(sampled - mean).max() < 0.6


@pytest.mark.parametrize("settings", [{"lam": 0.8}, {"lam": 0.0, "actor_objective": "awr"}], ids=str)
def test_with_a_likelihood_sigma_is_learned_and_acted_with(
    make_qdq: MakeQdq, make_batch: MakeBatch, settings: dict[str, Any]
) -> None:
    model = make_qdq(learning_rate=1e-2, **settings)
    for _ in range(6):
        model.step(make_batch(12), model.draw_noise(12))
    assert (model.actor.log_std != 0).all()
    model.actor.log_std.data.fill_(-2.0)
    model.actor.net[-1].weight.data.mul_(0.01)  # type: ignore[operator,union-attr]
    sampled, _ = model.predict(np.zeros((4000, 3), np.float32), deterministic=False)
    assert sampled.std(axis=0) == pytest.approx(np.exp(-2.0), rel=0.05)


def test_with_awr_lambda_is_not_in_the_loss_but_switches_the_target_action(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    batch, losses, actions = make_batch(12), [], []
    for lam in (0.0, 0.8, 5.0):
        model = make_qdq(actor_objective="awr", lam=lam)
        noise = model.draw_noise(12)
        losses.append(model.actor_loss(batch.observations, batch.actions, noise)[0].item())
        actions.append(model.target_actions(batch.next_observations, noise))
    assert losses[0] == losses[1] == losses[2]
    assert th.equal(actions[1], actions[2]) and not th.allclose(actions[0], actions[1], atol=0.1)


def test_the_actors_q_term_is_raw_so_lambda_belongs_to_the_scale_of_the_rewards(
    make_qdq: MakeQdq, make_batch: MakeBatch
) -> None:
    gradients = {}
    for scale, lam in ((1.0, 0.8), (100.0, 80.0), (100.0, 0.8)):
        model, batch = make_qdq(lam=lam), make_batch(12)
        last = model.critic.trunk[-1]
        assert isinstance(last, EnsembleLinear)
        last.weight.data.mul_(scale)  # its bias is 0
        loss, _ = model.actor_loss(batch.observations, batch.actions, model.draw_noise(12))
        gradients[scale, lam] = th.cat([g.flatten() for g in th.autograd.grad(loss, list(model.actor.parameters()))])
    small = gradients[1.0, 0.8]
    assert th.allclose(gradients[100.0, 80.0], 100.0 * small, rtol=1e-4, atol=1e-4)
    assert (gradients[100.0, 0.8] - 100.0 * small).norm() > 10 * small.norm()


# ---------------------------------------------------------------------- ends, action units, norms


def test_time_outs_keep_the_bootstrap_and_terminations_end_it(make_qdq: MakeQdq, make_data: MakeData) -> None:
    model, dataset = make_qdq(penalty="floor", q_floor=-1e4), make_data(reward=3.0)
    assert dataset.truncations.sum() == 3 and dataset.terminations.sum() == 3
    model.set_dataset(dataset)
    batch = model.replay_buffer.rows_at(th.arange(60))  # type: ignore[union-attr]
    critics_give(model, lambda s, a: th.full((60,), 50.0))
    h_is(model, 4.0 + th.arange(60.0))
    target_h, target_l, _ = model.critic_targets(batch, batch.next_observations, model.draw_noise(60))
    ended = th.tensor(dataset.terminations)
    assert (target_h[ended] == 3.0).all() and (target_l[ended] == 3.0).all()
    assert th.allclose(target_h[~ended], th.full((57,), 3.0 + 0.99 * 50.0)) and (target_l[~ended] < target_h[~ended]).all()


def test_what_follows_a_termination_does_not_matter(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    batch = make_batch(12)
    ended = batch.masks == 0
    following = th.where(ended.unsqueeze(1), 7.0, batch.next_observations)
    targets = []
    for next_states in (batch.next_observations, following):
        model = make_qdq()
        h_is(model, th.arange(12.0) + 1)
        targets.append(model.critic_targets(batch, next_states, model.draw_noise(12))[:2])
    for first, second in zip(*targets, strict=True):
        assert th.allclose(first, second, atol=1e-6)


def test_uncertainty_is_asked_in_the_environments_units_and_computed_in_scaled_ones(make_qdq: MakeQdq) -> None:
    low, high = np.array([0.0, -2.0], np.float32), np.array([1.0, 5.0], np.float32)
    box = spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(low, high)
    model = make_qdq(env=box)
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(10, 3)).astype(np.float32)
    actions = rng.uniform(0.9 * low + 0.1 * high, 0.1 * low + 0.9 * high).astype(np.float32) * np.ones((10, 1), np.float32)
    actions += rng.normal(0, 0.05, size=(10, 2)).astype(np.float32)
    scaled = th.as_tensor(2 * (actions - low) / (high - low) - 1)
    noise = th.randn(10, 5, generator=th.Generator().manual_seed(3))
    expected = model.policy.q_sampler.uncertainty(th.as_tensor(observations), scaled, noise).numpy()
    np.testing.assert_allclose(model.uncertainty(observations, actions, seed=3), expected, rtol=1e-4)
    dataset = OfflineDataset(
        observations=observations,
        actions=actions,
        rewards=np.arange(10),
        next_observations=observations,
        terminations=np.arange(10) == 9,
        truncations=np.zeros(10, bool),
        observation_space=box[0],
        action_space=box[1],
    )
    model.set_dataset(dataset)
    rows = model.replay_buffer.rows_at(th.arange(10))  # type: ignore[union-attr]
    stored = model.policy.q_sampler.uncertainty(rows.observations, rows.actions, noise).numpy()
    np.testing.assert_allclose(stored, expected, rtol=1e-4)
    for deterministic in (True, False):
        acted, _ = model.predict(observations, deterministic=deterministic)
        assert (acted >= low).all() and (acted <= high).all() and acted[:, 1].max() > 1.0


def test_uncertainty_sees_the_observations_that_the_policy_sees(make_qdq: MakeQdq) -> None:
    model, normalizing = make_qdq(), make_qdq()
    mean, std = th.tensor([1.0, -2.0, 0.5]), th.tensor([2.0, 0.5, 3.0])
    normalizing.policy.set_observation_statistics(mean, std)
    states = th.randn(10, 3, generator=th.Generator().manual_seed(0))
    raw, actions = (states * std + mean).numpy(), np.zeros((10, 2), np.float32)
    expected = model.uncertainty(states.numpy(), actions)
    np.testing.assert_allclose(normalizing.uncertainty(raw, actions), expected, rtol=1e-3)
    assert not np.allclose(model.uncertainty(raw, actions), expected, rtol=1e-2)


def test_layer_norm_is_in_the_critics_only(make_qdq: MakeQdq) -> None:
    plain, normed = make_qdq().policy, make_qdq(policy_kwargs={"critic_layer_norm": True}).policy
    for name, n_norms in (("critic", 2), ("critic_target", 2), ("actor", 0), ("actor_target", 0), ("q_sampler", 0)):
        for policy, expected in ((plain, 0), (normed, n_norms)):
            modules = list(getattr(policy, name).modules())
            assert sum(isinstance(module, nn.LayerNorm) for module in modules) == expected
            assert sum(isinstance(module, nn.GroupNorm) for module in modules) == (2 if name == "q_sampler" else 0)
    kinds = [type(module).__name__ for module in normed.critic.trunk]
    assert kinds == ["LayerNorm", "Mish", "EnsembleLinear"] * 2  # before the activation


# ---------------------------------------------------------------------- AWR


def test_the_weights_of_awr_are_those_of_an_explicit_loop_capped_at_a_hundred(
    make_qdq: MakeQdq, make_batch: MakeBatch
) -> None:
    model, batch = make_qdq(actor_objective="awr"), make_batch(12)
    with th.no_grad():
        model.critic.trunk[-1].weight.mul_(8.0)  # type: ignore[union-attr,operator,arg-type]
        for parameter in [*model.critic_target.parameters(), *model.actor.parameters()]:
            parameter.add_(1.0)  # neither has a part in it
    noise = model.draw_noise(12)
    assert noise.awr is not None
    weight = model.awr_weights(batch.observations, batch.actions, noise)
    sampled_far = 0
    for b in range(12):
        state = batch.observations[b : b + 1]
        values = []
        for k in range(30):
            sample = model.actor_target(state) + model.actor_target.std() * noise.awr[b, k]
            sampled_far += int(sample.abs().max() > 1)
            values.append(model.critic(state, sample).min().item())  # unclipped
        advantage = model.critic(state, batch.actions[b : b + 1]).min().item() - np.mean(values)
        assert weight[b].item() == pytest.approx(min(np.exp(6.0 * advantage), 100.0), rel=1e-3)
    assert sampled_far > 100 and (weight == 100).any() and (weight < 50).any()
    _, info = model.actor_loss(batch.observations, batch.actions, noise)
    assert info["awr_saturated_share"].item() == pytest.approx((weight == 100).float().mean().item())
    assert 0 < info["awr_saturated_share"] < 1 and info["awr_weight"].item() == pytest.approx(weight.mean().item())


def test_a_huge_advantage_neither_overflows_nor_dominates(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    model, batch = make_qdq(actor_objective="awr"), make_batch(12)
    model.critic.trunk[-1].weight.data.mul_(1e6)  # type: ignore[union-attr,operator]
    weight = model.awr_weights(batch.observations, batch.actions, model.draw_noise(12))
    assert set(weight.tolist()) <= {0.0, 100.0} and weight.unique().numel() == 2
    assert all(value.isfinite() for value in model.step(batch, model.draw_noise(12)).values())
