"""What an update of CPED decides by the updates before it."""

from typing import Any, NamedTuple

from sb3_genoffline.cped.multiplier import scheduled_alpha


class CPEDPhase(NamedTuple):
    """
    What an update decides by the updates before it.

    :param density: whether the density takes a step
    :param flow: whether that is one of its flow, too, and not of the discriminator alone
    :param critics: whether the critics take one
    :param targets: whether the targets move
    :param actor: whether the actor moves with them
    :param with_q: whether Q enters its loss
    :param alpha: α of the schedule, if there is one
    """

    density: bool
    flow: bool
    critics: bool
    targets: bool
    actor: bool
    with_q: bool
    alpha: float | None


def phase_of(agent: Any) -> CPEDPhase:
    """:param agent: before its update"""
    t = agent._n_updates
    density = t < agent.flow_joint_steps and agent.uses_fitted_model()
    return CPEDPhase(
        density=density,
        flow=density and t % agent.n_critic_steps == 0,
        critics=t >= agent.critic_start,
        targets=t % agent.policy_delay == 0,
        actor=t >= agent.warmup_steps,
        with_q=t >= agent.q_start,
        alpha=scheduled_alpha(agent.alpha_schedule, t) if agent.alpha_mode == "schedule" else None,
    )
