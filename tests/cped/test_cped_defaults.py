"""CPED's settings, networks and actions: the recommended defaults, the released code's preset, and what is refused."""

import inspect
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_genoffline import OfflineDataset
from sb3_genoffline.cped import CPED
from sb3_genoffline.generative.flow import ConditionalFlow
from sb3_genoffline.generative.nice import JointNICE
from sb3_genoffline.nets.ensembles import EnsembleLinear

MakeCped = Callable[..., CPED]

HOPPER = (spaces.Box(-np.inf, np.inf, (11,)), spaces.Box(-1, 1, (3,)))
ANT = (spaces.Box(-np.inf, np.inf, (29,)), spaces.Box(-1, 1, (8,)))

SHARED: dict[str, Any] = {  # of both released codes, or the recommended ones where they say nothing
    "learning_rate": 1e-4,
    "critic_learning_rate": 3e-4,
    "gamma": 0.99,
    "tau": 0.005,
    "batch_size": 256,
    "policy_delay": 2,
    "target_policy_noise": 0.2,
    "target_noise_clip": 0.5,
    "warmup_steps": 0,
    "critic_start": 30_000,
    "q_start": 50_000,
    "q_normalize": False,
    "flow_joint_steps": 0,
    "flow_batch_size": 256,
    "discriminator_learning_rate": 1e-4,
    "divergence": "wgan",
    "adv_weight": 1.0,
    "instance_noise": 0.0,
    "epsilon": "batch_mean",
    "epsilon_quantile": 0.95,
    "alpha": 1.0,
    "alpha_learning_rate": 1e-3,
    "alpha_sgd": False,
    "alpha_schedule": "mujoco",
    "max_abs_q": 1e4,
    "reward_transform": None,
    "normalize_observations": False,
    "replacement": False,
    "lr_decay_steps": None,
    "flow_eval_every": 1000,
    "flow_patience": 10,
}
RECOMMENDED: dict[str, Any] = SHARED | {  # the recommended ones, where the codes differ or err
    "flow": "spline",
    "flow_steps": 100_000,
    "flow_learning_rate": 3e-4,
    "flow_betas": (0.9, 0.999),
    "flow_eps": 1e-8,
    "discriminator_betas": (0.5, 0.9),
    "gp_weight": 10.0,
    "gp_interpolation": "uniform",
    "n_critic_steps": 1,
    "vector_discriminator": False,
    "dequantization": 0.01,
    "held_out": 0.05,
    "standardize_context": True,
    "alpha_mode": "dual",
    "clip_target_action": True,
    "max_grad_norm": 10.0,
}
RELEASED: dict[str, Any] = SHARED | {  # the second code on Gym-MuJoCo
    "flow": "nice",
    "flow_steps": 500_000,
    "flow_learning_rate": 1e-4,
    "flow_betas": (0.9, 0.01),
    "flow_eps": 1e-4,
    "discriminator_betas": (0.9, 0.999),
    "gp_weight": 0.5,
    "gp_interpolation": "normal",
    "n_critic_steps": 5,
    "vector_discriminator": True,
    "dequantization": 0.0,
    "held_out": 0.0,
    "standardize_context": False,
    "alpha_mode": "schedule",
    "clip_target_action": False,
    "max_grad_norm": None,
}
RELEASED_ANTMAZE = RELEASED | {
    "learning_rate": 3e-4,
    "flow_steps": 300_000,
    "alpha_schedule": "antmaze",
    "reward_transform": "iql_antmaze",
}


@pytest.fixture(scope="module")
def default_agent() -> CPED:
    """With hopper's spaces and nothing else given."""
    return CPED("FlowDensityPolicy", HOPPER, seed=0, device="cpu")


def official(antmaze: bool = False, **kwargs: Any) -> CPED:
    return CPED.official(env=ANT if antmaze else HOPPER, antmaze=antmaze, seed=0, device="cpu", **kwargs)


def reload(model: CPED) -> CPED:
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    return CPED.load(file, device="cpu")


# ---------------------------------------------------------------------- settings


def settings_of(model: CPED, table: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(model, name) for name in table}


