"""Known numbers of MCQ, one update against a plain form in double precision, and its traps."""

import copy
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import B, close, gradient_of, make_agent, make_batch
from torch import Tensor

from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.vae import ConditionalVAE
from sb3_genoffline.mcq import MCQ, MCQNoise
from sb3_genoffline.mcq.mcq import best_value

pytestmark = pytest.mark.usefixtures("float64")
SMALL: dict[str, Any] = {"n_actions": 4, "policy_kwargs": {"net_arch": [6, 5], "vae_net_arch": [7]}}


FLOOR = -0.165


def make_mcq(**changes: Any) -> MCQ:
    model: MCQ = make_agent(MCQ, **(SMALL | changes))
    return model


def flat(network: th.nn.Module) -> Tensor:
    return th.nn.utils.parameters_to_vector(network.parameters()).detach().clone()


# ---------------------------------------------------------------------- known numbers


def known_actions() -> tuple[Tensor, Tensor]:
    """Four actions of the VAE and four of the policy for three states, (3, 4)."""
    b, n = th.arange(3.0)[:, None], th.arange(4.0)
    return th.sin(0.4 + 1.3 * n + 0.7 * b).tanh(), th.cos(0.9 * n + 1.7 * b).tanh()


def known_q(actions: Tensor, shift: float = 0.0) -> Tensor:
    """(2, 3, 4)"""
    b = th.arange(3.0)[:, None]
    return th.stack([th.sin(th.sin(0.5 + b) + 2 * th.cos(0.3 + 2 * b) + 3 * actions + j) for j in (1, 2)]) + shift


def test_the_best_of_each_critic_comes_before_the_smaller_of_both() -> None:
    """README claim 3; a critic is taken off 1.2, so that all values are negative."""
    proposed, _ = known_actions()
    close(known_q(proposed).amax(-1)[0], [0.93836278, 0.65256415, 0.79653603], 1.1e-8)
    close(known_q(proposed).amax(-1)[1], [0.79785570, 0.20765341, 0.93911609], 5e-9)
    close(best_value(known_q(proposed)), [0.79785570, 0.20765341, 0.79653603], 1.1e-8)
    close(known_q(proposed).amin(0).amax(-1)[1], -0.28502883, 5e-9)  # the other order
    close(best_value(known_q(proposed, -1.2)), [-0.40214430, -0.99234659, -0.40346398], 1.1e-8)


@pytest.mark.parametrize(
    ("shift", "settings", "losses"),
    [
        (0.0, {}, [1.09730801, 0.78308280]),
        (-1.2, {}, [1.09730801, 0.78308280]),
        (-1.2, {"target_floor": 0.0}, [2.45691660, 1.67619221]),
        (0.0, {"one_sided": True}, [0.00251220, None]),
        (0.0, {"one_sided": True, "margin": 5.0, "gate_distance": 0.1}, [13.7246877, None]),
        (-1.2, {"one_sided": True, "margin": 5.0, "gate_distance": 0.1, "target_floor": 0.0}, [10.1726848, None]),
    ],
)
def test_what_actions_outside_the_data_cost_is_a_known_number(
    shift: float, settings: dict[str, Any], losses: list[float | None]
) -> None:
    """README claims 4 and 5."""
    proposed, outside = known_actions()
    pseudo_target = best_value(known_q(proposed, shift))
    if "target_floor" in settings:
        assert (pseudo_target < 0).all()
        pseudo_target = pseudo_target.clamp_min(0.0)
    model = make_mcq(**settings)
    errors = model.outside_errors(known_q(outside, shift), pseudo_target, outside.unsqueeze(-1), proposed.unsqueeze(-1))
    for found, expected in zip(errors.square().mean((1, 2)), losses, strict=True):
        if expected is not None:
            close(found, expected, 5e-8)
    if "gate_distance" in settings:
        assert ((outside - proposed).square() >= 0.1).sum() == 9


