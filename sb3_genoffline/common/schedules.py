"""Learning-rate schedules that survive a save without a pickle."""

import math
from typing import Any

from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from sb3_genoffline.errors import UserError


def cosine_decay(update: int, horizon: int | None) -> float:
    """
    Factor ``½(1 + cos(π·min(k, K)/K))`` on the learning rate of update k.

    :param update: k, the number of updates already done
    :param horizon: K; None leaves the rate constant
    """
    if horizon is None:
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * min(update, horizon) / horizon))


def warm_up(update: int, horizon: int) -> float:
    """
    Factor min((k + 1)/K, 1) on the learning rate of update k.

    :param update: k, the number of updates already done
    :param horizon: K; 0 leaves the rate as it is
    """
    return min((update + 1) / horizon, 1.0) if horizon else 1.0


def is_storable_schedule(schedule: Any) -> bool:
    """Whether :func:`schedule_to_json` can store it."""
    if type(schedule) is FloatSchedule:
        return is_storable_schedule(schedule.value_schedule)
    return type(schedule) in (ConstantSchedule, LinearSchedule) or isinstance(schedule, int | float)


def numbers_of(schedule: Any) -> list[Any]:
    """What a storable schedule is made of."""
    if type(schedule) is FloatSchedule:
        return numbers_of(schedule.value_schedule)
    if type(schedule) is LinearSchedule:
        return [schedule.start, schedule.end, schedule.end_fraction]
    return [schedule.val if type(schedule) is ConstantSchedule else schedule]


def schedule_to_json(schedule: float | Schedule) -> Any:
    """
    :param schedule: a number, or one of SB3's schedule classes
    :return: plain data for :func:`schedule_from_json`
    :raises ValueError: for any other callable: its code can't be stored without a pickle
    """
    if isinstance(schedule, FloatSchedule):
        return schedule_to_json(schedule.value_schedule)
    if isinstance(schedule, ConstantSchedule):
        return float(schedule.val)
    if isinstance(schedule, LinearSchedule):
        return {"linear": [float(value) for value in numbers_of(schedule)]}
    if isinstance(schedule, int | float):
        return float(schedule)
    raise UserError(
        f"The learning-rate schedule {schedule!r} is a function, which can't be saved without a pickle: use a number, "
        "stable_baselines3.common.utils.LinearSchedule, or `lr_decay_steps` for the paper's cosine."
    )


def schedule_from_json(data: Any) -> float | Schedule:
    """Inverse of :func:`schedule_to_json`."""
    if isinstance(data, dict):
        return LinearSchedule(*(float(value) for value in data["linear"]))
    return float(data)
