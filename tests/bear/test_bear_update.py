"""One update of BEAR against known numbers of both official codes, and the traps around it."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import close, make_agent, make_batch
from golden import S, golden_agent, golden_batch, normal, state_of, step_and_targets

from sb3_genoffline.bear import BEAR, BEARNoise
from sb3_genoffline.common.multiplier import multiplier_step

pytestmark = pytest.mark.usefixtures("float64")
NOISE = BEARNoise(
    vae=normal((4, 1, 4), 3),
    target=normal((4, 10, 2), 4),
    latents=normal((4, 4, 4), 5),
    actor=normal((4, 4, 2), 6),
)
FIRST_CODE: dict[str, Any] = {
    **{"learning_rate": 1e-3, "critic_learning_rate": 1e-3, "vae_learning_rate": 1e-3, "alpha": math.exp(0.3)},
    **{"q_samples": "mean", "mmd_noise_clip": 0.5},
    "policy_kwargs": {"net_arch": [400, 300], "slow_actor": True, "clip_log_std": False},
}
STILL = {"learning_rate": 0.0, "critic_learning_rate": 0.0, "vae_learning_rate": 0.0}
NETWORKS = ("actor", "critic", "critic_target", "vae")
SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [6, 5], "vae_net_arch": [7]}}


def golden_bear(**settings: Any) -> Any:
    return golden_agent(BEAR, actor_heads=2, **settings)


# ---------------------------------------------------------------------- known numbers of the second code


def test_losses_and_targets_before_any_step_are_known_numbers() -> None:
    """README claims 1 to 4."""
    for warmup_steps, loss in ((0, 0.28061850), (1, 0.14865495)):
        model = golden_bear(warmup_steps=warmup_steps, **STILL)
        info, targets = step_and_targets(model, golden_batch(), NOISE)
        close(targets, [0.95361287, 0.50471200, -0.41614684, -1.03604072], 5e-9)
        close([info["vae_loss"], info["critic_loss"]], [0.39701736, 1.29514276], 5e-9)
        close([info["mmd"], info["actor_loss"]], [0.19865495, loss], 5e-9)
        assert info["alpha"] == info["violation_share"] == 1 and ("actor_q" in info) == (warmup_steps == 0)
    gaussian = golden_bear(kernel="gaussian", warmup_steps=0, **STILL).step(golden_batch(), NOISE)
    close([gaussian["mmd"], gaussian["actor_loss"]], [0.09435192, 0.17631547], 5e-9)
    wide = golden_bear(kernel="gaussian", mmd_sigma=50.0, **STILL).step(golden_batch(), NOISE)
    close(wide["mmd"], 0.04936768, 5e-9)


@th.no_grad()
def test_samples_before_the_tanh_and_their_values_are_known_numbers() -> None:
    """README claim 3."""
    model, batch = golden_bear(), golden_batch()
    behaviour, drawn = model.matched_samples(batch.observations, NOISE.latents, NOISE.actor)
    close(behaviour[0, 0], [-0.10755373, -0.12659175], 5e-9)
    close(drawn[0, 0], [-0.48470756, 0.77715591], 5e-9)
    close(model.divergence(behaviour, drawn), [0.19795135, 0.20892688, 0.17380863, 0.21393293], 5e-9)
    first = model.climbed_values(batch.observations, drawn.tanh())
    close(first, [-0.08625959, -0.19243689, -0.14117924, -0.10797851], 5e-9)


@pytest.mark.parametrize(
    ("warmup_steps", "loss", "mean", "log_std"),
    [
        (1, 0.13510491, [-0.13349828, -0.16880648], [-0.15818317, -0.12204531]),
        (0, 0.24235147, [-0.14052823, -0.17093139], [-0.15759593, -0.11865788]),
    ],
)
def test_networks_after_a_whole_update_are_known_numbers(warmup_steps: int, loss: float, mean: Any, log_std: Any) -> None:
    """README claim 4: what is evaluated before a neighbour's step and should be after it differs in the third digit."""
    model, batch = golden_bear(warmup_steps=warmup_steps), golden_batch()
    close(model.step(batch, NOISE)["actor_loss"], loss, 5e-9)
    found_mean, found_std = model.actor.distribution(batch.observations)
    close(found_mean[0], mean, 5e-9)
    close(found_std[0].log(), log_std, 5e-9)
    close(model.log_alpha, 0.001, 1e-8)
    q = model.critic(batch.observations, batch.actions)
    close(q[0], [-0.00661975, -0.01687707, -0.17078575, -0.12459886], 5e-9)


# ---------------------------------------------------------------------- known numbers of the first code


