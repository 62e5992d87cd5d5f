"""One update of PLAS and PLAS+P against known numbers of the official code, and the traps around it."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import close, make_agent, make_batch
from golden import B, S, Z, fill, golden_agent, golden_batch, normal, state_of, step_and_targets

from sb3_genoffline.common.vae_training import vae_step
from sb3_genoffline.plas import PLAS

pytestmark = pytest.mark.usefixtures("float64")
SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [6, 5], "vae_net_arch": [7]}}
STILL = {"learning_rate": 0.0, "critic_learning_rate": 0.0}


def golden_plas(**settings: Any) -> Any:
    model = golden_agent(PLAS, vae="density", **settings)
    if model.max_perturbation is not None:
        fill(model.actor.perturbation, 0.6)
        fill(model.actor_target.perturbation, 0.65)
    return model


def small_plas(**settings: Any) -> Any:
    """A small agent whose VAE counts as fitted."""
    model = make_agent(PLAS, **SMALL | settings)
    model.policy.fitted.fill_(True)
    return model


def latents_at(actor: Any, states: th.Tensor) -> th.Tensor:
    return actor(states[:1])[0].detach()


# ---------------------------------------------------------------------- known numbers of the official code


def test_a_step_of_the_vae_gives_the_known_loss() -> None:
    """README claim 1."""
    model, batch, noise = golden_plas(), golden_batch(), normal((4, 1, 4), 3)
    vae = model.policy.density.requires_grad_(True)
    optimizer = th.optim.Adam(vae.parameters(), fused=True)
    close(vae_step(vae, optimizer, batch.observations, batch.actions, noise, 1e-4)["loss"], 0.39701736, 5e-9)
    close(vae.loss(batch.observations, batch.actions, noise), 0.22115673, 5e-9)
    close(vae.decode(batch.observations, th.zeros(B, Z))[0], [-0.18157235, -0.20454160], 5e-9)


@pytest.mark.parametrize(
    ("bound", "latents", "decoded"),
    [
        (2.0, [-0.11422423, -0.17828816, -0.19901640, -0.17124885], [-0.07746274, -0.10144388]),
        (0.5, [-0.02855606, -0.04457204, -0.04975410, -0.04281221], [-0.08381753, -0.10649911]),
    ],
)
def test_the_targets_latents_and_what_they_decode_to_are_known_numbers(bound: float, latents: Any, decoded: Any) -> None:
    """README claim 2."""
    model, states = golden_plas(max_latent_action=bound), golden_batch().next_observations
    close(latents_at(model.actor_target, states), latents, 5e-9)
    close(model.policy.decode(states, model.actor_target(states))[0], decoded, 5e-9)


@pytest.mark.parametrize(
    ("settings", "targets", "critic_loss", "actor_loss"),
    [
        ({}, [0.92885610, 0.45747186, -0.41614684, -1.06440764], 1.19368569, 0.06723721),
        ({"lam": 0.75}, [0.93045453, 0.45824760, -0.41614684, -1.06334705], 1.19463027, 0.06723721),
        ({"max_latent_action": 0.5}, None, 1.19318261, 0.06707885),
        ({"max_perturbation": 0.05}, [0.92878365, 0.45765903, -0.41614684, -1.06429658], 1.19360569, 0.06729037),
    ],
    ids=str,
)
def test_losses_and_targets_before_any_step_are_known_numbers(
    settings: dict[str, Any], targets: Any, critic_loss: float, actor_loss: float
) -> None:
    """README claims 3 and 4."""
    model, batch = golden_plas(**settings, **STILL), golden_batch()
    if model.max_perturbation is not None:
        decoded = model.policy.decode(batch.next_observations, model.actor_target(batch.next_observations))
        close(model.actor_target.perturb(batch.next_observations, decoded)[0], [-0.08151866, -0.10605587], 5e-9)
    info, found = step_and_targets(model, batch, None)
    if targets is not None:
        close(found, targets, 5e-9)
    close([info["critic_loss"], info["actor_loss"]], [critic_loss, actor_loss], 5e-9)


def test_networks_after_a_whole_update_are_known_numbers() -> None:
    """README claim 5: what is evaluated before a neighbour's step and should be after it differs in the third digit."""
    model, batch = golden_plas(), golden_batch()
    model.step(batch, None)
    close(latents_at(model.actor, batch.observations), [0.03545653, -0.02964419, -0.07189782, -0.08619710], 5e-9)
    close(latents_at(model.actor_target, batch.observations), [-0.10845120, -0.17830576, -0.20478364, -0.18202912], 1e-8)
    action, _ = model.predict(batch.observations[0].numpy(), deterministic=True)
    close(action, [-0.07077686, -0.09084223], 5e-9)
    q = model.critic(batch.observations, batch.actions)
    close(q[0], [0.49983464, -0.18431331, -0.16642627, -0.29793355], 5e-9)