def test_the_bellman_target_with_entropy_and_the_weighted_loss_are_known_numbers() -> None:
    """README claim 2."""
    i = th.arange(3.0)
    q = th.stack([3 * th.sin(0.4 + i), 3 * th.cos(0.9 + i)])
    model = make_mcq(gamma=0.99)
    model.actor.sample = lambda states, noise: (noise, th.tensor([-1.2, 0.3, 0.8]))  # type: ignore[method-assign, assignment]
    model.critic_target.forward = lambda states, actions: q  # type: ignore[method-assign]
    batch = TransitionBatch(None, None, th.tensor([0.5, -0.25, 1.0]), None, th.tensor([1.0, 0.0, 1.0]))  # type: ignore[arg-type]
    target = model.bellman_target(batch, th.zeros(3, 3), th.zeros(3, 2), th.tensor(0.7))
    close(target, [2.48817248, -0.25, -2.43814575], 5e-9)
    proposed, outside = known_actions()
    errors = known_q(outside)[0] - best_value(known_q(proposed))[:, None]
    for lam, expected in ((0.9, 9.69621057), (0.7, 7.78534334)):
        close(lam * (q[0] - target).square().mean() + (1 - lam) * errors.square().mean(), expected, 5e-8)


def test_the_codes_loss_of_the_vae_is_as_many_times_ours_as_there_are_actions() -> None:
    """README claim 1."""
    b, z, a = th.arange(2.0)[:, None], th.arange(4.0), th.arange(2.0)
    mean, std = th.sin(1 + b + z), (0.3 * th.cos(b + 2 * z)).exp()
    decoded, actions = th.sin(0.2 + b + a).tanh(), th.cos(0.3 + 1.5 * b + a)
    divergence = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log())
    close(divergence.sum(1).mean(), 1.33200087, 5e-9)
    close((decoded - actions).square().sum(1).mean(), 2.15311976, 5e-9)
    vae = make_mcq().vae
    assert isinstance(vae, ConditionalVAE) and vae.beta == 2.0 and vae.latent_dim == 4
    vae.encode = lambda states, actions: (mean, std)  # type: ignore[method-assign]
    vae.decode = lambda states, latents: decoded.unsqueeze(1)  # type: ignore[method-assign]
    close(2 * vae.loss(th.zeros(2, 3), actions, th.zeros(2, 1, 4)), 3.48512063, 1e-8)


# ---------------------------------------------------------------------- one update


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_floor": FLOOR},
        {"one_sided": True, "margin": 0.2, "gate_distance": 0.5},
        {"target_entropy": -3.5, "lam": 0.4},
    ],
    ids=["plain", "floor", "gated", "entropy"],
)
def test_one_update_is_the_codes_losses_in_its_order(settings: dict[str, Any]) -> None:
    """README claims 2 to 6."""
    model, batch = make_mcq(**settings), make_batch()
    noise, start = model.draw_noise(B), copy.deepcopy(model.policy)
    info = model.step(batch, noise)
    states, following = (start.normalize_observations(x) for x in (batch.observations, batch.next_observations))
    vae, actor, critic = model.vae, start.actor, start.critic  # the VAE has stepped before, the others later

    action, log_prob = actor.sample(states, noise.actor)
    wanted = settings.get("target_entropy", -2.0)
    close(model.log_entropy_weight.grad, -(log_prob.detach() + wanted).mean(), 1e-12)
    weight = model.log_entropy_weight.detach().exp()
    close(info["entropy_weight"], weight, 1e-15)

    next_action, next_log_prob = actor.sample(following, noise.target)
    next_value = start.critic_target(following, next_action).amin(0) - weight * next_log_prob
    target = (batch.rewards + 0.97 * batch.masks * next_value).detach()
    lam, q = settings.get("lam", 0.7), critic(states, batch.actions)
    loss = th.zeros(())
    for h in range(2):
        loss = loss + lam * (q[h] - target).square().mean()
    outside_errors = []
    for row in range(2 * B):  # the states, then the next ones, one by one
        state = th.cat([states, following])[row : row + 1].expand(4, -1)
        proposed = vae.decode(state, noise.latents[row].clamp(-0.5, 0.5))
        pseudo = critic(state, proposed).amax(1).min().detach().clamp_min(settings.get("target_floor", -1e9))
        outside = actor.sample(state, noise.outside[row])[0].detach()
        error = critic(state, outside) - (pseudo - settings.get("margin", 0.0))  # (2, 4)
        if "gate_distance" in settings:
            far = (outside - proposed).square().sum(1) >= settings["gate_distance"]
            error = error.clamp_min(0.0) * far
        outside_errors.append(error)
    outside_loss = th.stack(outside_errors).square().mean((0, 2))  # (2,)
    loss = loss + (1 - lam) * outside_loss.sum()
    close(info["outside_loss"], outside_loss.sum(), 1e-12)
    gradient = th.cat([g.flatten() for g in th.autograd.grad(loss, list(critic.parameters()))])
    close(gradient_of(model.critic), gradient, 1e-12)
    if "floor" in str(settings):
        assert 0 < info["floored_share"] < 1
    if "gate_distance" in settings:
        assert 0 < sum((error == 0).sum().item() for error in outside_errors) < 2 * B * 8

    actor_loss = (weight * log_prob - model.critic(states, action).amin(0)).mean()  # the critics that have just moved
    close(info["actor_loss"], actor_loss, 1e-12)
    gradient = th.cat([g.flatten() for g in th.autograd.grad(actor_loss, list(actor.parameters()))])
    close(gradient_of(model.actor), gradient, 1e-12)
    close(flat(model.critic_target), 0.995 * flat(start.critic_target) + 0.005 * flat(model.critic), 1e-14)


