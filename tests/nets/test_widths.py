"""Every network takes hidden widths that are positive whole numbers, none at all, or says why not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from torch import Tensor, nn

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.consistency import NoisyScalarNetwork
from sb3_genoffline.generative.diffusion import ConditionalDiffusion, NoiseNetwork
from sb3_genoffline.generative.flow import make_density
from sb3_genoffline.generative.flow_gan import Discriminator
from sb3_genoffline.generative.vae import ConditionalVAE
from sb3_genoffline.nets.actors import DeterministicActor, DropoutActor, GaussianActor, SquashedGaussianActor
from sb3_genoffline.nets.ensembles import EnsembleQ
from sb3_genoffline.nets.values import StateValue
from sb3_genoffline.nets.widths import checked_widths

B, S, A = 5, 3, 2
MAKERS: dict[str, Callable[[Any], nn.Module]] = {
    "deterministic": lambda widths: DeterministicActor(S, A, widths),
    "dropout": lambda widths: DropoutActor(0.5, S, A, widths),
    "gaussian": lambda widths: GaussianActor(S, A, widths),
    "squashed": lambda widths: SquashedGaussianActor(S, A, widths),
    "value": lambda widths: StateValue(S, widths),
    "critics": lambda widths: EnsembleQ(2, S, A, widths, layer_norm=True),
    "vae": lambda widths: ConditionalVAE(S, A, net_arch=widths),
    "spline": lambda widths: make_density("spline", S, A, widths),
    "affine": lambda widths: make_density("affine", S, A, widths),
    "nice": lambda widths: make_density("nice", S, A, widths),
    "discriminator": lambda widths: Discriminator(S + A, widths),
    "noise network": lambda widths: NoiseNetwork(S, A, 4, widths),
}
NEVER_LINEAR: dict[str, Callable[[Any], nn.Module]] = {
    "scalar": lambda widths: NoisyScalarNetwork(S, widths),
    "residual": lambda widths: NoiseNetwork(S, A, 4, widths, residual=True),
}


def forward(model: nn.Module) -> Tensor:
    """What the network makes of B states, actions and whatever else it reads."""
    states, actions = th.randn(B, S), 0.5 * th.randn(B, A).tanh()
    if isinstance(model, DropoutActor):
        return model(states, th.rand(B, sum(model.hidden_widths)))
    if isinstance(model, GaussianActor | SquashedGaussianActor):
        return model.log_prob(states, actions)
    if isinstance(model, DeterministicActor | StateValue):
        return model(states)
    if isinstance(model, EnsembleQ):
        assert model.output_layer.weight.shape[2] == 1
        assert th.allclose(model.of_samples(states, actions.unsqueeze(1)).squeeze(2), model(states, actions), atol=1e-6)
        return model(states, actions).T
    if isinstance(model, ConditionalVAE):
        return model.elbo(states, actions, th.randn(B, 1, model.latent_dim))
    if isinstance(model, NoiseNetwork):
        return model(states, actions, th.arange(B) % 4 + 1)
    return model(th.cat([states, actions], -1)) if isinstance(model, Discriminator) else model.log_prob(states, actions)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("widths", [[], (np.int64(4), 6)], ids=["linear", "hidden layers"])
def test_networks_of_any_depth_work(name: str, widths: Any) -> None:
    model = MAKERS[name](widths)
    out = forward(model)
    assert len(out) == B and bool(out.isfinite().all())
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", [*MAKERS, *NEVER_LINEAR])
def test_every_maker_checks_its_widths(name: str) -> None:
    with pytest.raises(UserError, match=r"net_arch=.* and 0 is not one"):
        (MAKERS | NEVER_LINEAR)[name]([8, 0])


@pytest.mark.parametrize("widths", [[-8], [8.0], [True], ["8"], 8, "8", {8: 8}], ids=str)
def test_widths_that_are_no_positive_whole_numbers_are_refused(widths: Any) -> None:
    with pytest.raises(UserError, match="some_arch="):
        checked_widths(widths, "some_arch")


@pytest.mark.parametrize("name", NEVER_LINEAR)
def test_networks_that_need_a_hidden_layer_say_so(name: str) -> None:
    with pytest.raises(UserError, match=r"net_arch=\[\]"):
        NEVER_LINEAR[name]([])


def test_an_ensemble_of_linear_critics_is_a_linear_function() -> None:
    critic = EnsembleQ(3, S, A, [])
    states, actions = th.randn(B, S), th.randn(B, A)
    layer = critic.output_layer
    expected = th.einsum("bi,hi->hb", th.cat([states, actions], -1), layer.weight[:, :, 0]) + layer.bias[:, :, 0]
    assert th.allclose(critic(states, actions), expected, atol=1e-6)
    assert th.allclose(critic.score_samples(states, actions.unsqueeze(1)).squeeze(2), expected, atol=1e-6)


def test_a_linear_diffusion_model_samples() -> None:
    model = ConditionalDiffusion(S, A, 3, net_arch=[])
    assert model.sample(th.randn(B, S), th.randn(*model.noise_shape(B, 4))).shape == (B, 4, A)


def test_an_actor_drops_a_share_within_the_unit_interval() -> None:
    for dropout in (-0.1, 1.0):
        with pytest.raises(UserError, match=rf"dropout={dropout} must lie in \[0, 1\)"):
            DropoutActor(dropout, S, A, [8])
