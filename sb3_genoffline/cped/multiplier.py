"""The multiplier α of the behaviour constraint, and what its threshold ε may be (CPED, section 4; released codes)."""

from collections.abc import Sequence
from typing import Literal, get_args

from sb3_genoffline.errors import UserError

AlphaMode = Literal["dual", "schedule", "fixed"]
Constraint = Literal["nll", "distance"]
Epsilon = Literal["batch_mean", "quantile"]

# α from an update on, counted from the start of the policy's training (the released code counts the flow's steps too, which
# turns α negative where those are not 500,000). Left out are two slips of the code, of one actor step each: α = 0 at update
# 500,000 (mujoco), and 0.5 at update 0 (antmaze).
SCHEDULES: dict[str, tuple[tuple[int, float], ...]] = {
    "mujoco": ((0, 1000.0), (100_001, 10.0), (200_000, 7.5), (300_000, 5.0), (400_000, 2.5), (500_001, 1.5)),
    "antmaze": ((0, 0.25), (200_001, 0.1), (500_001, 0.08)),
}


def scheduled_alpha(schedule: str | Sequence[Sequence[float]], update: int) -> float:
    """
    :param schedule: name in :data:`SCHEDULES`, or pairs (first update, α)
    :param update: gradient steps of the policy's training done
    :return: α ≥ 0
    """
    steps = SCHEDULES[schedule] if isinstance(schedule, str) else schedule
    return next(alpha for start, alpha in reversed(steps) if update >= start)


def check_schedule(schedule: str | Sequence[Sequence[float]]) -> None:
    """:raises ValueError: for an unknown name, updates that do not start at 0 and rise, or a negative α"""
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise UserError(
                f"alpha_schedule={schedule!r} is not known; use one of {', '.join(map(repr, SCHEDULES))}, or pairs "
                "(update, alpha)."
            )
        return
    pairs = [tuple(pair) for pair in schedule]
    starts = [pair[0] for pair in pairs]
    if not pairs or any(len(pair) != 2 for pair in pairs) or starts[0] != 0 or starts != sorted(set(starts)):
        raise UserError(f"alpha_schedule={schedule!r} must be pairs (update, alpha) with rising updates, the first 0.")
    if min(pair[1] for pair in pairs) < 0:
        raise UserError(f"alpha_schedule={schedule!r} has a negative alpha, which would push actions off the data.")


def check_epsilon(epsilon: str | float, constraint: Constraint, dual: bool, joint: bool) -> None:
    """:raises ValueError: if ε is neither a number nor a known mode, ranks states as well as actions, or is of no distance"""
    if constraint == "distance":
        if dual and isinstance(epsilon, str):
            raise UserError(
                f"epsilon={epsilon!r} is an NLL, and constraint='distance' has none: use epsilon=<number>, the mean distance "
                "that is allowed, or alpha_mode='fixed'."
            )
        return
    if isinstance(epsilon, str) and epsilon not in get_args(Epsilon):
        raise UserError(f"epsilon={epsilon!r} is not known; use 'batch_mean', 'quantile' or a number (nats).")
    if epsilon != "batch_mean" and joint:
        raise UserError(
            f"epsilon={epsilon!r} compares all states with one threshold, and flow='nice' models p(s, a), which makes rare "
            "states look unsafe whatever the action: use epsilon='batch_mean', or flow='spline'."
        )
