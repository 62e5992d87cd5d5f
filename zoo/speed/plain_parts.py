"""
Any agent's update with the parts that all algorithms share as one would first write them: critics one after the other,
PyTorch's activations, ``backward``, an optimizer and targets that take one parameter at a time. What an algorithm does with
these parts stays its own, so that there is one such form for all of them; DAC, QDQ and CPED have a whole plain form beside it.
"""

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch as th
from stable_baselines3.common.utils import polyak_update
from torch import Tensor, nn

from sb3_genoffline.common import optimizers
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.common.state import OptimizerPlan
from sb3_genoffline.nets import ensembles
from sb3_genoffline.nets.activations import Mish
from sb3_genoffline.nets.ensembles import EnsembleLinear, EnsembleQ

_PACKAGE = EnsembleQ.__module__.partition(".")[0]


class PlainEnsembleQ(nn.Module):
    """
    The Q-functions of an :class:`~sb3_genoffline.nets.ensembles.EnsembleQ` as modules of their own, each of which sees every
    pair of state and action as a row.

    :param ensemble: whose weights are copied
    """

    def __init__(self, ensemble: EnsembleQ) -> None:
        super().__init__()
        self.n_critics = ensemble.n_critics
        layers = [ensemble.input_layer, *ensemble.trunk]
        self.members = nn.ModuleList(
            nn.Sequential(*(_of_member(layer, h) if isinstance(layer, EnsembleLinear) else _plain(layer) for layer in layers))
            for h in range(ensemble.n_critics)
        )
        for member in self.members:
            member.requires_grad_(ensemble.input_layer.weight.requires_grad)

    def of_member(self, member: int, states: Tensor, actions: Tensor) -> Tensor:
        """(B, S), (B, A) -> (B,)"""
        values: Tensor = self.members[member](th.cat([states, actions], dim=-1))
        return values.squeeze(-1)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """(B, S), (B, A) -> (H, B)"""
        return th.stack([self.of_member(h, states, actions) for h in range(self.n_critics)])

    def of_samples(self, states: Tensor, actions: Tensor) -> Tensor:
        """(B, S), (B, n, A) -> (H, B, n)"""
        rows = states.repeat_interleave(actions.shape[1], dim=0)
        return self(rows, actions.flatten(0, 1)).view(self.n_critics, *actions.shape[:2])  # type: ignore[no-any-return]

    @th.no_grad()
    def score_samples(self, states: Tensor, actions: Tensor) -> Tensor:
        """:meth:`of_samples` without gradients."""
        return self.of_samples(states, actions)


class PlainParts:
    """
    An agent's update with plain parts.

    :param model: an agent that is ready to update; nobody else may have it, as its networks are replaced
    """

    def __init__(self, model: AnyAlgorithm) -> None:
        self.model = model
        replaced: dict[Tensor, list[Tensor]] = {}
        for holder in (model.policy, *model.state.networks.values()):
            _replace_parts(holder, replaced)
        for name in model.state.aliases:
            setattr(model, name, getattr(model.policy, name))
        for name, network in model.state.networks.items():
            model.state.networks[name] = _replaced(network, replaced)
            setattr(model, name, model.state.networks[name])
        for name, plan in model.state.plans.items():
            parameters = [new for old in plan.parameters for new in replaced.get(old, [old])]
            model.state.plans[name] = dataclasses.replace(plan, parameters=parameters, options=partial(_plain_options, plan))
            vars(model).pop(f"{name}_optimizer", None)
        model.state._optimizers.clear()

    def update(self, batch: Any, noise: Any) -> dict[str, Tensor]:
        """See :meth:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm.step`."""
        with plain_steps():
            return self.model.step(batch, noise)


@contextmanager
def plain_steps() -> Iterator[None]:
    """Inside, gradient steps and steps of targets are plain, whichever module of the library asks for them."""
    parts = {"gradient_step": (optimizers.gradient_step, _gradient_step), "soft_update": (ensembles.soft_update, _soft_update)}
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            for part, (ours, plain) in parts.items():
                if name.startswith(f"{_PACKAGE}.") and getattr(module, part, None) is ours:
                    stack.enter_context(patch.object(module, part, plain))
        yield


def _gradient_step(
    optimizer: th.optim.Optimizer,
    loss: Tensor,
    learning_rate: float,
    max_grad_norm: float | None = None,
    skip: Tensor | None = None,
) -> None:
    """:func:`~sb3_genoffline.common.optimizers.gradient_step`, in which all networks behind the loss get their gradients."""
    (group,) = optimizer.param_groups
    optimizer.zero_grad()
    loss.backward(retain_graph=True)
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(group["params"], max_grad_norm, foreach=False)
    group["lr"] = learning_rate
    if skip is None or not skip:
        optimizer.step()


def _soft_update(online: nn.Module, target: nn.Module, tau: float) -> None:
    polyak_update(online.parameters(), target.parameters(), tau)


def _plain_options(plan: OptimizerPlan, agent: AnyAlgorithm) -> dict[str, Any]:
    return plan.options(agent) | {"fused": False, "foreach": False}


def _of_member(layer: EnsembleLinear, member: int) -> nn.Linear:
    plain = nn.Linear(*layer.weight.shape[1:])
    plain.weight.data.copy_(layer.weight[member].T)
    plain.bias.data.copy_(layer.bias[member, 0])
    return plain


def _plain(module: nn.Module) -> nn.Module:
    """An activation as PyTorch has it; of other modules the same."""
    if isinstance(module, Mish):
        return nn.Mish()
    return nn.ReLU() if isinstance(module, nn.ReLU) else module


def _replaced(module: nn.Module, replaced: dict[Tensor, list[Tensor]]) -> nn.Module:
    """A module's plain form; the parameters of an ensemble are noted with those that take their place."""
    if type(module) is not EnsembleQ:
        return _plain(module)
    plain = PlainEnsembleQ(module)
    linears = [layer for layer in (module.input_layer, *module.trunk) if isinstance(layer, EnsembleLinear)]
    theirs = [[layer for layer in member.children() if isinstance(layer, nn.Linear)] for member in plain.members]
    for i, layer in enumerate(linears):
        replaced[layer.weight] = [member[i].weight for member in theirs]
        replaced[layer.bias] = [member[i].bias for member in theirs]
    return plain


def _replace_parts(holder: nn.Module, replaced: dict[Tensor, list[Tensor]]) -> None:
    """Replace what is inside a module, at any depth."""
    for name, child in list(holder.named_children()):
        plain = _replaced(child, replaced)
        if plain is not child:
            holder._modules[name] = plain
        else:
            _replace_parts(child, replaced)
