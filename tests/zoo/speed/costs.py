"""
What updates should cost by their papers' equations: floating-point operations, matrix products only, a multiply-add counts 2.
``python -m zoo speed`` counts what they do.
"""

import itertools
from collections.abc import Callable
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


def bcq_flops(model: Any, batch_size: int) -> float:
    """Of one BCQ update, e.g. 3.03e9 for hopper at the defaults with their batch of 100."""
    vae, decoder = vae_cost(model.vae)
    actor, critic, members = Cost.of(model.actor), Cost.of(model.critic), model.critic.n_critics
    target = model.n_target_samples * (decoder.row + actor.row) + scored_samples(model, model.n_target_samples)
    actor_step = decoder.row + actor.learning + critic.passing  # of the first critic
    return float(batch_size * (vae + target + members * critic.learning + actor_step))


def bear_flops(model: Any, batch_size: int) -> float:
    """Of one BEAR update whose actor climbs Q at its first sample, e.g. 4.14e9 for hopper at the defaults."""
    vae, decoder = vae_cost(model.vae)
    actor, critic, members = Cost.of(model.actor), Cost.of(model.critic), model.critic.n_critics
    target = actor.row + scored_samples(model, model.n_target_samples)
    actor_step = model.n_mmd_samples * decoder.row + actor.learning + members * critic.passing
    return float(batch_size * (vae + target + members * critic.learning + actor_step))


def plas_flops(model: Any, batch_size: int) -> float:
    """Of one PLAS update, with its perturbation if it has one, e.g. 0.75e9 for hopper at the defaults, a batch of 100."""
    decoder, latent, critic = (Cost.of(part) for part in (model.policy.density.decoder, model.actor.latent, model.critic))
    perturbation = 0 if model.actor.perturbation is None else Cost.of(model.actor.perturbation).row
    members = model.critic.n_critics
    target = latent.row + decoder.row + perturbation + members * critic.row
    actor_step = latent.learning + decoder.passing + 3 * perturbation + critic.passing  # of the first critic
    return float(batch_size * (target + members * critic.learning + actor_step))


def dac_flops(model: Any, batch_size: int) -> float:
    """
    Floating-point operations of one DAC update: matrix products only, a multiply-add counts 2; for the paper's network shape.

    :return: number of operations, e.g. 15.26e9 for walker2d at the paper's setting
    """
    s, a, h = model.policy.state_dim, model.policy.action_dim, model.actor.noise_net.input_layer.out_features
    b, n, members, steps = batch_size, model.n_q_samples, model.n_critics, model.n_diffusion_steps
    actor_row = 2 * ((s + a + 32) * h + 2 * h * h + h * a)
    critic_row = 2 * ((s + a) * h + 2 * h * h + h)
    sampling = b * n * steps * actor_row
    target = b * n * members * critic_row
    critic = 3 * b * members * critic_row - 2 * b * members * (s + a) * h
    normalizer, guidance = b * members * critic_row, 2 * b * members * critic_row
    actor = 3 * b * actor_row - 2 * b * (s + a) * h
    dual = b * actor_row if model.eta_lr > 0 else 0
    return float(sampling + target + critic + normalizer + guidance + actor + dual)


def qdq_flops(model: Any, batch_size: int) -> float:
    """
    Floating-point operations of one QDQ update with the ``q_bc`` objective: matrix products only, a multiply-add counts 2. The
    consistency model's first layer takes (s, a) once for all n samples; the actor's update counts by its share of the updates.

    :return: number of operations, e.g. 4.23e9 for hopper at the paper's setting
    """

    def row(widths: list[int]) -> int:
        return 2 * sum(i * o for i, o in itertools.pairwise(widths))

    s, a, b, n = model.policy.state_dim, model.policy.action_dim, batch_size, model.n_q_samples
    actor_widths = [s, *(layer.out_features for layer in model.actor.net if isinstance(layer, th.nn.Linear))]
    ensemble = [layer for layer in model.critic.modules() if isinstance(layer, EnsembleLinear)]
    critic_widths = [s + a, *(layer.weight.shape[2] for layer in ensemble)]
    q_widths = model.policy.q_sampler.model.network.net_arch
    actor_row, critic_row, members = row(actor_widths), row(critic_widths), 2
    sampling = b * (row([s + a, q_widths[0]]) + n * row([1, *q_widths, 1])) if model.penalty != "none" else 0
    target = b * (actor_row + members * critic_row)
    critic = b * members * (3 * critic_row - row(critic_widths[:2]))
    actor = b * (3 * actor_row - row(actor_widths[:2]) + 2 * members * critic_row)
    return float(sampling + target + critic + actor / model.policy_delay)


def cped_flops(model: Any, batch_size: int) -> float:
    """
    Floating-point operations of one CPED update in which all parts learn: matrix products only, a multiply-add counts 2. The
    actor's step counts by its share of the updates; it takes the density forward and backward at its own actions and, where ε
    is the batch's mean, forward at the data's.

    :return: number of operations, e.g. 0.64e9 for hopper at the defaults
    """
    actor, density, b, members = linear_row(model.actor), linear_row(model.policy.density), batch_size, 2
    first_actor = linear_row(next(layer for layer in model.actor.net if isinstance(layer, th.nn.Linear)))
    layers = [layer.weight.shape[1:] for layer in model.critic.modules() if isinstance(layer, EnsembleLinear)]
    critic, first_critic = 2 * sum(i * o for i, o in layers), 2 * layers[0][0] * layers[0][1]
    target = b * (actor + members * critic)
    critics = b * members * (3 * critic - first_critic)
    of_batch = 1 if model.epsilon == "batch_mean" else 0
    constraint = b * (2 + of_batch) * density if model.constrained else 0
    actor_step = b * (3 * actor - first_actor + 2 * members * critic) + constraint
    return float(target + critics + actor_step / model.policy_delay)


COST_MODELS: dict[str, Callable[[Any, int], float]] = {
    **{"dac": dac_flops, "qdq": qdq_flops, "cped": cped_flops},
    **{"bcq": bcq_flops, "bear": bear_flops, "plas": plas_flops},
}
