"""Phase D: critics, actor, target action and schedule (QDQ's README, claims 20 to 22 and 24 to 27)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Normal

from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import EnsembleLinear
from sb3_genoffline.qdq import QDQ
from sb3_genoffline.qdq.penalty import uncertain_actions

MakeQdq = Callable[..., QDQ]
MakeBatch = Callable[..., TransitionBatch]


def flat(tensors: Any) -> Tensor:
    return th.cat([tensor.detach().flatten() for tensor in tensors])


def stub_uncertainty(model: QDQ, h: float | Tensor) -> None:
    """From now on H is this for every batch: a number, or (B,)."""
    model.policy.q_sampler.uncertainty = lambda states, *_: th.as_tensor(h).expand(len(states)).to(states)  # type: ignore


def td_gradient(model: QDQ, batch: TransitionBatch, target: Tensor) -> Tensor:
    """Of the ordinary TD loss, summed over both critics, at the model's present weights."""
    q = model.critic(batch.observations, batch.actions)
    loss = (q[0] - target).square().mean() + (q[1] - target).square().mean()
    return flat(th.autograd.grad(loss, list(model.critic.parameters())))


def critic_gradient(model: QDQ) -> Tensor:
    """Of the last update."""
    return flat(parameter.grad for parameter in model.critic.parameters())


# ---------------------------------------------------------------------- claim 20: one target, or none


@pytest.mark.parametrize("alpha", [0.992, 0.3])
@pytest.mark.parametrize("penalty", ["paper", "antmaze_awr", "antmaze_q", "floor"])
def test_the_two_losses_have_the_gradient_of_one_discounted_per_sample(
    make_qdq: MakeQdq, make_batch: MakeBatch, penalty: str, alpha: float
) -> None:
    model = make_qdq(penalty=penalty, alpha=alpha, beta=0.7, max_grad_norm=None)
    batch, h = make_batch(10), th.arange(10.0) + 1.0  # three are flagged: those above 7.3
    stub_uncertainty(model, h)
    noise = model.draw_noise(10)
    flagged = h > 7.3
    outside = {"paper": 0.7, "antmaze_awr": 1.0, "antmaze_q": 1.0, "floor": 0.7}[penalty]
    inside = 1 + 0.1 * (1 - 1 / h) if penalty == "antmaze_awr" else 1 / h
    weight = th.where(flagged, inside, outside)
    with th.no_grad():
        q = model.critic_target(batch.next_observations, model.target_actions(batch.next_observations, noise)).amin(0)
        q_l = weight * (q.clamp_min(0) if penalty == "floor" else q)
        target = batch.rewards + 0.99 * batch.masks * (alpha * q + (1 - alpha) * q_l)
    expected = td_gradient(model, batch, target)
    model.step(batch, noise)
    difference = (critic_gradient(model) - expected).norm() / expected.norm()
    assert difference < 1e-5


def trained_weights(model: QDQ, make_batch: MakeBatch) -> Tensor:
    """All four networks after five updates with the same batches and noises."""
    noises = [model.draw_noise(12) for _ in range(5)]
    for step in range(5):
        generator = th.Generator().manual_seed(step)
        shared = [th.randn(12, 2, generator=generator) for _ in range(2)]
        model.step(make_batch(12, seed=step), noises[step]._replace(target_policy=shared[0], smoothing=shared[1]))
    return flat(model.policy.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        *({"alpha": 1.0, "penalty": penalty} for penalty in ("paper", "antmaze_awr", "antmaze_q", "floor")),
        {"alpha": 0.4, "penalty": "antmaze_q", "h": 3.0},  # equal H: nobody is flagged, and w is 1 outside U
        {"alpha": 0.4, "penalty": "antmaze_awr", "h": 3.0},
        {"alpha": 0.4, "penalty": "paper", "beta": 1.0, "h": 3.0},
        {"alpha": 0.4, "penalty": "none"},
    ],
    ids=str,
)
def test_without_a_penalty_the_update_is_that_of_td3(
    make_qdq: MakeQdq, make_batch: MakeBatch, settings: dict[str, Any]
) -> None:
    settings = dict(settings)
    h = settings.pop("h", None)
    model, plain = make_qdq(learning_rate=3e-3, **settings), make_qdq(learning_rate=3e-3, penalty="none")
    if h is not None:
        stub_uncertainty(model, h)
    difference = (trained_weights(model, make_batch) - trained_weights(plain, make_batch)).abs().max()
    assert difference < 1e-6