def test_the_defaults_are_the_recommended_ones(default_agent: CPED) -> None:
    assert settings_of(default_agent, RECOMMENDED) == RECOMMENDED
    assert default_agent.default_gradient_steps == 1_000_000
    assert default_agent.log_alpha.item() == 0.0


def test_the_tables_leave_no_argument_out() -> None:
    assert RECOMMENDED.keys() == RELEASED.keys()
    arguments = set(inspect.signature(CPED.__init__).parameters)
    assert arguments - {"self", "policy", "env", "kwargs", "density"} <= set(RECOMMENDED)


@pytest.mark.parametrize(("antmaze", "table"), [(False, RELEASED), (True, RELEASED_ANTMAZE)])
def test_the_official_preset_is_the_second_released_code(antmaze: bool, table: dict[str, Any]) -> None:
    model = official(antmaze)
    assert settings_of(model, table) == table
    loaded = reload(model)
    assert settings_of(loaded, table) == table
    assert model.usual_gradient_steps() == loaded.usual_gradient_steps() == (700_000 if antmaze else 1_000_000)
    for agent in (model, loaded):
        flow, critic = agent.density_optimizer.param_groups[0], agent.discriminator_optimizer.param_groups[0]
        assert (tuple(flow["betas"]), flow["eps"]) == ((0.9, 0.01), 1e-4)
        assert (tuple(critic["betas"]), critic["eps"]) == ((0.9, 0.999), 1e-8)
        trainer = agent.density_trainer()
        assert trainer.learning_rates == (1e-4, 1e-4)
        gan = trainer.gan
        assert (gan.divergence, gan.adv_weight, gan.gp_weight, gan.interpolation) == ("wgan", 1.0, 0.5, "normal")


def test_the_official_preset_takes_other_values() -> None:
    model = official(flow_steps=7, alpha_mode="fixed", alpha=3.0)
    assert (model.flow_steps, model.alpha_mode, model.alpha, model.flow) == (7, "fixed", 3.0, "nice")


@pytest.mark.parametrize(("antmaze", "n_parameters"), [(False, 2_298_042), (True, 2_367_111)])
def test_the_official_density_and_discriminator_have_the_released_shapes(antmaze: bool, n_parameters: int) -> None:
    model = official(antmaze)
    density, d = model.policy.density, 37 if antmaze else 14
    assert isinstance(density, JointNICE) and len(density.shifts) == 4 and density.base.family == "logistic"
    assert sum(parameter.numel() for parameter in density.parameters()) == n_parameters
    widths = [layer.out_features for layer in model.discriminator.modules() if isinstance(layer, nn.Linear)]
    assert widths == [2 * d, 4 * d, d]


def test_the_official_preset_trains_through_both_phases(make_data: Callable[..., OfflineDataset]) -> None:
    small: dict[str, Any] = {"policy_kwargs": {"net_arch": [8], "flow_net_arch": [8]}, "flow_steps": 6, "batch_size": 16}
    model = CPED.official(env=None, critic_start=0, q_start=2, seed=0, device="cpu", **small)
    model.learn_offline(make_data(), 5)
    assert model.last_metrics["alpha"] == pytest.approx(1000.0)
    density = model.policy.density
    assert isinstance(density, JointNICE) and not density.log_scale.eq(0).any()  # two steps beside the discriminator's six
    assert (density.state_std == 1).all()


# ---------------------------------------------------------------------- networks


def test_the_networks_are_two_layers_of_256_with_relu(default_agent: CPED) -> None:
    policy = default_agent.policy
    layers = list(policy.actor.net)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear, nn.Tanh]
    assert [layer.weight.shape for layer in layers if isinstance(layer, nn.Linear)] == [(256, 11), (256, 256), (3, 256)]
    kinds = [type(module) for module in policy.critic.modules() if not list(module.children())]
    assert kinds == [EnsembleLinear, nn.ReLU, EnsembleLinear, nn.ReLU, EnsembleLinear]
    shapes = [module.weight.shape for module in policy.critic.modules() if isinstance(module, EnsembleLinear)]
    assert shapes == [(2, 14, 256), (2, 256, 256), (2, 256, 1)]
    density = policy.density
    assert isinstance(density, ConditionalFlow) and density.settings == {
        "flow": "spline",
        "state_dim": 11,
        "action_dim": 3,
        "net_arch": [256, 256],
        "n_transforms": 3,
        "n_bins": 8,
        "squash": None,
    }
    widths = [layer.out_features for layer in default_agent.discriminator.modules() if isinstance(layer, nn.Linear)]
    assert widths == [28, 56, 1]


