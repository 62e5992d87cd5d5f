"""Known numbers of UWAC, computed with its authors' functions in double precision or from their formulas, and its traps."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import B, close, make_agent, make_batch
from torch import Tensor

from sb3_genoffline.bear import BEAR, BEARNoise
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.mmd import mmd
from sb3_genoffline.uwac import UWAC, UWACNoise

pytestmark = pytest.mark.usefixtures("float64")
NETWORKS: dict[str, Any] = {"net_arch": [6, 5], "vae_net_arch": [7]}


def make_uwac(**changes: Any) -> Any:
    settings = {"n_passes": 4, "warmup_steps": 0, "policy_kwargs": NETWORKS}
    return make_agent(UWAC, **(settings | changes))


def rewards_and_masks(rewards: Any, masks: Any) -> TransitionBatch:
    """What a target reads of a batch."""
    return make_batch()._replace(rewards=th.tensor(rewards), masks=th.tensor(masks))


def flat(network: th.nn.Module) -> Tensor:
    return th.nn.utils.parameters_to_vector(network.parameters()).detach().clone()


# ---------------------------------------------------------------------- known numbers


def test_weights_are_known_numbers() -> None:
    """README claims 3 and 4."""
    j = th.arange(6.0)
    variance, errors = 1 + th.sin(0.9 * j + 0.3), th.cos(1.1 * j)
    known = {
        "exp": ([0.52321642, 0.38059497, 0.39392108, 0.56520883, 0.85545916, 0.99808414], 0.20637078),
        "inverse": ([0.38594535, 0.25879394, 0.26835417, 0.43816601, 1.0, 1.0], 0.16192550),
    }
    for weighting, (expected, loss) in known.items():
        model = make_uwac(weighting=weighting)
        weights = model.weights(variance)
        close(weights, expected, 5e-9)
        assert model.weight_power == 2
        close((weights**model.weight_power * errors.square()).mean(), loss, 5e-9)
    model = make_uwac()
    close((model.weights(variance) * errors.square()).mean(), 0.31185797, 5e-9)  # the paper's power
    for value, weight in ((0.01, 0.995), (1.0, 0.607), (4.0, 0.135), (20.0, 4.5e-5)):
        assert model.weights(th.tensor(value)).item() == pytest.approx(weight, rel=1e-2)


def test_the_variance_is_the_unbiased_one() -> None:
    """README claim 3."""
    b, t = th.arange(3.0), th.arange(5.0)
    samples = th.sin(0.3 + 1.7 * b + 0.9 * t[:, None])  # (T, B)
    close(samples.mean(0), [0.30882450, -0.21890021, -0.25241633], 5e-9)
    passes = th.stack([samples, th.zeros(5, 3)]).unsqueeze(-1)  # (2, T, B, 1)
    target, variance = make_uwac(gamma=1.0, lam=0.0).uncertain_target(rewards_and_masks([0.0] * 3, [1.0] * 3), passes)
    close(target, [0.30882450, 0.0, 0.0], 5e-9)  # the larger of both means
    close(variance, [0.42930844, 0.60429743, 0.54604786], 5e-9)


def test_the_target_and_its_variance_are_maxima_of_their_own() -> None:
    """README claim 3; each critic's two passes have the known mean and the known variance."""
    b, k = th.arange(2.0)[:, None], th.arange(10.0)
    means = th.stack([3 * th.sin(0.4 + 1.1 * b + 0.8 * k), 3 * th.cos(0.9 + 0.5 * b + 0.6 * k)])
    stds = th.stack([0.3 + 0.2 * th.sin(b + k), 0.3 + 0.2 * th.cos(0.7 * b + 1.3 * k)])
    passes = th.stack([means - stds / math.sqrt(2), means + stds / math.sqrt(2)], 1)  # (2, 2, B, n)
    model = make_uwac(gamma=0.99)
    target, variance = model.uncertain_target(rewards_and_masks([0.5, -0.25], [1.0, 0.0]), passes)
    close((0.75 * means.amin(0) + 0.25 * means.amax(0)).amax(1), [2.92771324, 2.99142573], 6e-9)
    close(target, [3.39843611, -0.25], 5e-9)
    close(variance, [0.34426154, 0.42447986], 5e-9)
    close(model.weights(variance), [0.84186908, 0.80877063], 5e-9)
    close(stds.square().sum(0)[[0, 1], [9, 8]], [0.33073469, 0.24919081], 5e-9)  # at the best actions


