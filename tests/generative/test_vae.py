"""The conditional VAE: what its two estimates of log p(a | s) are, and that it learns a density with two modes."""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import close
from golden import counted, fill, golden_batch, normal
from torch import Tensor

from sb3_genoffline.generative.vae import ConditionalVAE

sys.path.append(str(Path(__file__).parents[1] / "cped"))
from toy_world import draw_behaviour, draw_unsupported

from sb3_genoffline.errors import UserError

SHAPES: list[dict[str, Any]] = [
    {"state_dim": 3, "action_dim": 2},
    {"state_dim": 2, "action_dim": 3, "latent_dim": 1, "beta": 1.3},
    {"state_dim": 1, "action_dim": 1, "latent_dim": 5, "net_arch": (6,)},
]


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    th.set_default_dtype(th.float64)
    yield
    th.set_default_dtype(th.float32)


def make(**changes: Any) -> ConditionalVAE:
    """With parameters and state statistics far from their first values."""
    th.manual_seed(0)
    vae = ConditionalVAE(**({"net_arch": (8, 8)} | changes))
    with th.no_grad():
        for parameter in vae.parameters():
            parameter.normal_(std=0.5)
    vae.set_state_statistics(th.linspace(-1, 2, vae.state_dim), th.linspace(0.5, 2, vae.state_dim))
    return vae


def draw(vae: ConditionalVAE, n_rows: int = 16, n_draws: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """States, actions and the latents' noise."""
    generator = th.Generator().manual_seed(1)
    states = th.randn(n_rows, vae.state_dim, generator=generator)
    actions = 1.8 * th.rand(n_rows, vae.action_dim, generator=generator) - 0.9
    return states, actions, th.randn(n_rows, n_draws, vae.latent_dim, generator=generator)


# ---------------------------------------------------------------------- the estimates


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@th.no_grad()
def test_the_elbo_is_the_released_loss_in_nats(shape: dict[str, Any]) -> None:
    vae = make(**shape)
    states, actions, noise = draw(vae)
    mean, std = vae.encode(states, actions)
    released = []
    for draw_index in range(4):
        decoded = vae.decode(states, mean + std * noise[:, draw_index])
        divergence = -0.5 * (1 + (std**2).log() - mean**2 - std**2).mean(1)
        released.append(((decoded - actions) ** 2).mean(1) + vae.beta * divergence)
    in_nats = -vae.unit * vae.elbo(states, actions, noise)
    constant = vae.unit * 0.5 * vae.action_dim * math.log(2 * math.pi * vae.action_variance)
    np.testing.assert_allclose(in_nats - constant, th.stack(released).mean(0), atol=1e-12)
    np.testing.assert_allclose(vae.loss(states, actions, noise), th.stack(released).mean(), atol=1e-12)


@th.no_grad()
def test_the_loss_is_the_known_one_of_bcqs_code() -> None:
    vae, batch = ConditionalVAE(3, 2), golden_batch()
    fill(vae.encoder, 0.4, heads=2)
    fill(vae.decoder, 0.5)
    noise = normal((4, 1, 4), 3)
    close(vae.loss(batch.observations, batch.actions, noise), 0.39701736, 5e-9)
    reconstruction, divergence = (term.mean() for term in vae.elbo_terms(batch.observations, batch.actions, noise))
    close(divergence / vae.latent_dim, 0.01034162, 5e-9)
    close(vae.released_loss(reconstruction), 0.39184655, 5e-9)


@th.no_grad()
def test_error_and_divergence_are_means_over_actions_and_latents() -> None:
    vae, batch, k = ConditionalVAE(3, 2), golden_batch(), counted(4, 4)
    vae.encode = lambda *_: (th.sin(k), th.exp(0.5 * th.cos(k)))  # type: ignore[method-assign]
    vae.decode = lambda *_: (0.8 * th.sin(0.3 + counted(4, 2))).unsqueeze(1)  # type: ignore[method-assign]
    noise = normal((4, 1, 4), 3)
    close(vae.loss(batch.observations, batch.actions, noise), 1.60688648, 5e-9)  # summed over latents: 2.18, actions: 3.02
    reconstruction, divergence = (term.mean() for term in vae.elbo_terms(batch.observations, batch.actions, noise))
    close([vae.released_loss(reconstruction), divergence / 4], [1.41427592, 0.38522112], 5e-9)
    vae.encode = lambda *_: (th.full((4, 4), 0.5), th.full((4, 4), math.exp(-1)))  # type: ignore[method-assign]
    close(vae.elbo_terms(batch.observations, batch.actions, noise)[1] / 4, np.full(4, 0.69266764), 5e-9)


@th.no_grad()
def test_many_latents_of_a_state_are_decoded_beside_each_other_and_raw_values_become_actions_by_a_tanh() -> None:
    vae = make(**SHAPES[0])
    states, _, latents = draw(vae, n_rows=3)
    many = vae.decode(states, latents)
    assert many.shape == (3, 4, 2)
    for row in range(3):
        for sample in range(4):
            close(many[row, sample], vae.decode(states[row], latents[row, sample]), 1e-12)
    close(many, vae.decode_raw(states, latents).tanh(), 1e-15)
    assert vae.decode_raw(states, 10 * latents).abs().max() > 1


def test_with_twice_as_many_latents_as_actions_the_decoders_variance_is_a_quarter_of_beta() -> None:
    vae = ConditionalVAE(3, 4, beta=0.6)
    assert vae.latent_dim == 8 and vae.action_variance == pytest.approx(0.15) and vae.unit == pytest.approx(0.6 / 8)


@th.no_grad()
def test_the_elbo_bounds_the_true_log_density_and_importance_sampling_reaches_it() -> None:
    vae = make(state_dim=2, action_dim=2, latent_dim=1)
    for parameter in vae.parameters():
        parameter.mul_(0.4)  # or the encoder is too narrow a proposal for so few draws
    states, actions, noise = draw(vae, 4, 4000)
    z = th.linspace(-9, 9, 1001)
    decoded = vae.decode(states.unsqueeze(1).expand(-1, 1001, -1), z.expand(4, -1).unsqueeze(-1))
    decoder = th.distributions.Normal(decoded, math.sqrt(vae.action_variance))
    joint = decoder.log_prob(actions.unsqueeze(1)).sum(-1) + th.distributions.Normal(0.0, 1.0).log_prob(z)
    truth = joint.logsumexp(1) + math.log(18 / 1000)  # by quadrature
    np.testing.assert_allclose(vae.log_prob(states, actions, noise), truth, atol=0.02)
    elbo = vae.elbo(states, actions, noise)
    assert (elbo < truth - 0.01).all()
    rows = (x.repeat_interleave(4000, 0) for x in (states, actions))
    one_draw = vae.log_prob(*rows, noise.reshape(-1, 1, 1)).view(4, 4000)
    np.testing.assert_allclose(one_draw.mean(1), elbo, atol=5 * float(one_draw.std(1).max()) / math.sqrt(4000))


# ---------------------------------------------------------------------- what every model of behaviour promises


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_estimates_send_gradients_to_all_parameters_and_to_the_action_of_a_frozen_vae(shape: dict[str, Any]) -> None:
    vae = make(**shape)
    states, actions, noise = draw(vae, 3)
    for estimate in (vae.elbo, vae.log_prob):
        gradients = th.autograd.grad(estimate(states, actions, noise).sum(), list(vae.parameters()))
        assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in gradients)
    vae.requires_grad_(False)
    actions.requires_grad_(True)
    for estimate in (vae.elbo, vae.log_prob):
        assert th.autograd.gradcheck(lambda a, estimate=estimate: estimate(states, a, noise), actions)


