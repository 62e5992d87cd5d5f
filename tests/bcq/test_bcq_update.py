"""One update of BCQ, its target and its acting against known numbers of the official code, and the traps around them."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import close, make_agent, make_batch
from golden import A, B, S, Z, golden_agent, golden_batch, normal, state_of, step_and_targets

from sb3_genoffline.bcq import BCQ, BCQNoise

pytestmark = pytest.mark.usefixtures("float64")
NOISE = BCQNoise(vae=normal((4, 1, 4), 3), target=normal((40, 4), 4).view(4, 10, 4), actor=normal((4, 4), 5))
NETWORKS = ("actor", "actor_target", "critic", "critic_target", "vae")
SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [6, 5], "vae_net_arch": [7]}}


def targets_of(model: Any, noise: BCQNoise = NOISE) -> th.Tensor:
    """y of an update."""
    return step_and_targets(model, golden_batch(), noise)[1]


# ---------------------------------------------------------------------- known numbers of the official code


@th.no_grad()
def test_the_encoder_and_the_first_candidate_are_known_numbers() -> None:
    model, batch = golden_agent(BCQ), golden_batch()
    mean, std = model.vae.encode(batch.observations, batch.actions)
    close(mean[0], [-0.11721247, -0.12265261, -0.10086132, -0.05483349], 5e-9)
    close(std[0], [0.91821526, 0.96013028, 1.01755810, 1.07950971], 5e-9)
    proposed = model.policy.propose(batch.next_observations, NOISE.target)
    close(proposed[0, 0], [-0.08117803, -0.08989997], 5e-9)
    close(model.actor_target(batch.next_observations, proposed)[0, 0], [-0.08399440, -0.09436300], 5e-9)


def test_losses_and_targets_before_any_step_are_known_numbers() -> None:
    """README claims 1 to 3."""
    model, batch = golden_agent(BCQ, learning_rate=0.0, vae_learning_rate=0.0), golden_batch()
    close(model.critic(batch.observations, batch.actions)[0], [-0.05313022, -0.08320843, -0.06295504, -0.06410013], 5e-9)
    info, targets = step_and_targets(model, batch, NOISE)
    close(targets, [0.93059357, 0.46070627, -0.41614684, -1.06151225], 5e-9)
    close([info["vae_loss"], info["critic_loss"], info["actor_loss"]], [0.39701736, 1.19428869, 0.06697472], 5e-9)


@th.no_grad()
def test_networks_after_a_whole_update_are_known_numbers() -> None:
    """README claim 4: what is evaluated before a neighbour's step and should be after it differs in the third digit."""
    model, batch = golden_agent(BCQ), golden_batch()
    with th.enable_grad():
        model.step(batch, NOISE)
    states, actions = batch.observations, batch.actions
    q = model.critic(states, actions)
    close(q[0], [0.50170098, -0.17081314, -0.16634845, -0.28791632], 5e-9)
    close(q[1], [0.47336853, -0.13787246, -0.22648013, -0.26014954], 5e-9)
    decoded = model.vae.decode(states, th.zeros(B, Z))
    close(decoded[0], [-0.77105672, -0.79430387], 5e-9)
    close(model.actor(states, decoded)[0], [-0.79899705, -0.82412406], 5e-9)
    close(model.actor_target(states, decoded)[0], [-0.77380207, -0.79869845], 5e-9)
    close(model.critic_target(states, actions)[0], [-0.05324512, -0.08873629, -0.06831963, -0.06849028], 5e-9)


@th.no_grad()
def test_the_action_at_a_state_is_the_known_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """README claim 5."""
    model, batch = golden_agent(BCQ), golden_batch()
    latents = normal((100, 4), 6).view(1, 100, 4)
    monkeypatch.setattr(model.policy, "acting_noise", lambda *shape: latents if shape == (1, 100, 4) else None)
    action = model.policy._predict(batch.observations[:1], deterministic=True)
    close(action[0], [-0.11783524, -0.13260440], 5e-9)
    candidates = model.policy.sample_actions(batch.observations[:1], 100)
    assert (candidates[0] == action).all(-1).nonzero().tolist() == [[75]]
    close(model.critic(batch.observations[:1], action)[0], [-0.05971243], 5e-9)


