"""QDQ's networks and defaults are the published ones."""

import inspect
import math

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_genoffline.nets.ensembles import EnsembleLinear
from sb3_genoffline.qdq import QDQ


@pytest.fixture(scope="module")
def default_agent() -> QDQ:
    """With halfcheetah's spaces and nothing else given."""
    box = (spaces.Box(-np.inf, np.inf, (17,)), spaces.Box(-1, 1, (6,)))
    return QDQ("MlpPolicy", box, seed=0, device="cpu")


def test_the_default_networks_are_the_papers(default_agent: QDQ) -> None:
    policy, width = default_agent.policy, 256
    trunk = 2 * (width * width + width)
    assert sum(p.numel() for p in policy.critic.parameters()) == 2 * (23 * width + width + trunk + width + 1)
    assert sum(p.numel() for p in policy.actor.parameters()) == 17 * width + width + trunk + 6 * width + 6 + 6
    kinds = [type(module).__name__ for module in policy.critic.modules() if not list(module.children())]
    assert kinds == ["EnsembleLinear", "Mish", "EnsembleLinear", "Mish", "EnsembleLinear", "Mish", "EnsembleLinear"]
    assert [type(module) for module in policy.actor.net] == [nn.Linear, nn.ReLU] * 3 + [nn.Linear]
    network = policy.q_sampler.model.network
    assert network.input_layer.in_features == 56 and network.net_arch == [256, 256, 256]
    assert [(norm.num_groups, norm.num_channels, norm.eps) for norm in network.norms] == [(32, 256, 1e-6)] * 3


def test_kernels_are_xavier_uniform_biases_zero_and_the_actors_head_orthogonal(default_agent: QDQ) -> None:
    linears = [module for module in default_agent.policy.actor.net if isinstance(module, nn.Linear)]
    *hidden, head = linears
    assert th.allclose(head.weight @ head.weight.T, 2.0 * th.eye(6), atol=1e-5)
    assert all((layer.bias == 0).all() for layer in linears)
    kernels = [layer.weight for layer in hidden]
    for layer in default_agent.policy.critic.modules():
        if isinstance(layer, EnsembleLinear):
            kernels.extend(layer.weight)
            assert (layer.bias == 0).all() and not (layer.weight[0] == layer.weight[1]).any()
    assert len(kernels) == 3 + 2 * 4
    for kernel in kernels:
        bound = math.sqrt(6 / sum(kernel.shape))
        assert 0.97 * bound < kernel.abs().max() <= bound
        assert kernel.std().item() == pytest.approx(bound / math.sqrt(3), abs=4 * bound / math.sqrt(3 * kernel.numel()))


def test_targets_are_copies_that_nothing_trains(default_agent: QDQ) -> None:
    policy = default_agent.policy
    for online, target in ((policy.actor, policy.actor_target), (policy.critic, policy.critic_target)):
        for p, q in zip(online.parameters(), target.parameters(), strict=True):
            assert th.equal(p, q) and p.data_ptr() != q.data_ptr() and p.requires_grad and not q.requires_grad


def test_the_defaults_are_the_published_ones(default_agent: QDQ) -> None:
    expected = {
        "learning_rate": 3e-4,
        "critic_learning_rate": None,
        "lr_decay_steps": 1_000_000,
        "batch_size": 256,
        "tau": 0.005,
        "gamma": 0.99,
        "alpha": 0.992,
        "beta": 0.9,
        "lam": 0.8,
        "penalty": "paper",
        "q_floor": 0.0,
        "actor_objective": "q_bc",
        "awr_temperature": 6.0,
        "n_q_samples": 50,
        "mean_backup": False,
        "policy_delay": 2,
        "target_policy_noise": 0.2,
        "target_noise_clip": 0.5,
        "max_grad_norm": 10.0,
        "window": 200,
        "stride": 10,
        "max_windows": 100,
        "full_coverage": False,
        "q_batch_size": 256,
        "teacher_steps": 800_000,
        "teacher_learning_rate": 5e-4,
        "cd_steps": 1_600_000,
        "cd_learning_rate": 4e-4,
        "cd_n": 1000,
        "cd_first_index": 0,
        "cd_init": "teacher",
        "cd_ema": 0.005,
        "cd_ema_every": 5,
        "cd_average": False,
        "reward_transform": None,
        "replacement": False,
        "normalize_observations": False,
    }
    assert {name: getattr(default_agent, name) for name in expected} == expected
    own = set(inspect.signature(QDQ.__init__).parameters) - {"self", "policy", "env", "kwargs", "q_sampler"}
    assert own <= set(expected), f"not in this table: {own - set(expected)}"
    assert default_agent.default_gradient_steps == 1_000_000
    for optimizer in (default_agent.actor_optimizer, default_agent.critic_optimizer):
        group = optimizer.param_groups[0]
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0)


def test_each_critic_is_a_network_of_its_own(default_agent: QDQ) -> None:
    critic = default_agent.policy.critic
    states, actions = th.randn(2, 17), th.zeros(2, 6)
    first = critic(states, actions)[0].sum()
    for layer in critic.modules():
        if isinstance(layer, EnsembleLinear):
            gradient = th.autograd.grad(first, layer.weight, retain_graph=True)[0]
            assert gradient[0].abs().sum() > 0 and (gradient[1] == 0).all()