@pytest.mark.parametrize(
    ("kernel", "divergence", "losses"),
    [("laplacian", 0.14354996, (0.19377218, 0.26263481)), ("gaussian", 0.05129797, (0.06924502, 0.13810765))],
)
def test_the_first_codes_losses_are_known_numbers(kernel: Any, divergence: float, losses: tuple[float, float]) -> None:
    """README claim 8. The code leaves the constant −α·ε out of the actor's loss."""
    for warmup_steps, loss in ((1, losses[0]), (0, losses[1])):
        model = golden_bear(kernel=kernel, warmup_steps=warmup_steps, **FIRST_CODE | STILL)
        info, targets = step_and_targets(model, golden_batch(), NOISE)
        close(targets, [0.93554165, 0.49433201, -0.41614684, -1.04676712], 5e-9)
        close([info["critic_loss"], info["mmd"]], [1.20367016, divergence], 5e-9)
        close(info["actor_loss"] + 0.05 * math.exp(0.3), loss, 5e-9)


def test_the_first_codes_networks_after_a_whole_update_are_known_numbers() -> None:
    """README claim 8."""
    model, batch = golden_bear(warmup_steps=0, **FIRST_CODE), golden_batch()
    model.step(batch, NOISE)
    close(model.actor.distribution(batch.observations)[0][0], [-0.59058346, -0.64607952], 5e-9)
    close(model.log_alpha, 0.301, 1e-8)


# ---------------------------------------------------------------------- traps


@pytest.mark.parametrize(
    ("log_alpha", "divergence", "slope"), [(0.0, 0.2, 0.15), (1.0, 0.02, -0.08154845), (-5.0, 0.01, -0.00026952)]
)
def test_the_multiplier_rises_where_samples_are_too_far_apart(log_alpha: float, divergence: float, slope: float) -> None:
    """README claim 5."""
    model = make_agent(BEAR, alpha=math.exp(log_alpha), **SMALL)
    model.move_multiplier(th.full((4,), divergence))
    close(-model.log_alpha.grad, slope, 5e-9)
    close(model.log_alpha, max(log_alpha + math.copysign(1e-3, slope), -5.0), 1e-6)


def test_the_multipliers_logarithm_keeps_its_bounds_and_its_own_rate() -> None:
    for start, gain, end in ((9.9999, 1.0, 10.0), (-4.9999, -1.0, -5.0)):
        log_alpha = th.tensor(start, requires_grad=True)
        multiplier_step(log_alpha, th.optim.Adam([log_alpha], fused=True), gain * log_alpha, 1e-3)
        assert log_alpha.item() == end
    model = make_agent(BEAR, learning_rate=0.0, multiplier_learning_rate=0.25, **SMALL)  # moves in the warm-up, too
    model.step(make_batch(), model.draw_noise(7))
    close(model.log_alpha.abs(), 0.25, 1e-6)


def test_the_warm_up_counts_updates_and_leaves_the_critic_alone_out() -> None:
    """README claim 6."""
    for updates, depends in ((39_999, False), (40_000, True)):
        steps = []
        for shifted in (False, True):
            model, batch = make_agent(BEAR, **SMALL), make_batch()
            noise = model.draw_noise(7)
            model._n_updates = updates
            if shifted:
                for parameter in model.critic.parameters():
                    parameter.data.neg_()
            model.step(batch, noise)
            steps.append(state_of(model, *NETWORKS)["actor"])
        assert th.equal(*steps) != depends


def test_latents_of_the_mmd_are_clipped_and_no_other_noise_is() -> None:
    """README claim 3."""
    model, batch, decoded, noises = make_agent(BEAR, **SMALL), make_batch(), [], []
    model.vae.decoder.register_forward_pre_hook(lambda module, inputs: decoded.append(inputs[0][..., S:]))
    sample = model.actor.raw_sample
    model.actor.raw_sample = lambda states, noise: noises.append(noise) or sample(states, noise)
    noise = model.draw_noise(7)
    model.step(batch, noise)
    assert decoded[0].abs().max() > 0.5 and th.equal(decoded[1], noise.latents.clamp(-0.5, 0.5))
    assert len(noises) == 2 and th.equal(noises[0], noise.target) and th.equal(noises[1], noise.actor)
    model.predict(batch.observations.numpy(), deterministic=True)
    assert noises[2].shape == (7, 100, 2) and noises[2].abs().max() > 2
    model.mmd_noise_clip = 0.5
    model.step(batch, noise)
    assert th.equal(noises[3], noise.target) and th.equal(noises[4], noise.actor.clamp(-0.5, 0.5))


