"""One update of SPOT against the paper's formulas, written out in numpy; who moves when; dropout; how last layers start."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import EnsembleLinear
from sb3_genoffline.spot import SPOT, SPOTNoise

S, A, Z, B = 3, 2, 4, 7
BETA, GAMMA, LAM = 0.7, 0.9, 0.6
BOX = (spaces.Box(-np.inf, np.inf, (S,)), spaces.Box(-1, 1, (A,)))
OBS_MEAN, OBS_STD = np.array([0.5, -1.0, 2.0]), np.array([1.5, 0.7, 2.0])
VAE_MEAN, VAE_STD = np.array([-0.5, 0.2, 1.0]), np.array([0.9, 2.0, 1.2])
Layers = list[tuple[np.ndarray, np.ndarray]]
pytestmark = pytest.mark.usefixtures("float64")


def make(**changes: Any) -> SPOT:
    """A tiny agent with large random weights and a VAE that counts as fitted, on states standardised in a way of its own."""
    small = {"net_arch": [5, 4], "vae_net_arch": [6], "actor_dropout": 0.0} | changes.pop("policy_kwargs", {})
    settings = {"lam": LAM, "beta": BETA, "gamma": GAMMA, "seed": 0, "device": "cpu"} | changes
    model = SPOT("VAEDensityPolicy", BOX, policy_kwargs=small, **settings)
    generator = th.Generator().manual_seed(5)
    for parameter in model.policy.parameters():
        parameter.data.normal_(std=0.6, generator=generator)
    model.policy.set_observation_statistics(th.tensor(OBS_MEAN), th.tensor(OBS_STD))
    model.policy.density.set_state_statistics(th.tensor(VAE_MEAN), th.tensor(VAE_STD))
    model.policy.fitted.fill_(True)
    return model


def make_batch(seed: int = 0) -> TransitionBatch:
    rng = np.random.default_rng(seed)
    arrays = rng.normal(size=(B, S)), rng.uniform(-1, 1, (B, A)), rng.normal(size=B), rng.normal(size=(B, S))
    masks = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    return TransitionBatch(*map(th.tensor, (*arrays, masks)))


# ---------------------------------------------------------------------- the formulas


def linear_layers(net: Any, member: int | None = None) -> Layers:
    """Weights (in, out) and biases of an MLP, or of one critic."""
    if member is None:
        found = [(layer.weight.T, layer.bias) for layer in net.modules() if isinstance(layer, th.nn.Linear)]
    else:
        found = [(part.weight[member], part.bias[member, 0]) for part in net.modules() if isinstance(part, EnsembleLinear)]
    return [(weight.detach().numpy().copy(), bias.detach().numpy().copy()) for weight, bias in found]


def mlp(layers: Layers, x: np.ndarray) -> np.ndarray:
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight + bias, 0.0)
    return x @ layers[-1][0] + layers[-1][1]


def standardised(observations: th.Tensor) -> np.ndarray:
    return (observations.numpy() - OBS_MEAN) / OBS_STD


def q_values(critics: list[Layers], states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    return np.stack([mlp(critic, np.concatenate([states, actions], 1))[:, 0] for critic in critics])


def expected_target(model: SPOT, batch: TransitionBatch, noise: SPOTNoise) -> np.ndarray:
    next_states = standardised(batch.next_observations)
    smoothing = np.clip(0.2 * noise.smoothing.numpy(), -0.5, 0.5)
    actions = np.clip(np.tanh(mlp(linear_layers(model.actor_target), next_states)) + smoothing, -1, 1)
    q = q_values([linear_layers(model.critic_target, i) for i in range(2)], next_states, actions)
    return batch.rewards.numpy() + GAMMA * batch.masks.numpy() * q.min(0)


def expected_density_loss(model: SPOT, estimator: str, raw: np.ndarray, actions: np.ndarray, noise: np.ndarray) -> float:
    """The ELBO's is the released loss; importance sampling's is −β/Z·log p̂ without the decoder's constant."""
    encoder, decoder = linear_layers(model.policy.density.encoder), linear_layers(model.policy.density.decoder)
    states = (raw - VAE_MEAN) / VAE_STD
    code = mlp(encoder, np.concatenate([states, actions], 1))
    mean, std = code[:, :Z], np.exp(np.clip(code[:, Z:], -4, 15))
    squared, log_ratio = [], []
    for draw in range(noise.shape[1]):
        z = mean + std * noise[:, draw]
        decoded = np.tanh(mlp(decoder, np.concatenate([states, z], 1)))
        squared.append(((decoded - actions) ** 2).sum(1))
        log_ratio.append((-0.5 * z**2 + 0.5 * ((z - mean) / std) ** 2 + np.log(std)).sum(1))
    if estimator == "elbo":
        divergence = 0.5 * (mean**2 + std**2 - 1 - np.log(std**2))
        return float((np.mean(squared, 0) / A + BETA * divergence.mean(1)).mean())
    log_weights = -np.array(squared) / (2 * BETA / 4) + np.array(log_ratio)
    return float(-BETA / Z * (np.logaddexp.reduce(log_weights, 0) - np.log(len(log_weights))).mean())