def test_with_lambda_one_an_update_is_sacs_bit_for_bit() -> None:
    """README claim 7."""
    model, batch = make_mcq(lam=1.0, learning_rate=1e-2), make_batch()
    plain, log_weight = copy.deepcopy(model.policy), th.zeros((), requires_grad=True)
    rates: dict[str, Any] = {"lr": 1e-2, "fused": True}
    steps = {name: th.optim.Adam(getattr(plain, name).parameters(), **rates) for name in ("actor", "critic")}
    entropy_step = th.optim.Adam([log_weight], **rates)
    for _ in range(3):
        noise = model.draw_noise(B)
        model.step(batch, noise)
        states, following = (plain.normalize_observations(x) for x in (batch.observations, batch.next_observations))
        action, log_prob = plain.actor.sample(states, noise.actor)
        log_weight.grad = -(log_prob.detach() - 2.0).mean()
        entropy_step.step()
        weight = log_weight.detach().exp()
        with th.no_grad():
            next_action, next_log_prob = plain.actor.sample(following, noise.target)
            value = plain.critic_target(following, next_action).amin(0) - weight * next_log_prob
            target = batch.rewards + 0.97 * batch.masks * value
        for name in ("critic", "actor"):
            if name == "critic":
                loss = (plain.critic(states, batch.actions) - target).square().mean(1).sum()
            else:
                loss = (weight * log_prob - plain.critic(states, action).amin(0)).mean()
            parameters = list(getattr(plain, name).parameters())
            for parameter, gradient in zip(parameters, th.autograd.grad(loss, parameters), strict=True):
                parameter.grad = gradient
            steps[name].step()
        th._foreach_lerp_(list(plain.critic_target.parameters()), list(plain.critic.parameters()), 0.005)
    for name in ("actor", "critic", "critic_target"):
        assert th.equal(flat(getattr(model, name)), flat(getattr(plain, name))), name


# ---------------------------------------------------------------------- traps


def test_pseudo_targets_are_the_online_critics_and_take_no_gradient() -> None:
    """README claim 3."""
    found = []
    for changed in ("", "critic_target", "critic"):
        model = make_mcq()
        if changed:
            getattr(model, changed).output_layer.bias.data += 1.0
        found.append(model.step(make_batch(), model.draw_noise(B))["pseudo_target"])
    close(found, [found[0], found[0], found[0] + 1.0], 1e-12)


def test_each_state_has_its_own_pseudo_target() -> None:
    """README claim 3: a critic that knows nothing but the state leaves no error."""
    model, batch = make_mcq(lam=0.5), make_batch()
    model.critic.input_layer.weight.data[:, 3:] = 0.0
    for parameter in model.critic.parameters():
        parameter.data[1] = parameter.data[0]  # twins
    info = model.step(batch, model.draw_noise(B))
    close(info["outside_loss"], 0.0, 1e-20)
    assert model.critic(th.randn(9, 3), th.zeros(9, 2)).std() > 0.01


