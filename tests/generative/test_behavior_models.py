"""The interface that all models of behaviour share: fit by ``loss``, draw by ``sample``, evaluate by ``log_prob``."""

import json
from collections.abc import Callable

import pytest
import torch as th

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.behavior import BehaviourModel, Density
from sb3_genoffline.generative.flow import make_density
from sb3_genoffline.generative.vae import ConditionalVAE

B, S, A = 6, 3, 2
MODELS: dict[str, Callable[[], BehaviourModel]] = {
    "vae": lambda: ConditionalVAE(S, A, net_arch=[8]),
    "spline": lambda: make_density("spline", S, A, [8], n_transforms=1),
    "affine": lambda: make_density("affine", S, A, [8], squash="normal"),
    "nice": lambda: make_density("nice", S, A, [8]),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> BehaviourModel:
    th.manual_seed(0)
    return MODELS[request.param]()


def data() -> tuple[th.Tensor, th.Tensor]:
    generator = th.Generator().manual_seed(1)
    return th.randn(B, S, generator=generator), th.rand(B, A, generator=generator) * 1.8 - 0.9


def test_a_model_is_fitted_by_its_loss_and_no_random_numbers_but_the_generators(model: BehaviourModel) -> None:
    states, actions = data()
    model.set_state_statistics(states.mean(0), states.std(0))
    before, generator = th.get_rng_state(), th.Generator().manual_seed(2)
    noise = model.draw_noise(B, generator)
    first = model.loss(states, actions, noise)
    assert first.shape == ()
    optimizer = th.optim.Adam(model.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        model.loss(states, actions, noise).backward()
        optimizer.step()
    assert model.loss(states, actions, noise) < first
    likelihood = model.log_prob(states, actions, noise)
    assert likelihood.shape == (B,) and bool(likelihood.isfinite().all())
    assert th.equal(th.get_rng_state(), before)


def test_samples_are_actions_of_the_given_states_by_the_generators_latents(model: BehaviourModel) -> None:
    states, _ = data()
    latents = model.draw_latents(B, th.Generator().manual_seed(3))
    if isinstance(model, Density) and model.joint:
        with pytest.raises(UserError, match="JointNICE models states and actions together"):
            model.sample(states, latents)
        return
    actions = model.sample(states, latents)
    assert actions.shape == (B, A)
    assert th.equal(model.draw_latents(B, th.Generator().manual_seed(3)), latents)
    assert not th.equal(model.sample(states.roll(1, 0), latents), actions)
    assert not th.equal(model.sample(states, latents.roll(1, 0)), actions)
    decoded = model.decode(states, latents)
    assert th.equal(decoded if isinstance(decoded, th.Tensor) else decoded[1], actions)


def test_losses_are_what_each_papers_fit_descends(model: BehaviourModel) -> None:
    states, actions = data()
    noise = model.draw_noise(B, th.Generator().manual_seed(4))
    loss = model.loss(states, actions, noise)
    if isinstance(model, ConditionalVAE):
        assert noise is not None and noise.shape == (B, 1, model.latent_dim)
        assert th.equal(loss, model.released_loss(model.elbo(states, actions, noise).mean()))
        with pytest.raises(ValueError, match="they need noise"):
            model.loss(states, actions)
    else:
        assert noise is None and th.equal(loss, -model.log_prob(states, actions).mean())


def test_settings_are_plain_data(model: BehaviourModel) -> None:
    assert json.loads(json.dumps(model.settings)) == model.settings