def finite_differences(layers: Layers, loss: Callable[[Layers], float]) -> np.ndarray:
    """Of a loss with respect to every weight and bias, in PyTorch's order and layout."""
    gradient = []
    for weight, bias in layers:
        for array in (weight.T, bias):
            for index in np.ndindex(array.shape):
                old = array[index]
                values = []
                for step in (1e-6, -1e-6):
                    array[index] = old + step
                    values.append(loss(layers))
                array[index] = old
                gradient.append((values[0] - values[1]) / 2e-6)
    return np.array(gradient)


def gradient_of(module: th.nn.Module) -> np.ndarray:
    return np.concatenate([parameter.grad.numpy().ravel() for parameter in module.parameters()])  # type: ignore[union-attr]


@pytest.mark.parametrize("estimator", ["elbo", "importance"])
@pytest.mark.parametrize("q_normalize", [True, False])
@pytest.mark.parametrize("lam", [LAM, 0.0])
def test_one_update_is_the_papers_formulas(estimator: Any, q_normalize: bool, lam: float) -> None:
    model = make(density_estimator=estimator, q_normalize=q_normalize, lam=lam, n_latents=3, critic_learning_rate=0.0)
    batch, noise = make_batch(), model.draw_noise(B)
    noise = noise._replace(smoothing=4 * noise.smoothing)
    states, raw = standardised(batch.observations), batch.observations.numpy()
    target = expected_target(model, batch, noise)
    critics = [linear_layers(model.critic, i) for i in range(2)]
    actor = linear_layers(model.actor)

    def actor_loss(layers: Layers) -> float:
        actions = np.tanh(mlp(layers, states))
        q = mlp(critics[0], np.concatenate([states, actions], 1))[:, 0]
        return float(-q.mean() / scale + lam * expected_density_loss(model, estimator, raw, actions, noise.latents.numpy()))

    first = mlp(critics[0], np.concatenate([states, np.tanh(mlp(actor, states))], 1))[:, 0]
    scale = np.abs(first).mean() if q_normalize else 1.0
    expected_gradient = finite_differences(actor, actor_loss)
    info = model.step(batch, noise)
    q = q_values(critics, states, batch.actions.numpy())
    assert info["critic_loss"].item() == pytest.approx(((q - target) ** 2).mean(1).sum(), rel=1e-12)
    assert info["q_mean"].item() == pytest.approx(q.mean(), rel=1e-12)
    constant = lam * BETA / Z * 0.5 * A * math.log(2 * math.pi * BETA / 4)
    assert info["actor_loss"].item() == pytest.approx(actor_loss(actor) + constant, rel=1e-12)
    np.testing.assert_allclose(gradient_of(model.actor), expected_gradient, rtol=1e-5, atol=1e-7)
    assert ("log_prob" in info) == (lam > 0)