@th.no_grad()
def test_a_vae_comes_back_bit_for_bit_from_its_settings_and_its_state() -> None:
    vae = make(**SHAPES[1])
    other = ConditionalVAE(**json.loads(json.dumps(vae.settings)))
    other.load_state_dict(vae.state_dict())
    assert other.settings == vae.settings and th.equal(other.elbo(*draw(vae)), vae.elbo(*draw(vae)))


@th.no_grad()
def test_state_statistics_of_a_vae_are_the_same_as_standardised_states() -> None:
    vae = make(**SHAPES[0])
    states, actions, noise = draw(vae)
    mean, std = th.tensor([3.0, -20.0, 0.5]), th.tensor([0.01, 100.0, 1.0])
    vae.set_state_statistics(th.zeros(3), th.ones(3))
    expected = vae.elbo(states, actions, noise), vae.decode(states, noise[:, 0])
    vae.set_state_statistics(mean, th.tensor([0.01, 100.0, 0.0]))  # a constant column keeps std 1
    raw = states * std + mean
    np.testing.assert_allclose(vae.elbo(raw, actions, noise), expected[0], atol=1e-9)
    np.testing.assert_allclose(vae.decode(raw, noise[:, 0]), expected[1], atol=1e-9)


@th.no_grad()
def test_the_noise_that_is_passed_in_is_the_only_randomness() -> None:
    vae = make(**SHAPES[0])
    before = th.get_rng_state()
    assert th.equal(vae.log_prob(*draw(vae)), vae.log_prob(*draw(vae)))
    assert th.equal(vae.elbo(*draw(vae)), vae.elbo(*draw(vae)))
    assert th.equal(th.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "message"), [({"beta": 0.0}, "beta=0.0 must be pos"), ({"latent_dim": 0}, "latent_dim=0")]
)
def test_a_vae_without_variance_or_latents_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ConditionalVAE(3, 2, **changes)


# ---------------------------------------------------------------------- learning


def test_two_modes_are_learned_and_what_lies_between_them_is_less_likely() -> None:
    th.set_default_dtype(th.float32)
    th.manual_seed(0)
    states, actions = draw_behaviour(5000, seed=0)
    vae = ConditionalVAE(1, 2, net_arch=(32, 32), beta=0.02)
    optimizer = th.optim.Adam(vae.parameters(), lr=3e-3, fused=True)
    for _ in range(800):
        rows = th.randint(len(states), (128,))
        loss = vae.loss(states[rows], actions[rows], th.randn(128, 1, 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with th.no_grad():
        elsewhere = draw_unsupported(2000, seed=1)
        inside = vae.elbo(states[:2000], actions[:2000], th.randn(2000, 8, 4))
        outside = vae.elbo(*elsewhere, th.randn(len(elsewhere[0]), 8, 4))
        between = vae.elbo(states[:2000], th.zeros(2000, 2), th.randn(2000, 8, 4))
        decoded = vae.decode(states[:2000], th.randn(2000, 4))
    assert inside.quantile(0.1) > max(outside.quantile(0.95), between.quantile(0.95))
    assert (decoded.norm(dim=-1) > 0.3).float().mean() > 0.75  # few samples between the modes
