"""
The convex losses f of u = Q − V whose minimum is IDQL's V, and the actor that each implies (IDQL, section 4.1): V makes the
mean of f'(u) over the behaviour zero, and so is the value of the behaviour reweighted by w = |f'(u)|/|u|.
"""

from typing import Literal

import torch as th
from torch import Tensor

from sb3_genoffline.common.in_sample import expectile_loss

Objective = Literal["expectile", "quantile", "exponential"]

_LARGEST_EXPONENT = 10.0
_NEAR_ZERO = 1e-6


def convex_loss(difference: Tensor, objective: Objective, tau: float, alpha: float) -> Tensor:
    """
    f(u): |τ − 1(u < 0)|·u² (expectile), |τ − 1(u < 0)|·|u| (quantile) or exp(α·u) − α·u − 1 (exponential). Where α·u
    exceeds 10 the exponential goes on as a straight line, so that no float overflows.

    :param difference: u
    :param objective: which of them
    :param tau: τ of the expectile and the quantile
    :param alpha: α of the exponential
    :return: as ``difference``
    """
    if objective == "expectile":
        return expectile_loss(difference, tau)
    if objective == "quantile":
        return th.where(difference < 0, 1.0 - tau, tau) * difference.abs()
    exponent = alpha * difference
    bounded = exponent.clamp_max(_LARGEST_EXPONENT)
    return bounded.exp() * (1.0 + exponent - bounded) - exponent - 1.0


def implicit_weights(difference: Tensor, objective: Objective, tau: float, alpha: float) -> Tensor:
    """
    w(u) = |f'(u)|/|u|, up to a factor that all have in common; |u| counts as at least 1e-6.

    :param difference: u
    :param objective: see :func:`convex_loss`
    :param tau: see :func:`convex_loss`
    :param alpha: see :func:`convex_loss`
    :return: as ``difference``, positive
    """
    sided = th.where(difference > 0, tau, 1.0 - tau)
    if objective == "expectile":
        return sided
    size = difference.abs().clamp_min(_NEAR_ZERO)
    if objective == "quantile":
        return sided / size
    signed = th.where(difference < 0, -size, size)
    return th.expm1((alpha * signed).clamp_max(_LARGEST_EXPONENT)).abs() / size