def test_networks_with_a_perturbation_after_a_whole_update_are_known_numbers() -> None:
    """README claim 5."""
    model, batch = golden_plas(max_perturbation=0.05), golden_batch()
    model.step(batch, None)
    close(latents_at(model.actor, batch.observations), [0.03566527, -0.02968859, -0.07221182, -0.08671186], 5e-9)
    action, _ = model.predict(batch.observations[0].numpy(), deterministic=True)
    close(action, [-0.07764266, -0.09846767], 5e-9)


def test_latents_fill_their_box_by_a_tanh() -> None:
    """README claim 2."""
    actor = small_plas().actor
    last = actor.latent.net[-2]
    last.weight.data.zero_()
    last.bias.data.copy_(th.tensor([-3.0, -0.7, 0.4, 5.0]))
    close(latents_at(actor, th.zeros(1, S)), [-1.99010951, -1.20873555, 0.75989792, 1.99981841], 5e-9)


# ---------------------------------------------------------------------- traps


def test_latents_are_decoded_as_they_are_beyond_a_half() -> None:
    """README claim 2: BCQ clips them."""
    model, batch = golden_plas(), golden_batch()
    far, near = (model.policy.decode(batch.observations, th.full((B, Z), value)) for value in (2.0, 0.5))
    assert (far - near).abs().min() > 1e-3
    seen: list[th.Tensor] = []
    model.policy.density.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][..., S:]))
    for actor in (model.actor, model.actor_target):
        actor.latent.net[-2].bias.data.fill_(5.0)
    model.step(batch, None)
    assert len(seen) == 2 and all((part > 1.9).all() for part in seen)


@pytest.mark.parametrize("perturbation", [None, 0.05])
def test_the_vae_stays_as_it_is_and_the_actor_learns_through_it(perturbation: float | None) -> None:
    """README claims 1 and 5."""
    model = small_plas(max_perturbation=perturbation, learning_rate=1e-3, tau=0.25)
    moving = ["latent", "perturbation"] if perturbation is not None else ["latent"]
    vae, parts = state_of(model.policy, "density"), state_of(model.actor, *moving)
    slow = state_of(model, "actor_target", "critic_target")
    model.step(make_batch(), None)
    assert th.equal(state_of(model.policy, "density")["density"], vae["density"])
    assert not any(th.equal(new, parts[name]) for name, new in state_of(model.actor, *moving).items())
    assert all(parameter.grad is None for parameter in model.policy.density.parameters())
    vae = {id(parameter) for parameter in model.policy.density.parameters()}
    assert not any(
        id(parameter) in vae for optimizer in model.state.optimizers.values() for parameter in parameters(optimizer)
    )
    assert {id(parameter) for parameter in parameters(model.actor_optimizer)} == {id(p) for p in model.actor.parameters()}
    for name, new in state_of(model, "actor", "critic").items():
        target = f"{name}_target"
        close(state_of(model, target)[target], 0.75 * slow[target] + 0.25 * new, 1e-12)