def test_weights_and_biases_start_as_pytorchs_linear_layers_do(default_agent: CPED) -> None:
    """U(± 1/√in) for weights and biases; each critic has numbers of its own."""
    tensors: list[tuple[th.Tensor, int]] = []
    for layer in default_agent.policy.actor.net:
        if isinstance(layer, nn.Linear):
            tensors += [(layer.weight, layer.in_features), (layer.bias, layer.in_features)]
    for layer in default_agent.policy.critic.modules():
        if isinstance(layer, EnsembleLinear):
            tensors += [(part, layer.weight.shape[1]) for part in (*layer.weight, *layer.bias)]
            assert not (layer.weight[0] == layer.weight[1]).any() and not (layer.bias[0] == layer.bias[1]).any()
    assert len(tensors) == 2 * 3 + 2 * 2 * 3
    for values, n_inputs in tensors:
        bound, n = n_inputs**-0.5, values.numel()
        assert values.abs().max() <= bound
        if n > 100:
            assert values.abs().max() > (1 - 10 / n) * bound
            assert values.std().item() == pytest.approx(bound / 3**0.5, abs=4 * bound / (3 * n) ** 0.5)
            assert abs(values.mean().item()) < 4 * bound / (3 * n) ** 0.5


def test_targets_are_copies_that_nothing_trains(default_agent: CPED) -> None:
    policy = default_agent.policy
    for online, target in ((policy.actor, policy.actor_target), (policy.critic, policy.critic_target)):
        for p, q in zip(online.parameters(), target.parameters(), strict=True):
            assert th.equal(p, q) and p.data_ptr() != q.data_ptr() and p.requires_grad and not q.requires_grad


def test_layer_norm_and_widths_of_the_critics_are_a_choice(make_cped: MakeCped) -> None:
    model = make_cped(policy_kwargs={"critic_layer_norm": True, "net_arch": {"pi": [5], "qf": [6, 7]}})
    assert [layer.out_features for layer in model.actor.net if isinstance(layer, nn.Linear)] == [5, 2]
    kinds = [type(module).__name__ for module in model.critic.modules() if not list(module.children())]
    assert kinds == ["EnsembleLinear", "LayerNorm", "ReLU", "EnsembleLinear", "LayerNorm", "ReLU", "EnsembleLinear"]
    assert model.policy.density.settings["net_arch"] == [8]


# ---------------------------------------------------------------------- claim 28: acting


def test_the_deterministic_action_is_the_actors_rescaled_to_the_space(make_cped: MakeCped) -> None:
    space = spaces.Box(np.array([0, -2], np.float32), np.array([1, 5], np.float32))
    model = make_cped(env=(spaces.Box(-np.inf, np.inf, (3,)), space))
    model.policy.set_observation_statistics(th.tensor([1.0, -2.0, 0.5]), th.tensor([2.0, 0.5, 3.0]))
    states = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    actions, _ = model.predict(states, deterministic=True)
    raw = model.actor((th.as_tensor(states) - model.policy.obs_mean) / model.policy.obs_std).detach().numpy()
    np.testing.assert_allclose(actions, space.low + (raw + 1) / 2 * (space.high - space.low), atol=1e-5)
    assert np.array_equal(actions, model.predict(states, deterministic=True)[0])


