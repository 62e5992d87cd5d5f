"""Losses and weights of methods that judge the data's actions alone: expectiles, and exponential advantage weights."""

import torch as th
from torch import Tensor


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """
    L_τ(u) = |τ − 1(u < 0)|·u² (IQL, section 4.1); its minimum over V of E[L_τ(x − V)] is the τ-expectile of x.

    :param difference: u
    :param expectile: τ
    :return: as ``difference``
    """
    return th.where(difference < 0, 1.0 - expectile, expectile) * difference.square()


def exponential_weights(advantages: Tensor, temperature: float, largest: float) -> Tensor:
    """
    min(exp(β·A), largest): what a row's log-likelihood counts in advantage-weighted regression.

    :param advantages: A, (B,)
    :param temperature: β
    :param largest: upper bound
    :return: (B,)
    """
    return (temperature * advantages).exp().clamp_max(largest)