@pytest.mark.parametrize(
    ("lam", "best", "targets"),
    [
        (0.75, [-0.10174238, -0.02108606], [0.39927504, -0.25]),
        (1.0, None, [0.08801463, -0.25]),
        (0.0, None, [1.40020445, -0.25]),
    ],
)
def test_the_target_mixes_critics_first_and_takes_the_best_candidate_last(lam: float, best: Any, targets: Any) -> None:
    """README claim 2, with λ at 1 (clipped double Q) and at 0."""
    row, column = th.arange(2.0).unsqueeze(1), th.arange(3.0)
    q = th.stack([th.sin(1 + 3 * row + column), th.cos(2 + 3 * row + column)])  # (2, 2, 3)
    model = make_agent(BCQ, lam=lam, gamma=0.99, **SMALL)
    model.critic_target.score_samples = lambda states, actions: q
    batch = make_batch()._replace(rewards=th.tensor([0.5, -0.25]), masks=th.tensor([1.0, 0.0]))
    close(model.target_of_the_best(batch, None, None), targets, 5e-9)
    if best is not None:
        ones = batch._replace(rewards=th.zeros(2), masks=th.full((2,), 1 / 0.99))
        close(model.target_of_the_best(ones, None, None), best, 5e-9)


# ---------------------------------------------------------------------- traps


def test_candidates_of_one_state_stand_beside_each_other() -> None:
    model = golden_agent(BCQ, n_target_samples=3, gamma=1.0, learning_rate=0.0)
    seen: list[tuple[th.Tensor, th.Tensor]] = []

    def values(states: th.Tensor, actions: th.Tensor) -> th.Tensor:
        seen.append((states, actions))
        return th.arange(12.0).view(4, 3).expand(2, -1, -1)

    model.critic_target.score_samples = values
    noise = NOISE._replace(target=normal((4, 3, 4), 4))
    y, batch = targets_of(model, noise), golden_batch()
    close(y - batch.rewards, [2.0, 5.0, 0.0, 11.0], 1e-12)  # tiled instead: 8, 9, 0, 11
    states, actions = seen[0]
    expected = model.actor_target(states[1:2], model.policy.propose(states[1:2], noise.target[1, 2:]))
    close(actions[1, 2], expected[0].detach(), 1e-3)  # the VAE has stepped in between


def test_the_target_asks_for_as_many_candidates_as_it_was_told_to() -> None:
    model, rows = golden_agent(BCQ), []
    model.critic_target.trunk.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[1]))
    model.step(golden_batch(), model.draw_noise(B))
    assert rows == [10 * B] and model.policy.n_action_samples == 100


def test_proposed_latents_are_clipped_and_the_vaes_own_are_not() -> None:
    """README claim 6."""
    model, seen = make_agent(BCQ, **SMALL), []
    model.vae.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][..., S:]))
    noise = model.draw_noise(25_000)
    model.policy.propose(th.zeros(25_000, S), noise.actor)
    latents = seen.pop()
    assert latents.abs().max() == 0.5
    assert (latents.abs() == 0.5).float().mean().item() == pytest.approx(0.61707508, abs=0.01)
    assert latents.std().item() == pytest.approx(0.43026546, abs=0.005)
    model.step(make_batch(), model.draw_noise(7))
    learning, target, acted = seen[:3]
    assert learning.abs().max() > 0.5 and target.abs().max() == acted.abs().max() == 0.5
    model.predict(make_batch().observations.numpy())
    assert seen[3].abs().max() == 0.5


def test_the_target_asks_the_slow_actor_and_critics_and_acting_the_quick_ones() -> None:
    """README claims 2 and 5."""
    plain = targets_of(golden_agent(BCQ))
    observations = golden_batch().observations.numpy()
    acted = golden_agent(BCQ).predict(observations, deterministic=True)[0]
    for name in ("actor", "actor_target", "critic", "critic_target"):
        targets, actions = [golden_agent(BCQ) for _ in range(2)]
        for model in (targets, actions):
            for parameter in getattr(model, name).parameters():
                parameter.data.neg_()
        slow = name.endswith("_target")
        assert th.equal(targets_of(targets), plain) != slow, name
        assert np.array_equal(actions.predict(observations, deterministic=True)[0], acted) == slow, name
    second = golden_agent(BCQ)  # the first critic chooses, not the smaller one
    second.critic.input_layer.weight.data[1].neg_()
    assert np.array_equal(second.predict(observations, deterministic=True)[0], acted)


def test_the_vae_moves_by_its_own_loss_alone_and_every_target_in_each_update() -> None:
    """README claims 1 and 4."""
    model = make_agent(BCQ, vae_learning_rate=0.0, tau=0.25, **SMALL)
    now = state_of(model, *NETWORKS)
    for step in range(3):
        model.step(make_batch(step), model.draw_noise(7))
        before, now = now, state_of(model, *NETWORKS)
        assert {name for name in now if not th.equal(before[name], now[name])} == set(now) - {"vae"}
        for name in ("actor", "critic"):
            close(now[f"{name}_target"], 0.75 * before[f"{name}_target"] + 0.25 * now[name], 1e-12)
    noise = model.draw_noise(7)
    frozen, moving = (make_agent(BCQ, learning_rate=rate, **SMALL) for rate in (0.0, 1e-2))
    for agent in (frozen, moving):
        agent.step(make_batch(), noise)
    assert th.equal(state_of(frozen, "vae")["vae"], state_of(moving, "vae")["vae"])
    assert not th.equal(state_of(frozen, "vae")["vae"], state_of(make_agent(BCQ, **SMALL), "vae")["vae"])


