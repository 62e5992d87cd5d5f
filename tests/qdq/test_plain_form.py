"""The update of QDQ is that of its plain form, to rounding."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch as th
from torch import Tensor, nn

from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import EnsembleLinear
from sb3_genoffline.qdq import QDQ
from zoo.speed.plain_qdq import PlainQDQ

TOLERANCE = 1e-10
SETTINGS: list[dict[str, Any]] = [
    {"penalty": penalty, "actor_objective": objective, "lam": lam if objective == "q_bc" else 0.8 - lam}
    for penalty, lam in (("paper", 0.0), ("antmaze_awr", 0.8), ("antmaze_q", 0.0), ("floor", 0.8), ("none", 0.0))
    for objective in ("q_bc", "awr")
] + [
    {"penalty": "paper", "actor_objective": "q_bc", "lam": 0.8},
    {"penalty": "paper", "actor_objective": "awr", "lam": 0.0},
    {"mean_backup": True},
    {"policy_delay": 1},
    {"policy_delay": 3},
    {"max_grad_norm": 0.05},
    {"max_grad_norm": None},
    {"lr_decay_steps": None},
    {"penalty": "floor", "q_floor": -3.0, "alpha": 0.3, "beta": 0.5},
    {"critic_learning_rate": 3e-3, "tau": 0.3, "gamma": 0.8},
    {"target_policy_noise": 2.0, "target_noise_clip": 0.1},
    {"awr_temperature": 0.7, "actor_objective": "awr"},
    {"normalize_observations": True},
]


def critic_parameters(ensemble: nn.Module, member: int) -> Iterator[Tensor]:
    """In the order of the plain form's."""
    for layer in ensemble.modules():
        if isinstance(layer, EnsembleLinear):
            yield layer.weight[member].T
            yield layer.bias[member, 0]


def largest_difference(model: QDQ, plain: PlainQDQ) -> float:
    """Over all parameters of the four networks."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for own, other in ((model.actor, plain.actor), (model.actor_target, plain.actor_target)):
        pairs.extend(zip([*own.net.parameters(), own.log_std], [*other.net.parameters(), other.log_std], strict=True))
    for ensemble, critics in ((model.critic, plain.critics), (model.critic_target, plain.critics_target)):
        for member, critic in enumerate(critics):
            pairs.extend(zip(critic_parameters(ensemble, member), critic.parameters(), strict=True))
    return max((ours - theirs).abs().max().item() for ours, theirs in pairs)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(f"{k}={v}" for k, v in s.items()))
def test_seven_updates_are_those_of_the_plain_form(
    make_qdq: Callable[..., QDQ], make_batch: Callable[..., TransitionBatch], settings: dict[str, Any]
) -> None:
    defaults = {"learning_rate": 3e-3, "lr_decay_steps": 10, "alpha": 0.6, "beta": 0.7, "max_grad_norm": 1.0, "tau": 0.05}
    model = make_qdq(**(defaults | settings))
    if settings.get("normalize_observations"):
        model.policy.set_observation_statistics(th.tensor([1.0, -2.0, 0.5]), th.tensor([2.0, 0.5, 3.0]))
    plain = PlainQDQ(model)
    start = largest_difference(model, plain)
    untrained = [parameter.clone() for parameter in model.policy.parameters()]
    for step in range(7):
        batch, noise = make_batch(12, seed=step), model.draw_noise(12)
        ours, theirs = model.step(batch, noise), plain.update(batch, noise)
        for name, value in theirs.items():
            assert abs(value.item() - ours[name].item()) < TOLERANCE, (step, name)
    assert start == 0.0
    assert largest_difference(model, plain) < TOLERANCE
    moved = [(now - before).abs().max() for before, now in zip(untrained, model.policy.parameters(), strict=True)]
    assert max(moved) > 1e-3


def test_the_plain_form_refuses_networks_it_does_not_know(make_qdq: Callable[..., QDQ]) -> None:
    with pytest.raises(ValueError, match="LayerNorm"):
        PlainQDQ(make_qdq(policy_kwargs={"critic_layer_norm": True}))
