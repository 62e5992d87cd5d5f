"""
The mistakes that an implementation of DAC makes easily: each test fails if one is made. The README's claims say what is right.

Some of them are caught in ``test_dac_update.py`` and its neighbours, by numbers: the noise of the sampler and where it is
clamped, trajectory returns from where observations lie, softmax over the ensemble's samples, the timing of the actor's target.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from torch import Tensor, nn

from sb3_genoffline import DAC, OfflineDataset
from sb3_genoffline.dac import DACNoise
from sb3_genoffline.data.buffers import OfflineBuffer, TransitionBatch
from sb3_genoffline.nets.ensembles import EnsembleLinear, EnsembleQ

pytestmark = pytest.mark.usefixtures("float64")
MakeDac = Callable[..., DAC]
MakeBatch = Callable[..., TransitionBatch]


def close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    actual, expected = (x.detach() if isinstance(x, Tensor) else x for x in (actual, expected))
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=tolerance)


def row(batch: TransitionBatch, b: int) -> TransitionBatch:
    return TransitionBatch(*(column[b : b + 1] for column in batch))


def fill_with_nan(module: nn.Module) -> None:
    with th.no_grad():
        for parameter in module.parameters():
            parameter.fill_(float("nan"))


def test_pessimism_uses_the_population_std(make_dac: MakeDac) -> None:
    close(make_dac(n_critics=2, rho=1.0).reduce_ensemble(th.tensor([[0.0], [2.0]])), [0.0])  # the unbiased std is √2


@pytest.mark.parametrize("n_members", [1, 2, 10])
def test_each_member_is_initialised_with_its_own_fans(n_members: int) -> None:
    th.manual_seed(0)
    weight = EnsembleLinear(n_members, 55, 256).weight
    bound = (6 / (55 + 256)) ** 0.5
    for member in weight:
        assert 0.99 * bound < member.abs().max() <= bound


@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("n_rows", [1, 4])
@pytest.mark.parametrize("n_samples", [1, 2])
def test_no_axis_is_squeezed_away_when_it_has_one_entry(n_members: int, n_rows: int, n_samples: int) -> None:
    critic = EnsembleQ(n_members, 3, 2, net_arch=[4])
    states, actions = th.randn(n_rows, 3), th.randn(n_rows, n_samples, 2)
    assert critic(states, actions[:, 0]).shape == (n_members, n_rows)
    assert critic.score_samples(states, actions).shape == (n_members, n_rows, n_samples)


def test_a_batch_of_one_row_and_an_ensemble_of_one_train(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model = make_dac(n_critics=1, n_q_samples=1)
    info = model.step(make_batch(1), model.draw_noise(1))
    assert all(value.shape == () and value.isfinite() for value in info.values())


def test_samples_of_one_state_are_never_mixed_with_those_of_another(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model, batch = make_dac(), make_batch(5)
    noise = model.draw_noise(5)
    assert noise.next_actions is not None
    together = model.critic_target_value(batch, noise)
    for b in range(5):
        alone = model.critic_target_value(row(batch, b), noise._replace(next_actions=noise.next_actions[:, b : b + 1]))
        close(together[b], alone[0])
    actions = model.actor_target.sample(batch.next_observations, noise.next_actions).detach()
    scores = model.critic_target.score_samples(batch.next_observations, actions)
    for b in range(5):
        for n in range(4):
            close(scores[:, b, n], model.critic_target(batch.next_observations[b : b + 1], actions[b, n : n + 1])[:, 0])


def test_the_gradient_of_q_at_a_row_does_not_depend_on_the_batch(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model, batch = make_dac(), make_batch(6)
    together = model.q_gradient(batch.observations, batch.actions)
    for b in range(6):
        close(together[b], model.q_gradient(batch.observations[b : b + 1], batch.actions[b : b + 1])[0])
    step = 1e-6
    for i in range(2):
        shift = step * th.eye(2)[i]
        q = [model.critic_target(batch.observations, batch.actions + sign * shift).mean(0) for sign in (1, -1)]
        close(together[:, i], (q[0] - q[1]) / (2 * step), 1e-8)


@pytest.mark.parametrize("n_steps", [1, 5])
def test_training_draws_every_step_from_1_to_T_evenly_and_never_0(make_dac: MakeDac, n_steps: int) -> None:
    model = make_dac(n_diffusion_steps=n_steps, guidance="none")
    counts = th.bincount(model.draw_noise(20_000).t, minlength=n_steps + 1)
    assert len(counts) == n_steps + 1 and counts[0] == 0
    assert (counts[1:] - 20_000 / n_steps).abs().max() < 300  # five standard deviations


def test_all_random_numbers_of_an_update_are_distinct_standard_normals(make_dac: MakeDac) -> None:
    noise = make_dac(guidance="denoised").draw_noise(400)
    assert noise.next_actions is not None and noise.denoised is not None
    for part in (noise.next_actions, noise.denoised, noise.eps):
        assert abs(part.mean().item()) < 0.15 and abs(part.std().item() - 1) < 0.1
    flat = th.cat([noise.next_actions.flatten(), noise.denoised.flatten(), noise.eps.flatten()])
    assert len(flat.unique()) == len(flat)


def test_targets_broadcast_over_members_and_not_over_rows_when_there_are_as_many(
    make_dac: MakeDac, make_batch: MakeBatch
) -> None:
    model, batch = make_dac(n_critics=4), make_batch(4)
    noise = model.draw_noise(4)
    y = model.critic_target_value(batch, noise)
    assert y.shape == (4,) and len(y.unique()) == 4
    q = model.critic(batch.observations, batch.actions).detach()
    expected = sum((q[h, b] - y[b]) ** 2 for h in range(4) for b in range(4)) / 16
    close(model.step(batch, noise)["critic_loss"], expected)


def test_members_are_clipped_by_one_common_norm(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    def member_norms(max_grad_norm: float | None) -> Tensor:
        model, batch = make_dac(max_grad_norm=max_grad_norm), make_batch(6)
        model.step(batch._replace(rewards=batch.rewards * 100), model.draw_noise(6))
        gradients = [p.grad for p in model.critic.parameters()]
        return sum(g.square().flatten(1).sum(1) for g in gradients if g is not None).sqrt()  # type: ignore[union-attr]

    raw, clipped = member_norms(None), member_norms(1.0)
    assert raw.square().sum().sqrt() > 10
    close(clipped.square().sum().sqrt(), 1.0, 1e-6)
    close(clipped, raw / raw.square().sum().sqrt(), 1e-6)


def test_the_target_actor_stays_at_its_random_start_while_the_actor_learns(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model = make_dac()
    initial = [p.clone() for p in model.actor.parameters()]
    for _ in range(20):
        model.step(make_batch(4), model.draw_noise(4))
    for start, online, target in zip(initial, model.actor.parameters(), model.actor_target.parameters(), strict=True):
        assert (target == start).all() and (online != start).any()


def test_guidance_sees_the_critics_targets_after_they_moved(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model, batch = make_dac(tau=1.0, learning_rate=0.1), make_batch(6)
    before = model.critic(batch.observations, batch.actions).abs().mean()
    info = model.step(batch, model.draw_noise(6))
    after = model.critic(batch.observations, batch.actions).abs().mean()
    close(info["q_normalizer"], after + 1e-6)
    assert (before - after).abs() > 1e-3


def test_the_loss_and_the_log_use_eta_before_its_step(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model = make_dac(eta=0.5, eta_lr=0.3)
    info = model.step(make_batch(6), model.draw_noise(6))
    close(info["eta"], 0.5)
    close(info["actor_loss"], 0.5 * info["bc_loss"] + info["guidance_loss"])
    assert abs(model.eta_tensor.item() - 0.5) > 1e-3
    close(info["eta"], 0.5)  # the log is no alias of what moved on


def test_the_dual_step_measures_the_error_after_the_actors_step_on_the_same_draws(
    make_dac: MakeDac, make_batch: MakeBatch
) -> None:
    model, batch = make_dac(eta_lr=0.1, bc_threshold=1.0, learning_rate=0.05), make_batch(6)
    noise = model.draw_noise(6)
    info = model.step(batch, noise)
    x_t = model.actor.add_noise(batch.actions, noise.eps, noise.t)
    error = (model.actor(batch.observations, x_t, noise.t) - noise.eps).square().mean()
    assert (error - info["bc_loss"]).abs() > 1e-3
    close(model.eta_tensor, 1.0 + 0.1 * (error - 1.0).clamp(-1, 1))


def updated_actor(model: DAC, batch: TransitionBatch, noise: DACNoise) -> Tensor:
    model.step(batch, noise)
    return th.cat([p.detach().flatten() for p in [*model.actor.parameters(), *model.critic.parameters()]])


@pytest.mark.parametrize(
    "change",
    [
        "gamma",
        "rho",
        "max_q",
        "q_target",
        "tau",
        "guidance",
        "sampler",
        "clip_denoised",
        "max_grad_norm",
        "eta_tensor",
        "rate",
    ],
)
def test_a_changed_attribute_takes_effect_at_the_next_update(make_dac: MakeDac, make_batch: MakeBatch, change: str) -> None:
    values: dict[str, Any] = {
        "gamma": 0.5, "rho": 3.0, "max_q": True, "q_target": "min", "tau": 0.9, "guidance": "hard", "sampler": "ddim",
        "clip_denoised": False, "max_grad_norm": 1e-3,
    }  # fmt: skip
    batch = make_batch(6)
    results = []
    for changed in (False, True):
        model = make_dac(max_grad_norm=0.05)
        model.step(batch, model.draw_noise(6))
        if changed and change == "eta_tensor":
            model.eta_tensor.fill_(50.0)
        elif changed and change == "rate":
            model.learning_rate = 0.1
        elif changed:
            setattr(model, change, values[change])
        noise = model.draw_noise(6)
        updated_actor(model, batch, noise)
        results.append(updated_actor(model, batch, noise))  # a second one: rescaled gradients alone leave Adam's first
    assert (results[0] - results[1]).abs().max() > 1e-9


def test_the_short_last_batch_of_an_epoch_trains_like_any_other(make_dac: MakeDac, dataset: OfflineDataset) -> None:
    model = make_dac(batch_size=16)
    sizes = []
    update = model.update

    def recording(batch: TransitionBatch, noise: DACNoise) -> dict[str, Tensor]:
        sizes.append(len(batch.rewards))
        info = update(batch, noise)
        assert all(value.isfinite() for value in info.values())
        return info

    model.update = recording  # type: ignore[method-assign]
    model.learn_offline(dataset, gradient_steps=9, log_interval=None)
    assert sizes == [16, 16, 16, 2, 16, 16, 16, 2, 16]


def test_the_default_networks_have_no_normalisation_and_no_dropout(make_dac: MakeDac) -> None:
    policy = make_dac().policy
    kinds = {type(module).__name__ for module in policy.modules() if not list(module.children())}
    assert kinds == {"EnsembleLinear", "Linear", "Mish"}
    assert (policy.obs_mean == 0).all() and (policy.obs_std == 1).all()


def test_observations_are_not_normalised_unless_asked(make_dac: MakeDac, dataset: OfflineDataset) -> None:
    model = make_dac().learn_offline(dataset, gradient_steps=1, log_interval=None)
    assert (model.policy.obs_mean == 0).all() and (model.policy.obs_std == 1).all()


def test_both_states_of_a_transition_are_normalised_with_the_same_statistics(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    batch, mean, std = make_batch(6), th.tensor([1.0, -2.0, 0.5]), th.tensor([2.0, 0.5, 3.0])
    plain, normalising = make_dac(), make_dac()
    normalising.policy.set_observation_statistics(mean, std)
    noise = plain.draw_noise(6)
    raw = batch._replace(observations=batch.observations * std + mean, next_observations=batch.next_observations * std + mean)
    expected, info = plain.update(batch, noise), normalising.update(raw, noise)
    for name, value in expected.items():
        close(info[name], value, 1e-10)


def test_truncations_keep_the_bootstrap_offline_and_online(dataset: OfflineDataset) -> None:
    assert dataset.terminations.sum() == 3 and dataset.truncations.sum() == 2
    buffer = OfflineBuffer(10, dataset.observation_space, dataset.action_space, "cpu", dataset=dataset, seed=0)
    masks = buffer.rows_at(th.arange(50)).masks
    np.testing.assert_array_equal(masks, ~dataset.terminations)
    for done, info, expected in ((True, {}, 0.0), (True, {"TimeLimit.truncated": True}, 1.0), (False, {}, 1.0)):
        zeros = np.zeros((1, 3))
        buffer.add(zeros, zeros, np.zeros((1, 2)), np.zeros(1), np.array([done]), [info])
        assert buffer.rows_at(th.tensor([buffer.size() - 1])).masks.item() == expected


def test_a_mask_of_zero_removes_all_of_the_next_state(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model, batch = make_dac(), make_batch(6)
    y = model.critic_target_value(batch, model.draw_noise(6))
    ended = batch.masks == 0
    close(y[ended], batch.rewards[ended])
    assert (y[~ended] != batch.rewards[~ended]).all()


def test_the_target_uses_target_networks_only(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model = make_dac()
    fill_with_nan(model.actor)
    fill_with_nan(model.critic)
    assert model.critic_target_value(make_batch(6), model.draw_noise(6)).isfinite().all()


def test_guidance_looks_at_noisy_actions_as_they_are_and_normalises_by_clean_ones(
    make_dac: MakeDac, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = make_dac(), make_batch(6)
    noise = model.draw_noise(6)._replace(t=th.full((6,), 5), eps=th.full((6, 2), 3.0))
    seen = []
    gradient = model.q_gradient
    monkeypatch.setattr(model, "q_gradient", lambda states, x_t: seen.append(x_t) or gradient(states, x_t))
    info = model.step(batch, noise)
    close(seen[0], 0.0800583128 * batch.actions + 0.9967901818 * 3.0, 1e-9)
    assert seen[0].abs().min() > 1
    close(info["q_normalizer"], model.critic_target(batch.observations, batch.actions).abs().mean() + 1e-6)


def test_denoised_guidance_clamps_even_where_sampling_does_not(
    make_dac: MakeDac, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_dac(guidance="denoised", clip_denoised=False)
    sample, clips = model.actor.sample, []
    monkeypatch.setattr(
        model.actor, "sample", lambda *args, **kwargs: clips.append(kwargs.get("clip", True)) or sample(*args, **kwargs)
    )
    model.step(make_batch(6), model.draw_noise(6))
    assert clips == [True]


def test_softmax_acting_draws_by_q_relative_to_its_mean_size(make_dac: MakeDac) -> None:
    model = make_dac(softmax_temperature=0.5)
    policy = model.policy
    q = th.tensor([10.0, 20.0, 30.0])
    chosen = policy.choose(q.expand(20_000, 3))
    shares = th.bincount(chosen, minlength=3) / 20_000
    close(shares, th.softmax(q / (0.5 * 20), 0), 0.02)
    negative = policy.choose((q - 40).expand(20_000, 3))
    assert th.bincount(negative, minlength=3)[2] > 0.5 * 20_000  # better stays better below zero
    model.softmax_temperature = 1e-3
    assert (policy.choose(th.tensor([[1.0, 3.0, 2.0], [-1.0, -3.0, -2.0]])) == th.tensor([1, 0])).all()
    model.softmax_temperature = 0.0
    assert (policy.choose(th.tensor([[1.0, 3.0, 2.0], [-1.0, -3.0, -2.0]])) == th.tensor([1, 0])).all()


def test_imitation_mode_lowers_the_noise_error_and_needs_no_critic(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model, batch = make_dac(guidance="none", learning_rate=1e-2, lr_decay_steps=None), make_batch(32)
    fill_with_nan(model.critic)
    fill_with_nan(model.critic_target)
    losses = []
    for _ in range(60):
        info = model.step(batch, model.draw_noise(32))
        assert info.keys() == {"actor_loss", "bc_loss"}
        losses.append(info["actor_loss"].item())
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert model.eta_tensor == 1.0
    actions, _ = model.predict(np.zeros((4, 3), np.float32), deterministic=True)
    assert np.isfinite(actions).all()


def test_acting_denoises_all_observations_and_candidates_together(make_dac: MakeDac) -> None:
    model = make_dac()
    calls = []
    model.actor.noise_net.trunk.register_forward_hook(lambda _, inputs, output: calls.append(output.shape))
    model.predict(np.zeros((7, 3), np.float32), deterministic=True)
    assert calls == [(7, 5, 2)] * 5  # T passes over 7 observations × 5 candidates


@pytest.mark.parametrize("q_target", ["lcb", "min", "convex", "rand_convex"])
@pytest.mark.parametrize("guidance", ["soft", "hard", "denoised"])
def test_every_combination_of_options_trains(make_dac: MakeDac, make_batch: MakeBatch, q_target: str, guidance: str) -> None:
    for sampler in ("ddpm", "ddim"):
        model = make_dac(q_target=q_target, guidance=guidance, sampler=sampler, ddim_stride=2)
        before = [p.clone() for p in model.policy.parameters()]
        info = model.step(make_batch(6), model.draw_noise(6))
        assert all(value.isfinite() for value in info.values())
        assert any((p != q).any() for p, q in zip(before, model.policy.parameters(), strict=True))