def test_other_actions_are_those_with_normal_noise_of_a_tenth_inside_the_box(make_cped: MakeCped) -> None:
    model = make_cped()
    states = np.zeros((4000, 3), np.float32)
    mean, actions = model.predict(states, deterministic=True)[0], model.predict(states, deterministic=False)[0]
    noise = actions - mean
    assert np.abs(noise.mean(0)).max() < 0.01 and np.abs(noise.std(0) - 0.1).max() < 0.01
    model.actor.net[-2].bias.data.fill_(10.0)  # type: ignore[union-attr,operator]
    saturated = model.predict(states, deterministic=False)[0]
    assert saturated.max() <= 1.0 and (saturated == 1.0).mean() == pytest.approx(0.5, abs=0.05)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha_mode": "lagrange"}, r"alpha_mode='lagrange' is not known; use one of 'dual', 'schedule', 'fixed'"),
        ({"alpha": -1.0}, r"alpha=-1.0 must not be negative"),
        ({"alpha": 0}, r"alpha=0 must be positive, or 0 with alpha_mode='fixed'"),
        ({"alpha_schedule": "hopper"}, r"alpha_schedule='hopper' is not known; use one of 'mujoco', 'antmaze', or pairs"),
        ({"alpha_schedule": [(0, 1.0), (5, -1.0)]}, r"alpha_schedule=.* has a negative alpha"),
        ({"alpha_schedule": [(1, 1.0)]}, r"alpha_schedule=\[\(1.0, 1.0\)\] must be pairs .* the first 0"),
        ({"alpha_schedule": [(0, 1.0), (9, 2.0), (4, 1.0)]}, r"alpha_schedule=.* with rising updates"),
        ({"alpha_schedule": [(0, 1.0), (4, 2.0), (4, 1.0)]}, r"alpha_schedule=.* with rising updates"),
        ({"alpha_schedule": [(0, 1.0, 2.0)]}, r"alpha_schedule=.* must be pairs \(update, alpha\)"),
        ({"alpha_schedule": []}, r"alpha_schedule=\[\] must be pairs \(update, alpha\)"),
        ({"epsilon": "mean"}, r"epsilon='mean' is not known; use one of 'batch_mean', 'quantile', or a number"),
        ({"epsilon": "quantile", "flow": "nice"}, r"epsilon='quantile' compares all states .*'batch_mean', or flow='spline'"),
        ({"epsilon": 1.0, "flow": "nice"}, r"epsilon=1.0 compares all states .*'batch_mean', or flow='spline'"),
        ({"epsilon_quantile": 1.5}, r"epsilon_quantile=1.5 must lie in \[0, 1\)"),
        ({"epsilon": "quantile", "flow_joint_steps": 9}, r"with flow_joint_steps > 0 use epsilon='batch_mean'"),
        ({"held_out": 1.0}, r"held_out=1.0 must lie in \[0, 1\)"),
        ({"held_out": -0.1}, r"held_out=-0.1 must lie in \[0, 1\)"),
        ({"flow": "glow"}, r"flow='glow' is not known; use one of 'spline', 'affine', 'nice'"),
        ({"flow_steps": 0}, r"flow_steps=0 must be at least 1"),
        ({"flow_batch_size": 0}, r"flow_batch_size=0 must be at least 1"),
        ({"n_critic_steps": 0}, r"n_critic_steps=0 must be at least 1"),
        ({"flow_eval_every": 0}, r"flow_eval_every=0 must be at least 1"),
        ({"flow_patience": 0}, r"flow_patience=0 must be at least 1"),
        ({"policy_delay": 0}, r"policy_delay=0 must be at least 1"),
        ({"divergence": "js"}, r"divergence='js' is not known; use one of 'wgan'"),
        ({"gp_interpolation": "linear"}, r"interpolation='linear' is not known; use one of 'uniform', 'normal'"),
        ({"adv_weight": -1.0}, r"adv_weight=-1.0 must not be negative"),
        ({"gp_weight": -1.0}, r"gp_weight=-1.0 must not be negative"),
        ({"instance_noise": -1.0}, r"instance_noise=-1.0 must not be negative"),
        ({"policy_kwargs": {"flow": "affine"}}, r"policy_kwargs has 'flow', which is an argument of CPED: pass flow='affine'"),
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused_with_their_name_and_what_to_do(
    make_cped: MakeCped, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_cped(fitted=False, **change)


def test_the_joint_density_with_one_threshold_is_refused_in_the_official_preset_too() -> None:
    with pytest.raises(ValueError, match="flow='nice' models p\\(s, a\\)"):
        official(epsilon=22.0)
