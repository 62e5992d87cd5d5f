"""
DPM-Solver: the probability-flow ODE of a diffusion in a few evaluations of its noise prediction.

Lu et al., "DPM-Solver: a fast ODE solver for diffusion probabilistic model sampling in around 10 steps", NeurIPS 2022, in its
"singlestep" form. With λ = log(α/σ) the ODE's linear part is exact, and a step from s to t is an expansion in λ_t − λ_s.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from torch import Tensor

from sb3_genoffline.errors import UserError

ORDERS = (1, 2, 3)


@dataclass(frozen=True)
class ContinuousVP:
    """
    The variance-preserving diffusion in continuous time t in [0, 1], x_t = α_t·x_0 + σ_t·ε, with β rising linearly:
    log α_t = −¼t²(β_max − β_min) − ½t·β_min and σ_t² = 1 − α_t² (Song et al. 2021). The discrete ``"vp"`` schedule of
    :mod:`~sb3_genoffline.generative.schedules` with T steps has this α at t/T, with β_max = 10.

    :param beta_min: at t = 0
    :param beta_max: at t = 1
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _log_alpha(self, t: Any) -> Any:
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """
        :param t: any shape
        :return: α_t and σ_t, each of that shape
        """
        log_alpha: Tensor = self._log_alpha(t)
        return log_alpha.exp(), (-th.expm1(2.0 * log_alpha)).sqrt()

    def levels(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        :param times: any shape
        :return: α_t and σ_t, as :func:`dpm_solver` takes them
        """
        log_alphas: np.ndarray = self._log_alpha(times)
        return np.exp(log_alphas), np.sqrt(-np.expm1(2.0 * log_alphas))


def step_orders(n_steps: int, order: int) -> list[int]:
    """
    Orders of the steps that together need a given number of evaluations; the last ones are lower, where the ODE is stiff.

    :param n_steps: evaluations, at least 0
    :param order: largest order, 1 to 3
    """
    if order not in ORDERS:
        raise UserError(f"solver_order={order} must be 1, 2 or 3.")
    if order == 3 and n_steps > 0 and n_steps % 3 == 0:
        return [3] * (n_steps // 3 - 1) + [2, 1]
    rest = n_steps % order
    return [order] * (n_steps // order) + ([rest] if rest else [])


def dpm_solver(
    predict_noise: Callable[[Tensor, int], Tensor], alphas: np.ndarray, sigmas: np.ndarray, noise: Tensor, order: int = 3
) -> Tensor:
    """
    Solve from the first of K + 1 levels of noise to the last, with one evaluation at each but the last. Levels in the middle
    of a step of order 2 or 3 are its intermediate points.

    :param predict_noise: maps x at level k = 0..K − 1 and k to ε̂, of the same shape
    :param alphas: float64 (K + 1,), rising
    :param sigmas: float64 (K + 1,), falling; where the last one is 0, the last step is of order 1: it gives x̂0
    :param noise: x at level 0
    :param order: largest order of a step, 1 to 3
    :return: x at level K
    """
    n_steps = len(alphas) - 1
    if n_steps < 1:
        raise UserError("A solver needs at least one step.")
    ends_clean = sigmas[-1] == 0
    orders = [*step_orders(n_steps - 1, order), 1] if ends_clean else step_orders(n_steps, order)

    def width(s: int, t: int) -> float:
        """h = λ_t − λ_s"""
        return math.log(alphas[t] / alphas[s]) - math.log(sigmas[t] / sigmas[s])

    def slope(s: int, t: int) -> float:
        """σ_t(e^h − 1)"""
        return float(alphas[t] / alphas[s] * sigmas[s] - sigmas[t])

    def first(x: Tensor, eps: Tensor, s: int, t: int) -> Tensor:
        return float(alphas[t] / alphas[s]) * x - slope(s, t) * eps

    x, s = noise, 0
    for step in orders:
        t = s + step
        eps = predict_noise(x, s)
        moved = first(x, eps, s, t)
        if step > 1:
            h, middle = width(s, t), width(s, s + 1)
            bend = predict_noise(first(x, eps, s, s + 1), s + 1) - eps
            if step == 2:
                moved = moved - slope(s, t) * h / (2.0 * middle) * bend
            else:
                late = width(s, s + 2)
                curve = (late / middle) * (slope(s, s + 2) / late - float(sigmas[s + 2]))
                bend = predict_noise(first(x, eps, s, s + 2) - curve * bend, s + 2) - eps
                moved = moved - (slope(s, t) / h - float(sigmas[t])) * h / late * bend
        x, s = moved, t
    return x


__all__ = ["ORDERS", "ContinuousVP", "dpm_solver", "step_orders"]