def test_all_networks_see_observations_standardised_once() -> None:
    """README claim 7."""
    model, batch, seen = make_agent(BCQ, **SMALL), make_batch(), []
    for network in (model.vae.encoder, model.vae.decoder, model.actor.net):
        network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][..., :S]))
    model.step(batch, model.draw_noise(7))
    states = model.policy.normalize_observations(batch.observations)
    following = model.policy.normalize_observations(batch.next_observations).unsqueeze(1).expand(-1, 10, -1)
    encoded, learned, *others = seen
    assert th.equal(encoded, states) and th.equal(learned, states.unsqueeze(1))
    assert [part.ndim for part in others] == [3, 2, 2]  # next states are decoded; states are decoded and perturbed
    assert th.equal(others[0], following) and th.equal(others[1], states) and th.equal(others[2], states)
    seen.clear()
    model.policy.seed_acting(3)
    actions, _ = model.predict(batch.observations.numpy(), deterministic=True)
    assert all(th.equal(part, states.unsqueeze(1).expand(-1, 100, -1)) for part in seen)
    generator = th.Generator().manual_seed(3)
    proposed = model.policy.propose(states, th.randn(7, 100, 4, generator=generator))
    candidates = model.actor(states, proposed)
    best = model.critic.of_samples(states, candidates)[0].argmax(1)
    close(actions, candidates[th.arange(7), best].detach(), 1e-12)


def test_without_perturbation_and_choice_the_target_is_of_a_decoded_action() -> None:
    """README claim 8."""
    settings: dict[str, Any] = {"max_perturbation": 0.0, "n_target_samples": 1, "lam": 1.0, "vae_learning_rate": 0.0}
    model, batch = golden_agent(BCQ, **settings), golden_batch()
    noise = NOISE._replace(target=NOISE.target[:, :1])
    with th.no_grad():
        decoded = model.vae.decode(batch.next_observations, noise.target[:, 0].clamp(-0.5, 0.5))
        q = model.critic_target(batch.next_observations, decoded).amin(0)
    before = state_of(model, *NETWORKS)["actor"]
    close(targets_of(model, noise), batch.rewards + 0.99 * batch.masks * q, 1e-12)
    assert th.equal(state_of(model, *NETWORKS)["actor"], before)


def test_one_candidate_is_drawn_where_none_is_chosen_and_settings_of_acting_reach_the_policy() -> None:
    model = make_agent(BCQ, **SMALL)
    shapes: list[Any] = []
    sample = model.policy.sample_actions
    model.policy.sample_actions = lambda states, n: shapes.append(n) or sample(states, n)
    for deterministic in (False, True):
        model.predict(make_batch().observations.numpy(), deterministic=deterministic)
    model.n_action_samples, model.latent_clip = 5, 0.25
    model.predict(make_batch().observations.numpy(), deterministic=True)
    assert shapes == [1, 100, 5] and model.policy.latent_clip == 0.25
    assert model.policy.sample_actions(th.zeros(2, S), 3).shape == (2, 3, A)


def test_a_vae_whose_latents_say_nothing_is_warned_of_once() -> None:
    """README claim 9."""
    model = make_agent(BCQ, **SMALL)
    silent = {"vae_kl": 1e-3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.watch(silent)  # it has not settled yet
        model._n_updates = 10_000
        model.watch({"vae_kl": 0.1})
    with pytest.warns(UserWarning, match=r"vae_kl=0\.001 nats.*closer to each other than 0\.35.*smaller beta than 0\.5"):
        model.watch(silent)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.watch(silent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_perturbation": -0.1}, r"max_perturbation=-0\.1 must not be negative"),
        ({"lam": 1.5}, r"lam=1\.5 must lie in \[0, 1\]"),
        ({"beta": 0.0}, r"beta=0\.0 must be positive"),
        ({"n_target_samples": 0}, r"n_target_samples=0 must lie in \[1"),
        ({"latent_clip": 0.0}, r"latent_clip=0\.0 must be positive"),
        ({"vae_learning_rate": -1.0}, r"vae_learning_rate=-1\.0 must not be negative"),
        ({"policy_kwargs": {"latent_dim": 0}}, "latent_dim=0 must be at least 1"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(BCQ, **arguments)
