"""Floating-point operations of updates whose parts are plain MLPs: matrix products only, a multiply-add counts 2."""

from dataclasses import dataclass
from typing import Any

import torch as th

from sb3_genoffline.nets.ensembles import EnsembleLinear


def linear_row(module: th.nn.Module) -> int:
    """Operations of a module's linear layers for one row."""
    return sum(2 * layer.weight.numel() for layer in module.modules() if isinstance(layer, th.nn.Linear))


@dataclass(frozen=True)
class Cost:
    """
    Operations of one network for one row.

    :param row: of a pass forward
    :param first: of its first layer
    """

    row: int
    first: int

    @classmethod
    def of(cls, network: th.nn.Module) -> "Cost":
        """Of an MLP, or of one member of an ensemble."""
        layers = [layer for layer in network.modules() if isinstance(layer, th.nn.Linear | EnsembleLinear)]
        rows = [2 * layer.weight.shape[-1] * layer.weight.shape[-2] for layer in layers]
        return cls(sum(rows), rows[0])

    @property
    def learning(self) -> int:
        """Forward and backward to the weights, not to the input."""
        return 3 * self.row - self.first

    @property
    def passing(self) -> int:
        """Forward and backward to the input, not to the weights."""
        return 2 * self.row


def vae_cost(vae: Any) -> tuple[int, Cost]:
    """
    :param vae: a ``ConditionalVAE``
    :return: of one row, a step down its loss; and its decoder
    """
    decoder = Cost.of(vae.decoder)
    return Cost.of(vae.encoder).learning + 3 * decoder.row, decoder


def scored_samples(model: Any, n_samples: int) -> int:
    """Of one state, the critics' values of n actions: the states' part of their first layer is computed once."""
    critic = Cost.of(model.critic)
    of_state = 2 * model.policy.state_dim * model.critic.input_layer.weight.shape[2]
    return model.critic.n_critics * (of_state + n_samples * (critic.row - of_state))


def learned_samples(model: Any, n_samples: int) -> int:
    """Of one state, the critics' step down a loss of their values of n actions, without gradients to these."""
    critic = Cost.of(model.critic)
    of_state = 2 * model.policy.state_dim * model.critic.input_layer.weight.shape[2]
    of_weights = of_state + n_samples * (critic.row - of_state)
    of_hidden = n_samples * (critic.row - critic.first)
    return scored_samples(model, n_samples) + model.critic.n_critics * (of_weights + of_hidden)


def bcq_flops(model: Any, batch_size: int) -> float:
    """Of one BCQ update, e.g. 3.03e9 for hopper at the defaults with their batch of 100."""
    vae, decoder = vae_cost(model.vae)
    actor, critic, members = Cost.of(model.actor), Cost.of(model.critic), model.critic.n_critics
    target = model.n_target_samples * (decoder.row + actor.row) + scored_samples(model, model.n_target_samples)
    actor_step = decoder.row + actor.learning + members * critic.passing
    return float(batch_size * (vae + target + members * critic.learning + actor_step))


def bear_flops(model: Any, batch_size: int) -> float:
    """Of one BEAR update whose actor climbs Q at its first sample, e.g. 4.14e9 for hopper at the defaults."""
    vae, decoder = vae_cost(model.vae)
    actor, critic, members = Cost.of(model.actor), Cost.of(model.critic), model.critic.n_critics
    target = actor.row + scored_samples(model, model.n_target_samples)
    actor_step = model.n_mmd_samples * decoder.row + actor.learning + members * critic.passing
    return float(batch_size * (vae + target + members * critic.learning + actor_step))


def onestep_flops(model: Any, batch_size: int) -> float:
    """Of one update of Onestep's policy, behind the fits, e.g. 7.62e9 for hopper at the defaults with their batch of 512."""
    models, actor = model.policy.behavior_and_q, Cost.of(model.actor)
    critic, members = Cost.of(models.critic), models.critic.n_critics
    measured = Cost.of(models.behavior).row + members * critic.row
    step = {
        "reverse_kl": actor.learning + members * critic.passing,
        "exp_weight": actor.learning + scored_samples(model, model.n_value_samples),
        "easy_bcq": scored_samples(model, model.n_action_samples),
    }[model.improvement]
    return float(batch_size * (measured + step))


def mcq_flops(model: Any, batch_size: int) -> float:
    """Of one MCQ update, e.g. 37.0e9 for hopper at the defaults."""
    vae, decoder = vae_cost(model.vae)
    actor, critic, members = Cost.of(model.actor), Cost.of(model.critic), model.critic.n_critics
    target = actor.row + members * critic.row
    outside = 2 * (model.n_actions * decoder.row + actor.row + scored_samples(model, model.n_actions))
    learning = members * critic.learning + 2 * learned_samples(model, model.n_actions)
    actor_step = actor.learning + members * critic.passing
    return float(batch_size * (vae + target + outside + learning + actor_step))
