"""The ensemble's fast path for many actions per state, and its soft minimum."""

import pytest
import torch as th

from sb3_genoffline.nets.activations import Mish
from sb3_genoffline.nets.blocks import CPU_BLOCK_ROWS
from sb3_genoffline.nets.ensembles import EnsembleQ, soft_minimum


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(("n_states", "n_samples"), [(1, 1), (7, 3), (64, 10), (65, 10), (300, 7), (3, 700)])
def test_scores_of_samples_are_the_ensembles_values(n_states: int, n_samples: int, layer_norm: bool) -> None:
    """Sizes on both sides of the block's rows, a last block that is not full, and a state with more samples than a block."""
    assert 64 * 10 <= CPU_BLOCK_ROWS < 65 * 10
    th.manual_seed(0)
    critic = EnsembleQ(3, 4, 2, (8, 6), layer_norm=layer_norm).double()
    states, actions = th.randn(n_states, 4).double(), th.randn(n_states, n_samples, 2).double()
    scores = critic.score_samples(states, actions)
    with th.no_grad():
        one_by_one = critic(states.repeat_interleave(n_samples, 0), actions.flatten(0, 1))
    assert scores.shape == (3, n_states, n_samples)
    th.testing.assert_close(scores, one_by_one.view_as(scores), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("activation", "net_arch"), [(Mish, (64, 8)), (th.nn.ReLU, (64, 8)), (Mish, ())])
def test_one_members_values_and_slopes_are_those_it_has_among_all(activation: type[th.nn.Module], net_arch: list[int]) -> None:
    th.manual_seed(0)
    critic = EnsembleQ(3, 4, 2, net_arch, activation, torch_init=True).double()
    states, actions = th.randn(50, 4).double(), th.randn(50, 2).double().requires_grad_()
    alone, among = critic.of_member(1, states, actions), critic(states, actions)[1]
    th.testing.assert_close(alone, among, rtol=1e-12, atol=1e-12)
    slopes = [th.autograd.grad(values.square().sum(), actions)[0] for values in (alone, among)]
    th.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


def test_the_soft_minimum_mixes_the_members_of_each_action() -> None:
    values = th.tensor([[1.0, 5.0], [3.0, -4.0]])  # two critics, two actions
    assert soft_minimum(values, 0.75).tolist() == [1.5, -1.75]  # the best action first and critics second would give 3.5
    assert soft_minimum(values, 1.0).tolist() == [1.0, -4.0] and soft_minimum(values, 0.0).tolist() == [3.0, 5.0]
