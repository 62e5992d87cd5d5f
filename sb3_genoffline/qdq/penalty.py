"""The set of uncertain actions, and what their target values are multiplied with (QDQ, section 4.2; Eq. 8)."""

from typing import Literal

import torch as th
from torch import Tensor

Penalty = Literal["paper", "antmaze_awr", "antmaze_q", "floor", "none"]
_SMALLEST_H = 1e-6  # 1/H stays finite


def uncertain_actions(h: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """
    U = {b : H_b > h*}, h* the empirical β-quantile (linear interpolation) of this batch.

    :param h: (B,) uncertainties
    :param beta: β
    :return: (B,) bool, and the scalar h*
    """
    threshold = th.quantile(h, beta)
    return h > threshold, threshold


def penalty_weight(penalty: Penalty, h: Tensor, uncertain: Tensor, beta: float) -> Tensor:
    """
    The multiplier w of the target values.

    ============  =================  ===========
    penalty       in U               outside U
    ============  =================  ===========
    paper         1/H                β
    antmaze_awr   1 + 0.1·(1 − 1/H)  1
    antmaze_q     1/H                1
    floor         min(1/H, β)        β
    none          1                  1
    ============  =================  ===========

    :param penalty: mode
    :param h: (B,) uncertainties H
    :param uncertain: (B,) bool, U
    :param beta: β
    :return: (B,)
    """
    inverse = 1.0 / h.clamp_min(_SMALLEST_H)
    if penalty == "paper":
        return th.where(uncertain, inverse, beta)
    if penalty == "antmaze_awr":
        return th.where(uncertain, 1.0 + 0.1 * (1.0 - inverse), 1.0)
    if penalty == "antmaze_q":
        return th.where(uncertain, inverse, 1.0)
    if penalty == "floor":
        return th.where(uncertain, inverse.clamp_max(beta), beta)
    return th.ones_like(h)


def penalized_value(penalty: Penalty, q: Tensor, weight: Tensor, q_floor: float = 0.0) -> Tensor:
    """
    Q_L = w·Q; with ``floor``, Q_L = q_floor + w·(max(Q, q_floor) − q_floor), which is pessimistic for every Q above the floor
    whatever its sign.

    :param penalty: mode
    :param q: (B,)
    :param weight: (B,) w
    :param q_floor: smallest value possible; only ``floor`` uses it
    :return: (B,)
    """
    if penalty == "floor":
        return q_floor + weight * (q.clamp_min(q_floor) - q_floor)
    return weight * q