def test_the_discrepancy_is_a_known_number_and_that_of_equal_sets_is_not_zero() -> None:
    """README claim 5."""
    b, n, d = th.arange(2.0)[:, None, None], th.arange(4.0)[:, None], th.arange(3.0)
    x, y = th.sin(0.5 + b + 0.7 * n + 0.3 * d), th.cos(0.2 + 0.6 * b + 1.1 * n + 0.5 * d)
    close(mmd(x, y, "gaussian", 20.0), [0.34047780, 0.20793531], 5e-9)
    close(mmd(x, y, "gaussian", 1.0), [0.79716420, 0.48478558], 5e-9)
    close(mmd(x, y, "laplacian", 20.0), [0.26456434, 0.16374966], 5e-9)
    close(mmd(x, y, "laplacian", 1.0), [0.72735138, 0.49787686], 5e-9)
    close(mmd(x, x, "gaussian", 20.0), [0.001, 0.001], 1e-9)


def test_the_vaes_loss_is_a_known_number() -> None:
    """README claim 6."""
    b, z, a = th.arange(2.0)[:, None], th.arange(4.0), th.arange(2.0)
    mean, std = th.sin(1 + b + z), (0.3 * th.cos(b + 2 * z)).exp()
    decoded, actions = th.sin(0.2 + b + a).tanh(), th.cos(0.3 + 1.5 * b + a)
    close((decoded - actions).square().mean(), 1.07655988, 5e-9)
    close(0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean(), 0.33300022, 5e-9)
    vae = make_uwac().vae
    vae.encode = lambda states, actions: (mean, std)
    vae.decode = lambda states, latents: decoded.unsqueeze(1)
    close(vae.loss(th.zeros(2, 3), actions, th.zeros(2, 1, 4)), 1.24305999, 5e-9)


@pytest.mark.parametrize(("divergence", "moved"), [(0.08, 1e-3), (0.06, -1e-3)])
def test_the_multipliers_first_step_has_the_sign_of_the_excess(divergence: float, moved: float) -> None:
    """README claim 5."""
    model = make_uwac()
    model.move_multiplier(th.full((4,), divergence))
    close(model.log_alpha, moved, 1e-8)


# ---------------------------------------------------------------------- one update


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weighting": "inverse", "weight_power": 1, "uncertainty_beta": 0.01},
        {"weight_actor": False, "q_penalty": 0.3},
        {"warmup_steps": 1},
    ],
    ids=["plain", "paper", "penalty", "warm-up"],
)
def test_one_update_is_the_losses_in_order(settings: dict[str, Any]) -> None:
    """README claims 3 to 5 and 7: what each step reads, with the passes that the same generator gives."""
    model, batch = make_uwac(**settings), make_batch()
    noise, drawn = model.draw_noise(B), th.Generator()
    drawn.set_state(noise.dropout.get_state())
    start = copy.deepcopy(model.policy)
    info = model.step(batch, noise)
    states, following = (start.normalize_observations(x) for x in (batch.observations, batch.next_observations))

    start.critic_target.advance_norms()
    with th.no_grad():
        passes = start.critic_target.passes(following, start.actor.sample(following, noise.target)[0], 4, drawn)
    means, variance = passes.mean(1), passes.var(1).sum(0).amax(1)
    target = batch.rewards + 0.97 * batch.masks * (0.75 * means.amin(0) + 0.25 * means.amax(0)).amax(1)
    beta = settings.get("uncertainty_beta", 0.5)

    def weight(of: Tensor) -> Tensor:
        return (beta / of).clamp(0, 1) if "weighting" in settings else (-beta * of).exp()

    w = weight(variance)
    assert (w < 0.999).any()
    start.critic.advance_norms()
    q, loss = start.critic(states, batch.actions, drawn), th.zeros(())
    for h in range(2):
        errors = (q[h] - target).square() * w if "weight_power" in settings else ((q[h] - target) * w).square()
        loss = loss + errors.mean() + settings.get("q_penalty", 0.0) * (q[h].relu() * variance).mean()
    close([info["critic_loss"], info["uncertainty"], info["weight_mean"]], [loss.detach(), variance.mean(), w.mean()], 1e-12)
    for parameter, gradient in zip(
        model.critic.parameters(), th.autograd.grad(loss, list(start.critic.parameters())), strict=True
    ):
        close(parameter.grad, gradient, 1e-12)

    behaviour = model.vae.decode_raw(states, noise.latents.clamp(-0.5, 0.5)).detach()  # the VAE has moved
    samples = start.actor.raw_sample(states, noise.actor)
    divergence = mmd(behaviour, samples, "gaussian", 20.0)
    actor_loss = (divergence - 0.07).mean()
    if "warmup_steps" not in settings:
        with th.no_grad():
            for ours, moved in zip(start.critic.parameters(), model.critic.parameters(), strict=True):
                ours.copy_(moved)  # the critics have moved
        start.critic.advance_norms()
        passes = start.critic.passes(states, samples[:, :1].tanh(), 4, drawn)[..., 0]
        actor_weight = weight(passes.var(1).sum(0)).detach() if settings.get("weight_actor", True) else 1.0
        actor_loss = actor_loss - (actor_weight * passes.mean(1).amin(0)).mean()
    close(info["actor_loss"], actor_loss, 1e-12)
    for parameter, gradient in zip(
        model.actor.parameters(), th.autograd.grad(actor_loss, list(start.actor.parameters())), strict=True
    ):
        close(parameter.grad, gradient, 1e-12)
    close(info["mmd"], divergence.mean(), 1e-12)
    close(model.log_alpha, 1e-3, 1e-8)  # too far apart