def test_the_actors_step_moves_no_other_network_and_the_datas_actions_play_no_part_in_it() -> None:
    """README claims 3 and 4."""
    batch = make_batch()
    settings = {"critic_learning_rate": 0.0, "vae_learning_rate": 0.0, "warmup_steps": 0, **SMALL}
    model, other = (make_agent(BEAR, **settings) for _ in range(2))
    before, noise = state_of(model, *NETWORKS), model.draw_noise(7)
    model.step(batch, noise)
    after = state_of(model, *NETWORKS)
    assert {name for name in after if not th.equal(before[name], after[name])} == {"actor", "critic_target"}
    other.step(batch._replace(actions=-batch.actions), noise)
    assert th.equal(state_of(other, *NETWORKS)["actor"], after["actor"])


def test_acting_takes_the_first_critics_choice_of_the_actors_samples() -> None:
    """README claim 7."""
    model, observations = make_agent(BEAR, **SMALL), make_batch().observations
    model.policy.seed_acting(3)
    actions, _ = model.predict(observations.numpy(), deterministic=True)
    states = model.policy.normalize_observations(observations)
    noise = th.randn(7, 100, 2, generator=th.Generator().manual_seed(3))
    candidates = model.actor.sample(states, noise)[0]
    best = model.critic.of_samples(states, candidates)[0].argmax(1)
    close(actions, candidates[th.arange(7), best].detach(), 1e-12)
    model.policy.seed_acting(3)
    one, _ = model.predict(observations.numpy())
    noise = th.randn(7, 1, 2, generator=th.Generator().manual_seed(3))
    close(one, model.actor.sample(states, noise)[0].squeeze(1).detach(), 1e-12)
    assert not np.allclose(one, model.actor(states).detach())


def test_the_target_asks_for_as_many_actions_as_it_was_told_to_and_all_networks_see_one_state() -> None:
    """README claim 2."""
    model, batch, rows, seen = make_agent(BEAR, n_target_samples=6, **SMALL), make_batch(), [], []
    model.critic_target.trunk.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[1]))
    for network in (model.vae.encoder, model.vae.decoder, model.actor.net):
        network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][..., :S]))
    model.step(batch, model.draw_noise(7))
    states = model.policy.normalize_observations(batch.observations)
    following = model.policy.normalize_observations(batch.next_observations)
    encoded, learned, next_states, decoded, acted = seen
    assert rows == [42]
    assert th.equal(encoded, states) and th.equal(learned, states.unsqueeze(1)) and th.equal(next_states, following)
    assert th.equal(decoded, states.unsqueeze(1).expand(-1, 4, -1)) and th.equal(acted, states)


@pytest.mark.parametrize("slow", [False, True])
def test_the_target_asks_the_online_actor_unless_it_was_told_to_ask_a_slow_one(slow: bool) -> None:
    """README claim 2."""
    networks = {"net_arch": [400, 300], "slow_actor": slow}
    plain = step_and_targets(golden_bear(policy_kwargs=networks), golden_batch(), NOISE)[1]
    model = golden_bear(policy_kwargs=networks, tau=0.25)
    assert hasattr(model, "actor_target") == slow
    for parameter in model.actor.parameters():
        parameter.data.neg_()
    before = [parameter.clone() for parameter in model.actor_target.parameters()] if slow else []
    assert th.equal(step_and_targets(model, golden_batch(), NOISE)[1], plain) == slow
    if slow:
        for old, online, new in zip(before, model.actor.parameters(), model.actor_target.parameters(), strict=True):
            close(new, 0.75 * old + 0.25 * online.detach(), 1e-12)


def test_the_spread_is_bounded_unless_it_was_told_not_to_be_and_last_layers_start_as_small_as_asked() -> None:
    networks: dict[str, Any] = {"net_arch": [64], "vae_net_arch": [7], "actor_init": 1e-3, "critic_init": 3e-3}
    for clipped, bounds in ((True, (-5.0, 2.0)), (False, None)):
        policy = make_agent(BEAR, policy_kwargs=networks | {"clip_log_std": clipped}).policy
        assert policy.actor.log_std_bounds == bounds
        for layer, width in ((policy.actor.net[-1], 1e-3), (policy.critic.output_layer, 3e-3)):
            values = th.cat([layer.weight.flatten(), layer.bias.flatten()]).abs()
            assert 0.8 * width < values.max() <= width


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": "cauchy"}, "kernel='cauchy' is not known; use one of 'laplacian', 'gaussian'"),
        ({"mmd_sigma": 0.0}, r"mmd_sigma=0\.0 must be positive"),
        ({"mmd_threshold": -0.1}, r"mmd_threshold=-0\.1 must not be negative"),
        ({"q_samples": "all"}, "q_samples='all' is not known"),
        ({"alpha": 0.0}, r"alpha=0\.0 must be positive"),
        ({"n_mmd_samples": 0}, r"n_mmd_samples=0 must lie in \[1"),
        ({"warmup_steps": -1}, "warmup_steps=-1 must not be negative"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(BEAR, **arguments)
