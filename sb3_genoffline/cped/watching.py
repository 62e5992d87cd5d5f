"""What CPED notices in its metrics while it trains."""

import math
from typing import Any

from sb3_genoffline.errors import DivergedError
from sb3_genoffline.program import PROGRAM

LARGEST_LOSS = 1e7
"""A step whose loss is beyond this is left out."""
_MUCH_LIKELIER = 1.0  # nats
_MOST_SKIPS = 100


def watch(agent: Any, metrics: dict[str, float]) -> None:
    """
    Exploding critics, steps that were skipped, and an actor that the likelihood has run away with.

    :param agent: CPED
    :param metrics: means by name, just read
    :raises DivergedError: for the first two
    """
    largest = max(abs(metrics.get("q_min", 0.0)), abs(metrics.get("q_max", 0.0)))
    if agent.max_abs_q is not None and largest > agent.max_abs_q:
        raise DivergedError(
            f"|Q| has reached {largest:.3g} at update {agent._n_updates}, beyond max_abs_q={agent.max_abs_q:g}: the critics "
            f"explode. {agent.overestimation_hint()} If such values are right for these rewards, raise max_abs_q."
        )
    critics, actor = agent.skipped_in_a_row.tolist()
    if max(critics, actor) >= _MOST_SKIPS:
        raise DivergedError(
            f"The last {int(max(critics, actor))} steps of the {'critics' if critics > actor else 'actor'} before update "
            f"{agent._n_updates} were skipped because their loss was not finite or beyond {LARGEST_LOSS:g}: diverged. "
            "Lower the learning rates, scale the rewards down (reward_transform), or use another flow."
        )
    if metrics.get("skipped", 0.0) > 0:
        agent.monitor.warn_once(
            "skipped",
            f"{int(agent.skipped.item())} steps were skipped up to update {agent._n_updates} because a loss was not finite "
            f"or beyond {LARGEST_LOSS:g}; train/skipped counts them.",
        )
    gap = metrics.get("epsilon", 0.0) - metrics.get("nll_pi", math.inf)
    if gap > _MUCH_LIKELIER and agent._n_updates > agent.q_start:
        agent.monitor.warn_once(
            "likelier",
            f"At update {agent._n_updates} the actor's actions are {gap:.1f} nats likelier than the data's (NLL "
            f"{metrics['nll_pi']:.2f}, epsilon {metrics['epsilon']:.2f}), and {metrics['bound_share']:.0%} of their "
            "components lie at the bounds. Where many do, it has run into a spike that the likelihood has there, as on "
            f"data with clipped noise (`{PROGRAM} inspect` tells): use constraint='distance', or an algorithm that averages "
            "the noise away, such as TD3BC; more dequantization, such as 0.1, was not enough for us. Where few do, the "
            "constraint holds it to the density's modes: use a smaller alpha.",
        )