def test_without_weights_dropout_and_norms_it_is_bear() -> None:
    """README claim 8."""
    networks = NETWORKS | {"critic_dropout": 0.0, "spectral_norm": False}
    model = make_uwac(uncertainty_beta=0.0, n_passes=2, policy_kwargs=networks)
    bear: Any = make_agent(BEAR, kernel="gaussian", mmd_threshold=0.07, warmup_steps=0, policy_kwargs=NETWORKS)
    for _ in range(3):
        noise = model.draw_noise(B)
        found, expected = model.step(make_batch(), noise), bear.step(make_batch(), BEARNoise(*noise[:4]))
        for key, value in expected.items():
            close(found[key], value, 1e-12)
    for ours, theirs in zip(model.policy.parameters(), bear.policy.parameters(), strict=True):
        close(ours, theirs, 1e-10)


# ---------------------------------------------------------------------- traps


def test_the_warm_up_counts_updates_and_leaves_the_critic_alone_out() -> None:
    """README claim 7."""
    for updates, depends in ((39_999, False), (40_000, True)):
        actors = []
        for shifted in (False, True):
            model = make_uwac(warmup_steps=40_000)
            model._n_updates = updates
            if shifted:
                for parameter in model.critic.parameters():
                    parameter.data.neg_()
            model.step(make_batch(), model.draw_noise(B))
            actors.append(flat(model.actor))
            assert model.log_alpha != 0
        assert th.equal(*actors) != depends


def test_acting_takes_the_mean_of_many_passes_of_the_first_critic_from_the_acting_generator() -> None:
    """README claim 9."""
    model, observations = make_uwac(n_action_samples=6, n_passes=5), make_batch().observations
    training = model.generator.get_state()
    model.set_acting_seed(3)
    actions, _ = model.predict(observations.numpy(), deterministic=True)
    states, generator = model.policy.normalize_observations(observations), th.Generator().manual_seed(3)
    candidates = model.actor.sample(states, th.randn(B, 6, 2, generator=generator))[0]
    values = model.critic.passes(states, candidates, 5, generator, slice(1))[0].mean(0)
    close(actions, candidates[th.arange(B), values.argmax(1)].detach(), 1e-12)
    assert th.equal(training, model.generator.get_state())
    model.n_passes = 7
    assert model.policy.n_passes == 7


def rows_of(reward: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(40, 3)),
        "actions": rng.uniform(-1, 1, (40, 2)),
        "rewards": reward * rng.normal(size=40),
        "next_observations": rng.normal(size=(40, 3)),
        "terminals": np.arange(40) % 4 == 3,
    }


def test_weights_that_the_rewards_scale_makes_vanish_are_warned_of_once() -> None:
    """README claim 10."""
    networks = NETWORKS | {"spectral_norm": False, "critic_dropout": 0.5}
    model = make_uwac(critic_learning_rate=0.5, tau=1.0, policy_kwargs=networks)
    with pytest.warns(UserWarning, match=r"rows had a weight below 0\.01.*squared rewards.*reward_transform") as caught:
        model.learn_offline(rows_of(1000.0), 60, log_interval=20)
    assert len([one for one in caught if "had a weight below" in str(one.message)]) == 1


@pytest.mark.filterwarnings("error:Up to update")
def test_weights_that_do_not_vanish_are_not_warned_of() -> None:
    """README claim 10."""
    make_uwac().learn_offline(rows_of(0.1), 6, log_interval=3)
    make_uwac().watch({"unlearned_share": 0.19, "uncertainty": 1.0, "vae_kl": 1.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_passes": 1}, "n_passes=1"),
        ({"weighting": "log"}, "weighting='log' is not known"),
        ({"weight_power": 3}, "weight_power=3 is not known"),
        ({"uncertainty_beta": -1.0}, r"uncertainty_beta=-1\.0"),
        ({"policy_kwargs": {"critic_dropout": 1.0}}, r"critic_dropout=1\.0"),
        ({"policy_kwargs": {"critic_init": 0.1}}, r"critic_init=0\.1 has no effect with spectral_norm"),
    ],
)
def test_values_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_uwac(**settings)


def test_all_random_numbers_are_those_that_are_given() -> None:
    found = []
    for seed in (1, 2):
        th.manual_seed(seed)
        model = make_uwac()
        noise = make_uwac().draw_noise(B)
        model.step(make_batch(), UWACNoise(*noise[:4], th.Generator().manual_seed(7)))
        found.append(flat(model.policy))
    assert th.equal(*found)