def test_latents_are_clipped_where_actions_are_drawn_and_not_where_the_vae_learns() -> None:
    """README claim 3."""
    model, batch, seen = make_mcq(), make_batch(), []
    model.vae.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][..., 3:]))
    noise = model.draw_noise(B)
    model.step(batch, noise)
    learned, drawn = seen
    assert learned.abs().max() > 0.5 and th.equal(drawn, noise.latents.clamp(-0.5, 0.5))
    assert noise.latents.shape == (2 * B, 4, 4) and noise.outside.shape == (2 * B, 4, 2)


def test_the_actor_gets_no_gradient_of_the_critics_loss() -> None:
    """README claim 6."""
    batch, moved = make_batch(), []
    for lam in (0.3, 1.0):
        model = make_mcq(lam=lam, critic_learning_rate=0.0)
        model.step(batch, model.draw_noise(B))
        moved.append(flat(model.actor))
    assert th.equal(*moved)


def test_the_spread_is_bounded_below_as_in_the_code() -> None:
    """README claim 8."""
    policy = make_mcq().policy
    assert policy.actor.log_std_bounds == (-5.0, 2.0)
    default = MCQ("MlpPolicy", (policy.observation_space, policy.action_space), device="cpu").policy  # type: ignore[arg-type]
    widths = [layer.out_features for layer in default.actor.net if isinstance(layer, th.nn.Linear)]
    assert widths == [400, 400, 400, 4]
    observations = make_batch().observations
    mean, _ = policy.actor.distribution(policy.normalize_observations(observations))
    close(make_mcq().predict(observations.numpy(), deterministic=True)[0], mean.tanh(), 1e-6)


def rewards_of(values: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(40, 3)),
        "actions": rng.uniform(-1, 1, (40, 2)),
        "rewards": np.full(40, values),
        "next_observations": rng.normal(size=(40, 3)),
        "terminals": np.arange(40) % 4 == 3,
    }


def test_a_floor_above_what_the_data_are_worth_is_warned_of_once() -> None:
    """README claim 9."""
    model = make_mcq(target_floor=0.0)
    with pytest.warns(UserWarning, match=r"worth -1 on average.*target_floor=0: every action outside") as caught:
        model.learn_offline(rewards_of(-1.0), 12, log_interval=4)
    assert len([one for one in caught if "target_floor" in str(one.message)]) == 1


def test_a_floor_is_held_against_the_rewards_that_are_learned_from() -> None:
    """README claim 9: 0.5 is worth −0.5 where AntMaze's 1 is subtracted."""
    with pytest.warns(UserWarning, match=r"worth -0\.5 on average.*target_floor=0: every action outside"):
        make_mcq(target_floor=0.0, reward_transform="iql_antmaze").learn_offline(rewards_of(0.5), 4, log_interval=2)


@pytest.mark.filterwarnings("error:A step of the data")
@pytest.mark.parametrize(("floor", "reward"), [(None, -1.0), (0.0, 0.5), (-200.0, -1.0)])
def test_other_floors_are_not_warned_of(floor: float | None, reward: float) -> None:
    make_mcq(target_floor=floor).learn_offline(rewards_of(reward), 4, log_interval=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lam": 0.0}, r"lam=0\.0 must"),
        ({"n_actions": 0}, "n_actions=0"),
        ({"margin": 1.0}, r"margin=1\.0 has no effect without one_sided"),
        ({"gate_distance": -0.1}, r"gate_distance=-0\.1"),
    ],
)
def test_values_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_mcq(**settings)


def test_all_random_numbers_are_those_that_are_given() -> None:
    first, second = make_mcq(), make_mcq()
    noise: MCQNoise = first.draw_noise(B)
    for model in (first, second):
        th.manual_seed(id(model) % 1000)
        model.step(make_batch(), noise)
    assert all(th.equal(a, b) for a, b in zip(first.policy.parameters(), second.policy.parameters(), strict=True))
