"""The actor-critic update of CPED is that of its plain form, to rounding."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch as th
from torch import Tensor, nn

from sb3_genoffline.cped import CPED
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import EnsembleLinear
from zoo.speed.plain_cped import PlainCPED

TOLERANCE = 1e-10
N_UPDATES = 9
PHASES = {"warmup_steps": 2, "critic_start": 3, "q_start": 6}  # the actor moves at 2, 4, 6 and 8
SCHEDULE = [(0, 100.0), (3, 2.0), (7, 0.5)]
SETTINGS: list[dict[str, Any]] = [
    *({"alpha_mode": "dual", "epsilon": epsilon} for epsilon in ("batch_mean", "quantile", 1.5)),
    {"alpha_mode": "dual", "alpha": 3.0, "alpha_sgd": True, "alpha_learning_rate": 0.05},
    {"alpha_mode": "dual", "alpha": 2e4, "alpha_learning_rate": 0.5, "epsilon": -1e3, "max_grad_norm": 1.0},
    {"alpha_mode": "schedule", "alpha_schedule": SCHEDULE},
    {"alpha_mode": "schedule", "alpha_schedule": SCHEDULE, "epsilon": 2.0, "max_grad_norm": None},
    {"alpha_mode": "fixed", "alpha": 0.3},
    {"alpha_mode": "fixed", "alpha": 0.0},
    {"alpha_mode": "fixed", "alpha": 0.0, "q_normalize": True},
    {"q_normalize": True},
    {"max_grad_norm": None},
    {"max_grad_norm": 0.01},
    {"policy_delay": 1},
    {"policy_delay": 3},
    {"critic_learning_rate": 1e-2, "tau": 0.3, "gamma": 0.7},
    {"target_policy_noise": 2.0, "target_noise_clip": 0.1},
    {"target_policy_noise": 2.0, "target_noise_clip": 3.0, "clip_target_action": False},
    {"lr_decay_steps": 12},
    {"normalize_observations": True},
    {"flow": "nice"},
    {"flow": "affine", "policy_kwargs": {"flow_squash": "normal"}},
    {"warmup_steps": 0, "critic_start": 0, "q_start": 0},
    {"warmup_steps": 5, "critic_start": 0, "q_start": 2},
]


def critic_parameters(ensemble: nn.Module, member: int) -> Iterator[Tensor]:
    """In the order and the layout of the plain form's."""
    for layer in ensemble.modules():
        if isinstance(layer, EnsembleLinear):
            yield layer.weight[member].T
            yield layer.bias[member, 0]


def largest_difference(model: CPED, plain: PlainCPED) -> float:
    """Over all parameters of the four networks, and log α."""
    pairs: list[tuple[Tensor, Tensor]] = [(model.log_alpha, plain.log_alpha)]
    for own, other in ((model.actor, plain.actor), (model.actor_target, plain.actor_target)):
        pairs.extend(zip(own.parameters(), other.parameters(), strict=True))
    for ensemble, critics in ((model.critic, plain.critics), (model.critic_target, plain.critics_target)):
        for member, critic in enumerate(critics):
            pairs.extend(zip(critic_parameters(ensemble, member), critic.parameters(), strict=True))
    return max((ours - theirs).abs().max().item() for ours, theirs in pairs)


def start(make_cped: Callable[..., CPED], settings: dict[str, Any]) -> CPED:
    defaults = {"learning_rate": 3e-3, "tau": 0.05, "alpha_learning_rate": 1e-2}
    model = make_cped(**(defaults | PHASES | settings))
    # raw observations for the density, normalised ones for the actor and the critics
    model.policy.density.set_state_statistics(th.tensor([0.5, -0.5, 0.0]), th.tensor([1.5, 0.7, 2.0]))
    if settings.get("normalize_observations"):
        model.policy.set_observation_statistics(th.tensor([1.0, -2.0, 0.5]), th.tensor([2.0, 0.5, 3.0]))
    return model


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(f"{k}={v}" for k, v in s.items()))
def test_updates_across_the_phases_are_those_of_the_plain_form(
    make_cped: Callable[..., CPED], make_batch: Callable[..., TransitionBatch], settings: dict[str, Any]
) -> None:
    model = start(make_cped, settings)
    plain = PlainCPED(model)
    assert largest_difference(model, plain) == 0.0
    untrained = [parameter.clone() for parameter in model.actor.parameters()]
    for step in range(N_UPDATES):
        batch, noise = make_batch(12, seed=step), model.draw_noise(12)
        ours, theirs = model.step(batch, noise), plain.update(batch, noise)
        for name, value in theirs.items():
            assert abs(value.item() - ours[name].item()) < TOLERANCE, (step, name)
    assert largest_difference(model, plain) < TOLERANCE
    assert max((now - before).abs().max() for before, now in zip(untrained, model.actor.parameters(), strict=True)) > 1e-3


@pytest.mark.usefixtures("float64")
def test_steps_that_are_skipped_are_skipped_in_the_plain_form_too(
    make_cped: Callable[..., CPED], make_batch: Callable[..., TransitionBatch]
) -> None:
    model = start(make_cped, {"policy_delay": 1, "warmup_steps": 0, "critic_start": 0, "q_start": 0})
    plain = PlainCPED(model)
    for step in range(N_UPDATES):
        batch, noise = make_batch(12, seed=step), model.draw_noise(12)
        if step in (0, 4):  # as if a row had overflowed
            batch = batch._replace(rewards=batch.rewards * 1e8)
        if step in (2, 5):
            batch.observations[3] = th.nan
        model.step(batch, noise), plain.update(batch, noise)
    assert model.skipped.item() == plain.n_skipped == 6
    assert largest_difference(model, plain) < TOLERANCE


def test_the_plain_form_refuses_agents_it_does_not_know(make_cped: Callable[..., CPED]) -> None:
    with pytest.raises(ValueError, match="LayerNorm"):
        PlainCPED(make_cped(policy_kwargs={"critic_layer_norm": True}))
    with pytest.raises(ValueError, match="ReLU with tanh"):
        PlainCPED(make_cped(policy_kwargs={"activation_fn": th.nn.ELU}))
    with pytest.raises(ValueError, match="flow_joint_steps"):
        PlainCPED(make_cped(flow_joint_steps=5))