def test_the_critics_descend_the_squared_error_of_both_and_the_target_is_a_constant() -> None:
    model, batch = make(), make_batch()
    noise = model.draw_noise(B)
    states, target = standardised(batch.observations), expected_target(model, batch, noise)
    pairs = np.concatenate([states, batch.actions.numpy()], 1)
    expected = [
        finite_differences(linear_layers(model.critic, i), lambda c: float(((mlp(c, pairs)[:, 0] - target) ** 2).mean()))
        for i in range(2)
    ]
    model.step(batch, noise)
    for i in range(2):
        found = []
        for layer in model.critic.modules():
            if isinstance(layer, EnsembleLinear):
                assert layer.weight.grad is not None and layer.bias.grad is not None
                found += [layer.weight.grad[i].T.numpy().ravel(), layer.bias.grad[i].numpy().ravel()]
        np.testing.assert_allclose(np.concatenate(found), expected[i], rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------------- who moves when


def test_the_actor_and_the_targets_move_every_second_update_and_the_vae_never() -> None:
    model = make(tau=0.25, learning_rate=1e-2)

    def state() -> dict[str, th.Tensor]:
        modules = {name: getattr(model, name) for name in ("actor", "actor_target", "critic", "critic_target")}
        modules["density"] = model.policy.density
        return {name: th.cat([p.detach().flatten() for p in module.parameters()]) for name, module in modules.items()}

    now = state()
    for step in range(4):
        model.step(make_batch(step), model.draw_noise(B))
        before, now = now, state()
        moved = {name for name in now if not th.equal(before[name], now[name])}
        assert moved == ({"critic", "actor", "actor_target", "critic_target"} if step % 2 == 0 else {"critic"})
        if step % 2 == 0:
            for name in ("actor", "critic"):
                th.testing.assert_close(now[f"{name}_target"], 0.75 * before[f"{name}_target"] + 0.25 * now[name])
    assert all(parameter.grad is None for parameter in model.policy.density.parameters())


# ---------------------------------------------------------------------- dropout and the last layers' start


def test_a_unit_is_dropped_where_its_number_is_small_and_the_others_are_raised() -> None:
    model = make(policy_kwargs={"actor_dropout": 0.25})
    states = np.random.default_rng(0).normal(size=(B, S))
    uniform = np.random.default_rng(1).random((B, 9))
    kept = (uniform >= 0.25) / 0.75
    (w1, b1), (w2, b2), (w3, b3) = linear_layers(model.actor)
    hidden = np.maximum(states @ w1 + b1, 0) * kept[:, :5]
    expected = np.tanh((np.maximum(hidden @ w2 + b2, 0) * kept[:, 5:]) @ w3 + b3)
    np.testing.assert_allclose(model.actor(th.tensor(states), th.tensor(uniform)).detach(), expected, atol=1e-12)
    assert 0 < (kept == 0).mean() < 1


def test_target_and_actor_drop_units_of_their_own_and_acting_drops_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(policy_kwargs={"actor_dropout": 0.5}), make_batch()
    noise = model.draw_noise(B)
    assert noise.dropout is not None and noise.dropout.shape == (2, B, 9) and not th.equal(*noise.dropout)
    seen: list[tuple[str, Any]] = []
    for name in ("actor", "actor_target"):
        getattr(model, name).register_forward_hook(lambda _, inputs, output, name=name: seen.append((name, inputs[1])))
    model.step(batch, noise)
    assert [name for name, _ in seen] == ["actor_target", "actor"]
    assert th.equal(seen[0][1], noise.dropout[0]) and th.equal(seen[1][1], noise.dropout[1])
    fresh = make(policy_kwargs={"actor_dropout": 0.5})
    actions, _ = fresh.predict(batch.observations.numpy(), deterministic=True)
    np.testing.assert_allclose(actions, np.tanh(mlp(linear_layers(fresh.actor), standardised(batch.observations))), atol=1e-6)
    assert make().draw_noise(B).dropout is None


def test_the_last_layers_start_as_small_as_asked_and_the_targets_are_copies() -> None:
    arguments = {"actor_init": 1e-3, "critic_init": 3e-3, "net_arch": [64, 64]}
    policy = SPOT("MlpPolicy", BOX, seed=0, device="cpu", policy_kwargs=arguments).policy
    for last, width in ((policy.actor.net[-2], 1e-3), (policy.critic.trunk[-1], 3e-3)):
        assert isinstance(last, th.nn.Linear | EnsembleLinear)
        values = th.cat([last.weight.flatten(), last.bias.flatten()]).detach().abs()
        assert 0.9 * width < values.max() <= width and values.mean() == pytest.approx(width / 2, rel=0.2)
    for online, target in ((policy.actor, policy.actor_target), (policy.critic, policy.critic_target)):
        assert all(th.equal(a, b) for a, b in zip(online.parameters(), target.parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lam": -0.1}, r"lam=-0\.1 must not be negative"),
        ({"density_estimator": "iwae"}, "density_estimator='iwae' is not known; use one of 'elbo', 'importance'"),
        ({"n_latents": 0}, r"n_latents=0 must lie in \[1"),
        ({"beta": 0.0}, r"beta=0\.0 must be positive"),
        ({"policy_kwargs": {"actor_dropout": 1.0}}, r"actor_dropout=1\.0 must lie in \[0, 1\)"),
        ({"policy_kwargs": {"beta": 0.3}}, "policy_kwargs has 'beta', which is an argument of SPOT"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPOT("MlpPolicy", BOX, device="cpu", **arguments)