def test_the_plain_td3_update_is_the_textbooks(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    model, batch = make_qdq(penalty="none", lam=0.0, max_grad_norm=None), make_batch(12)
    noise = model.draw_noise(12)
    with th.no_grad():
        smoothing = (0.2 * noise.smoothing).clamp(-0.5, 0.5)
        action = (model.actor_target(batch.next_observations) + smoothing).clamp(-1, 1)
        first, second = model.critic_target(batch.next_observations, action)
        target = batch.rewards + 0.99 * batch.masks * th.minimum(first, second)
    expected = td_gradient(model, batch, target)
    info = model.step(batch, noise)
    assert th.allclose(critic_gradient(model), expected, rtol=1e-5, atol=1e-7)
    assert info["loss_h"] == info["loss_l"] and info["critic_loss"].item() == pytest.approx(info["loss_h"].item())


# ---------------------------------------------------------------------- claim 21: who is flagged


def two_groups(states: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
    """Samples of N(0, 10²) for |a| > 0.5 and of N(0, 1.5²) otherwise: (B, n)."""
    return noise * th.where(actions[:, :1].abs() > 0.5, 10.0, 1.5)


def test_uncertain_actions_are_told_from_the_others_in_two_thousand_batches(make_qdq: MakeQdq) -> None:
    sampler = make_qdq().policy.q_sampler
    sampler.sample = two_groups  # type: ignore[method-assign,assignment]
    generator = th.Generator().manual_seed(0)
    states, wide = th.zeros(256, 3), th.arange(256) < 26
    actions = th.where(wide, 0.9, 0.1).unsqueeze(1)
    for _ in range(2000):
        h = sampler.uncertainty(states, actions, th.randn(256, 50, generator=generator))
        assert (uncertain_actions(h, 0.9)[0] == wide).all()


@pytest.mark.parametrize("penalty", ["paper", "antmaze_q", "floor"])
def test_uncertain_actions_have_the_lower_targets(make_qdq: MakeQdq, make_batch: MakeBatch, penalty: str) -> None:
    model = make_qdq(penalty=penalty, n_q_samples=50)
    model.policy.q_sampler.sample = two_groups  # type: ignore[method-assign,assignment]
    wide = th.randperm(256, generator=th.Generator().manual_seed(0)) < 26
    actions = th.where(wide, -0.9, 0.2).unsqueeze(1).expand(-1, 2)
    model.target_actions = lambda *_: actions  # type: ignore[method-assign]
    constant_critic(model, 20.0)
    batch = make_batch(256)._replace(rewards=th.zeros(256), masks=th.ones(256))
    target_h, target_l, info = model.critic_targets(batch, batch.next_observations, model.draw_noise(256))
    assert th.allclose(target_h, th.full((256,), 19.8))
    assert target_l[wide].max() < 0.2 * target_h[0] < 0.8 * target_h[0] < target_l[~wide].min() <= target_h[0]
    assert info["uncertain_share"].item() == pytest.approx(26 / 256)


def constant_critic(model: QDQ, value: float) -> None:
    """Both critics and their targets give ``value`` everywhere."""
    for critic in (model.critic, model.critic_target):
        last = critic.trunk[-1]
        assert isinstance(last, EnsembleLinear)
        with th.no_grad():
            last.weight.zero_()
            last.bias.fill_(value)


# ---------------------------------------------------------------------- claims 24 and 25: the actor


def test_the_log_likelihood_is_a_sum_of_normals_without_a_jacobian(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    actor, batch = make_qdq().actor, make_batch(12)
    for log_std in ([0.0, 0.0], [-1.5, 0.7], [-9.0, 5.0]):
        with th.no_grad():
            actor.log_std.copy_(th.tensor(log_std))
        mean = th.tanh(actor.net(batch.observations))
        normal = Normal(mean, actor.log_std.clamp(-5, 2).exp())
        expected = normal.log_prob(batch.actions).sum(1)
        assert th.allclose(actor.log_prob(batch.observations, batch.actions), expected, rtol=1e-5)
    assert actor.std().tolist() == pytest.approx([math.exp(-5), math.exp(2)])


def test_one_standard_deviation_for_all_states_starts_at_one_and_samples_leave_the_box(make_qdq: MakeQdq) -> None:
    actor = make_qdq().actor
    assert actor.log_std.shape == (2,) and (actor.log_std == 0).all() and actor.log_std.requires_grad
    states = th.randn(1000, 3, generator=th.Generator().manual_seed(0))
    noise = th.randn(1000, 2, generator=th.Generator().manual_seed(1))
    assert th.allclose(actor.sample(states, noise), actor(states) + noise)
    assert actor.sample(states, noise).abs().max() > 2 and actor(states).abs().max() <= 1
    several = actor.sample(states[:4], noise[:12].view(4, 3, 2))
    for n in range(3):
        assert th.allclose(several[:, n], actor(states[:4]) + noise[:12].view(4, 3, 2)[:, n])


def test_the_deterministic_action_is_the_mean_inside_the_box(make_qdq: MakeQdq) -> None:
    model = make_qdq()
    states = 1e3 * np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    actions, _ = model.predict(states, deterministic=True)
    assert np.abs(actions).max() <= 1
    np.testing.assert_allclose(actions, model.actor(th.as_tensor(states)).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.8])
def test_the_actors_q_is_the_smaller_of_both_at_the_mean_and_the_likelihood_that_of_the_data(
    make_qdq: MakeQdq, make_batch: MakeBatch, lam: float
) -> None:
    model, batch = make_qdq(lam=lam), make_batch(12)
    loss, info = model.actor_loss(batch.observations, batch.actions, model.draw_noise(12))
    first, second = model.critic(batch.observations, model.actor(batch.observations))
    assert (first < second).any() and (first > second).any()
    log_prob = model.actor.log_prob(batch.observations, batch.actions).mean()
    assert loss.item() == pytest.approx((-th.minimum(first, second).mean() - lam * log_prob).item(), rel=1e-5)
    assert info["log_prob"].item() == pytest.approx(log_prob.item()) and info["actor_std"].item() == 1.0


# ---------------------------------------------------------------------- claim 26: the target action


def test_the_target_action_is_a_clipped_sample_with_clipped_noise_of_its_own(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    model, states = make_qdq(lam=0.8), make_batch(500).next_observations
    with th.no_grad():
        model.actor_target.log_std.fill_(math.log(0.3))
        model.actor.log_std.fill_(math.log(1e-3))
    noise = model.draw_noise(500)
    noise = noise._replace(smoothing=4 * noise.smoothing)
    mean = th.tanh(model.actor_target.net(states))
    smoothing = (0.2 * noise.smoothing).clamp(-0.5, 0.5)
    expected = (mean + 0.3 * noise.target_policy + smoothing).clamp(-1, 1)
    actions = model.target_actions(states, noise)
    assert th.allclose(actions, expected, atol=1e-6)
    assert (smoothing.abs() == 0.5).any() and (actions.abs() == 1).any() and not actions.requires_grad


def test_the_mean_can_stand_in_the_backup_whatever_lambda_is(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    states = make_batch(50).next_observations
    model = make_qdq(lam=0.8, mean_backup=True)
    noise = model.draw_noise(50)
    expected = (model.actor_target(states) + (0.2 * noise.smoothing).clamp(-0.5, 0.5)).clamp(-1, 1)
    assert th.equal(model.target_actions(states, noise), expected)
    assert th.equal(make_qdq(lam=0.0).target_actions(states, noise), expected)
    assert not th.allclose(make_qdq(lam=0.8).target_actions(states, noise), expected)


def test_the_two_noises_of_the_target_action_are_independent(make_qdq: MakeQdq) -> None:
    noise = make_qdq(n_q_samples=50, actor_objective="awr").draw_noise(2000)
    assert noise.awr is not None and noise.awr.shape == (2000, 30, 2) and noise.q.shape == (2000, 50)
    both = th.stack([noise.target_policy.flatten(), noise.smoothing.flatten()])
    assert th.corrcoef(both)[0, 1].abs() < 0.08  # five standard deviations
    for part in noise:
        assert part.mean().abs() < 0.08 and (part.std() - 1).abs() < 0.06


def test_critics_and_consistency_model_judge_the_same_target_action(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    model, batch, seen = make_qdq(), make_batch(12), {}
    uncertainty, critic = model.policy.q_sampler.uncertainty, model.critic_target
    model.policy.q_sampler.uncertainty = lambda s, a, z: seen.update(h=(s, a)) or uncertainty(s, a, z)  # type: ignore
    critic.register_forward_hook(lambda _, inputs, output: seen.update(q=inputs))
    noise = model.draw_noise(12)
    expected = model.target_actions(batch.next_observations, noise)
    model.step(batch, noise)
    for states, actions in seen.values():
        assert th.equal(states, batch.next_observations) and th.equal(actions, expected)


# ---------------------------------------------------------------------- claim 27: the schedule


def test_targets_start_equal_and_move_with_the_actor_every_second_update(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    model = make_qdq(learning_rate=1e-2)
    names = ("actor", "actor_target", "critic", "critic_target")
    state = {name: flat(getattr(model, name).parameters()) for name in names}
    assert th.equal(state["actor"], state["actor_target"]) and th.equal(state["critic"], state["critic_target"])
    for step in range(5):
        model.step(make_batch(12, seed=step), model.draw_noise(12))
        before, state = state, {name: flat(getattr(model, name).parameters()) for name in names}
        assert not th.equal(state["critic"], before["critic"])
        if step % 2 == 0:
            assert not th.equal(state["actor"], before["actor"])
            for name in ("actor", "critic"):
                expected = 0.995 * before[f"{name}_target"] + 0.005 * state[name]
                assert th.allclose(state[f"{name}_target"], expected, atol=1e-7)
                assert not th.equal(state[f"{name}_target"], before[f"{name}_target"])
        else:
            for name in ("actor", "actor_target", "critic_target"):
                assert th.equal(state[name], before[name])


def test_the_actors_rate_decays_by_its_own_updates_and_the_critics_not_at_all(
    make_qdq: MakeQdq, make_batch: MakeBatch
) -> None:
    model = make_qdq(lr_decay_steps=10, learning_rate=3e-4, critic_learning_rate=1e-3)
    for step in range(8):
        model.step(make_batch(12), model.draw_noise(12))
        n_before = step // 2
        expected = 3e-4 * 0.5 * (1 + math.cos(math.pi * n_before / 10))
        assert model.actor_optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)
        assert model.critic_optimizer.param_groups[0]["lr"] == 1e-3


def test_over_a_million_updates_the_actors_rate_halves(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    model = make_qdq()
    model._n_updates = 1_000_000
    model.step(make_batch(12), model.draw_noise(12))
    assert model.actor_optimizer.param_groups[0]["lr"] == pytest.approx(1.5e-4, rel=1e-9)
    assert model.critic_optimizer.param_groups[0]["lr"] == 3e-4


def test_the_critics_gradient_is_clipped_by_one_norm_and_the_actors_not(make_qdq: MakeQdq, make_batch: MakeBatch) -> None:
    norms = {}
    for limit in (None, 0.01):
        model, batch = make_qdq(max_grad_norm=limit), make_batch(12)
        model.step(batch._replace(rewards=100 * batch.rewards), model.draw_noise(12))
        norms[limit] = critic_gradient(model), flat(parameter.grad for parameter in model.actor.parameters())
    raw, clipped = norms[None][0], norms[0.01][0]
    assert raw.norm() > 1 and clipped.norm().item() == pytest.approx(0.01, rel=1e-3)
    assert th.allclose(clipped / clipped.norm(), raw / raw.norm(), atol=1e-5)
    assert norms[0.01][1].norm() > 0.1


# ---------------------------------------------------------------------- claim 22: where the critics converge to


def converged_q(rewards: Tensor, start: float, n_updates: int, **settings: Any) -> Tensor:
    """Smaller Q of a one-state bandit's actions, evenly spread over [−1, 1]; H is 40 everywhere, so that nobody is flagged."""
    box = (spaces.Box(-np.inf, np.inf, (1,)), spaces.Box(-1, 1, (1,)))
    model = QDQ(
        "MlpPolicy",
        box,
        learning_rate=0.0,
        critic_learning_rate=0.05,
        lam=0.0,
        n_q_samples=2,
        policy_delay=1,
        tau=1.0,
        max_grad_norm=None,
        policy_kwargs={"net_arch": [16], "q_net_arch": [8]},
        seed=0,
        device="cpu",
        **settings,
    )
    stub_uncertainty(model, 40.0)
    for critic in (model.critic, model.critic_target):
        critic.trunk[-1].bias.data.fill_(start)  # type: ignore[union-attr,operator]
    n = len(rewards)
    states, actions = th.zeros(n, 1), th.linspace(-1, 1, n).unsqueeze(1)
    batch = TransitionBatch(states, actions, rewards, states, th.ones(n))
    for step in range(n_updates):
        model.critic_learning_rate = 0.05 * (1 - step / n_updates)
        model.step(batch, model.draw_noise(n))
    return model.critic(states, actions).amin(0).detach()


def test_never_flagged_the_value_of_a_constant_reward_is_that_of_a_shorter_horizon() -> None:
    rewards = th.ones(16)
    plain = converged_q(rewards, 98.0, 120, penalty="none")  # near to where they should end: 0.99 to the 120th is 0.3
    penalized = converged_q(rewards, 94.0, 120)
    contraction = 0.992 + 0.008 * 0.9
    assert th.allclose(plain, th.full((16,), 100.0), rtol=5e-3)
    assert (penalized / plain).numpy() == pytest.approx(0.01 / (1 - 0.99 * contraction), abs=4e-3)  # 0.927
    assert (penalized < plain).all()


def test_the_penalised_value_is_smaller_at_every_action_in_the_data() -> None:
    rewards = 1.0 + 0.5 * th.cos(3.0 * th.linspace(-1, 1, 16))
    plain, penalized = (converged_q(rewards, 10.0, 120, penalty=p, alpha=0.5, gamma=0.9) for p in ("none", "paper"))
    assert (penalized < plain).all()
    value = (plain - rewards).mean() / 0.9  # of the one state
    assert ((penalized - rewards).mean() / 0.9 / value).item() == pytest.approx(0.1 / (1 - 0.9 * 0.95), abs=0.03)