def parameters(optimizer: th.optim.Optimizer) -> list[th.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def test_a_perturbation_of_zero_is_none_and_a_larger_one_keeps_its_bound() -> None:
    """README claim 4."""
    batch = make_batch()
    agents = [small_plas(max_perturbation=epsilon) for epsilon in (None, 0.0)]
    agents[1].policy.load_state_dict({**agents[1].policy.state_dict(), **agents[0].policy.state_dict()})
    for model in agents:
        model.step(batch, None)
    actions = [model.predict(batch.observations.numpy(), deterministic=True)[0] for model in agents]
    close(*actions, 1e-15)
    assert "perturbation" not in agents[0].step(batch, None) and agents[1].step(batch, None)["perturbation"] == 0
    moved = small_plas(max_perturbation=0.2)
    for parameter in moved.actor.perturbation.parameters():
        parameter.data.mul_(50.0)
    assert 0 < moved.step(batch, None)["perturbation"] <= 0.2


def test_the_vae_reads_raw_states_and_the_other_networks_standardised_ones() -> None:
    """README claim 6."""
    model, batch, seen = small_plas(max_perturbation=0.05), make_batch(), []
    model.policy.density.set_state_statistics(th.tensor([1.0, 2.0, 3.0]), th.tensor([2.0, 2.0, 2.0]))
    for network in (model.policy.density.decoder, model.actor.latent.net, model.actor.perturbation.net):
        network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][:, :S]))
    actions, _ = model.predict(batch.observations.numpy(), deterministic=True)
    states = model.policy.normalize_observations(batch.observations)
    latent, decoded, perturbed = seen
    assert th.equal(latent, states) and th.equal(perturbed, states)
    close(decoded, (batch.observations - th.tensor([1.0, 2.0, 3.0])) / 2.0, 1e-12)
    again, _ = model.predict(batch.observations.numpy(), deterministic=True)
    assert np.array_equal(actions, again)


def test_an_update_draws_no_random_numbers_and_a_terminals_target_is_its_reward() -> None:
    model, batch = small_plas(), make_batch()
    before = model.generator.get_state()
    assert model.draw_noise(7) is None
    targets = step_and_targets(model, batch, None)[1]
    assert th.equal(model.generator.get_state(), before)
    ended = batch.masks == 0
    assert th.equal(targets[ended], batch.rewards[ended]) and not (targets[~ended] == batch.rewards[~ended]).any()


def test_noise_is_added_to_the_action_or_to_the_latents() -> None:
    """README claim 7."""
    observations = make_batch().observations
    for on_latents in (False, True):
        networks = SMALL["policy_kwargs"] | {"noise_on_latents": on_latents}
        model = small_plas(policy_kwargs=networks)
        best, _ = model.predict(observations.numpy(), deterministic=True)
        model.policy.seed_acting(3)
        found, _ = model.predict(observations.numpy())
        noise = th.randn(7, 4 if on_latents else 2, generator=th.Generator().manual_seed(3))
        with th.no_grad():
            latents = model.actor(model.policy.normalize_observations(observations))
            moved = model.policy.decode(observations, (latents + 0.2 * noise).clamp(-2, 2)) if on_latents else None
        expected = moved if on_latents else (th.as_tensor(best) + 0.1 * noise).clamp(-1, 1)
        close(found, expected, 1e-12)


def test_a_vae_whose_latents_move_nothing_is_warned_of_once() -> None:
    """README claim 8."""
    model, data = small_plas(), make_batch()
    dataset = model.set_dataset(
        {
            "observations": data.observations.numpy(),
            "actions": data.actions.numpy(),
            "rewards": data.rewards.numpy(),
            "next_observations": data.next_observations.numpy(),
            "terminals": np.ones(7, bool),
        }
    )
    first = model.policy.density.decoder[0]
    states = th.as_tensor(data.observations, dtype=th.float32).double()
    ends = [model.policy.decode(states, 2.0 * sign * th.eye(4).expand(7, 4, 4)) for sign in (1, -1)]
    close(model.latent_reach(), (ends[0] - ends[1]).abs().mean(-1).amax(1).mean(), 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn_offline(dataset, 2)
    assert model.last_metrics["latent_reach"] > 0.01
    first.weight.data[:, S:] = 0.0
    with pytest.warns(UserWarning, match=r"latent_reach=0\).*closer to each other than 0\.35.*smaller beta than 0\.5"):
        model.learn_offline(dataset, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn_offline(dataset, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_latent_action": 0.0}, r"max_latent_action=0\.0 must be positive"),
        ({"max_perturbation": -0.1}, r"max_perturbation=-0\.1 must not be negative"),
        ({"lam": 1.5}, r"lam=1\.5 must lie in \[0, 1\]"),
        ({"vae_steps": 0}, "vae_steps=0 must be at least 1"),
        ({"policy_kwargs": {"beta": 0.3}}, "policy_kwargs has 'beta', which is an argument of PLAS"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(PLAS, **arguments)
