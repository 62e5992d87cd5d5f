"""Critics that drop units in every pass, and the spectral norm of each of their matrices."""

import copy
from typing import Any

import pytest
import torch as th
from exact import close

from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.dropout_critics import DropoutQ
from sb3_genoffline.nets.ensembles import EnsembleLinear

pytestmark = pytest.mark.usefixtures("float64")
B, N, S, A = 4, 3, 3, 2


def make_critic(dropout: float = 0.1, spectral_norm: bool = False, widths: Any = (16, 12)) -> Any:
    th.manual_seed(0)
    return DropoutQ(dropout, spectral_norm, 2, S, A, widths, th.nn.ReLU, torch_init=True)


def inputs() -> tuple[th.Tensor, th.Tensor]:
    generator = th.Generator().manual_seed(1)
    return th.randn(B, S, generator=generator), th.rand(B, N, A, generator=generator) * 2 - 1


def seeded(seed: int = 0) -> th.Generator:
    return th.Generator().manual_seed(seed)


@th.no_grad()
def test_passes_differ_in_evaluation_mode_and_follow_the_generator_alone() -> None:
    """UWAC's README claim 1."""
    critic, (states, actions) = make_critic().eval(), inputs()
    values = critic.passes(states, actions, 6, seeded())
    assert values.shape == (2, 6, B, N)
    assert all(not th.equal(values[:, i], values[:, j]) for i in range(6) for j in range(i))
    th.manual_seed(5)
    assert th.equal(values, critic.train().passes(states, actions, 6, seeded()))
    assert not th.equal(values, critic.passes(states, actions, 6, seeded(1)))
    one, generator = critic(states, actions[:, 0], seeded()), seeded()
    assert not th.equal(critic(states, actions[:, 0], generator), critic(states, actions[:, 0], generator))
    assert th.equal(one, critic.passes(states, actions[:, :1], 1, seeded())[:, 0, :, 0])
    close(critic(states, actions[:, 0]), critic.of_samples(states, actions)[..., 0], 1e-14)  # the whole network


@th.no_grad()
def test_a_pass_drops_units_behind_each_activation_and_raises_the_others() -> None:
    """UWAC's README claim 1."""
    critic, (states, actions) = make_critic(0.4), inputs()
    found, generator = critic.passes(states, actions, 3, seeded()), seeded()
    masks = [
        th.empty(2, 3, B * N, width).bernoulli_(0.6, generator=generator).view(2, 3, B, N, width) / 0.6 for width in (16, 12)
    ]
    first, second, last = (layer for layer in critic.modules() if isinstance(layer, EnsembleLinear))
    for h in range(2):
        for t in range(3):
            x = th.cat([states.unsqueeze(1).expand(-1, N, -1), actions], -1)
            for layer, mask in ((first, masks[0]), (second, masks[1])):
                x = (x @ layer.weight[h] + layer.bias[h]).relu() * mask[h, t]
            close(found[h, t], (x @ last.weight[h] + last.bias[h]).squeeze(-1), 1e-13)
    assert 0.3 < th.cat([mask.flatten() for mask in masks]).eq(0).double().mean() < 0.5


def test_passes_with_and_without_gradients_and_of_some_members_agree() -> None:
    critic, (states, actions) = make_critic(spectral_norm=True), inputs()
    values = critic.passes(states, actions, 5, seeded())
    with th.no_grad():
        close(critic.passes(states, actions, 5, seeded()), values, 1e-14)
        first = critic.passes(states, actions, 400, seeded(), slice(1))
        assert first.shape == (1, 400, B, N)
        whole = critic.passes(states, actions, 400, seeded(1))[0]
    assert (first[0].mean(0) - whole.mean(0)).abs().max() < 5 * whole.std(0).max() / 20
    assert all(g is not None for g in th.autograd.grad(values.sum(), list(critic.parameters())))


@th.no_grad()
def test_without_dropout_all_passes_are_one_and_nothing_is_drawn() -> None:
    critic, (states, actions), generator = make_critic(0.0), inputs(), seeded()
    before = generator.get_state()
    values = critic.passes(states, actions, 4, generator)
    close(values, critic.of_samples(states, actions).unsqueeze(1).expand(-1, 4, -1, -1), 1e-14)
    assert th.equal(before, generator.get_state()) and (values.var(1) == 0).all()


def test_every_matrix_has_a_spectral_norm_of_one_once_the_iteration_has_converged() -> None:
    """UWAC's README claim 2; 0.9 is what a dropout of 0.1 leaves of each hidden layer."""
    critic, (states, actions) = make_critic(spectral_norm=True), inputs()
    for _ in range(500):
        critic.advance_norms()
    matrices = [layer.weight for layer in critic.modules() if isinstance(layer, EnsembleLinear)]
    assert len(matrices) == 3
    for matrix in matrices:
        close(th.linalg.matrix_norm(matrix.detach(), ord=2), [1.0, 1.0], 1e-6)
    actions.requires_grad_(True)
    for factor in (1.0, 1000.0):  # of the weights as they are learned
        for name, parameter in critic.named_parameters():
            if name.endswith("original"):
                parameter.data *= factor
        for _ in range(50):
            critic.advance_norms()
        (slope,) = th.autograd.grad(critic.passes(states, actions, 1, seeded()).sum((0, 1)).sum() / 2, actions)
        assert 0 < slope.norm(dim=-1).max() <= 1 / 0.9**2


def test_the_norm_moves_only_when_it_is_told_to_and_its_gradient_is_that_of_the_quotient() -> None:
    """UWAC's README claim 2."""
    critic, (states, actions) = make_critic(spectral_norm=True), inputs()
    before = {name: buffer.clone() for name, buffer in critic.named_buffers()}
    assert len(before) == 2 * 3
    critic.passes(states, actions, 3, seeded())
    critic(states, actions[:, 0])
    assert all(th.equal(before[name], buffer) for name, buffer in critic.named_buffers())
    learned = critic.input_layer.parametrizations.weight
    learned.original.data += 0.1
    critic.advance_norms()
    assert not th.equal(before["input_layer.parametrizations.weight.0.left"], learned[0].left)
    weight, norm = th.randn(2, 4, 3, requires_grad=True), learned[0]
    norm.left, norm.right = th.eye(4)[:2], th.eye(3)[:2]
    expected = weight / th.stack([weight[0, 0, 0], weight[1, 1, 1]])[:, None, None]
    found = norm(weight)
    close(found, expected, 1e-14)
    gradients = [th.autograd.grad(x.square().sum(), weight, retain_graph=True)[0] for x in (found, expected)]
    close(*gradients, 1e-12)


def test_copies_and_states_carry_the_norms() -> None:
    critic, (states, actions) = make_critic(spectral_norm=True), inputs()
    twin, other = copy.deepcopy(critic), make_critic(spectral_norm=True)
    critic.advance_norms()
    assert not th.equal(critic(states, actions[:, 0]), twin(states, actions[:, 0]))
    other.load_state_dict(critic.state_dict())
    assert th.equal(critic(states, actions[:, 0]), other(states, actions[:, 0]))


def test_a_dropout_of_everything_is_refused() -> None:
    with pytest.raises(UserError, match=r"dropout=1\.0 must lie"):
        make_critic(1.0)
