"""Noise schedules of diffusion models, and the constants that follow from them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from sb3_genoffline.errors import UserError

BetaSchedule = Literal["vp", "linear", "cosine"]
ReverseVariance = Literal["beta", "posterior"]


def beta_schedule(name: BetaSchedule, n_steps: int) -> np.ndarray:
    """
    The noise variances β_1..β_T.

    - ``"vp"``: the variance-preserving SDE with β from 0.1 to 10, ``α_t = exp(−0.1/T − ½·9.9·(2t − 1)/T²)``
    - ``"linear"``: evenly spaced from 1e-4 to 2e-2 (Ho et al. 2020)
    - ``"cosine"``: Nichol & Dhariwal 2021, s = 0.008

    :param name: one of the above
    :param n_steps: T
    :return: float64 array of shape (T,)
    """
    t = np.arange(1, n_steps + 1, dtype=np.float64)
    if name == "vp":
        b_min, b_max = 0.1, 10.0
        return 1.0 - np.exp(-b_min / n_steps - 0.5 * (b_max - b_min) * (2 * t - 1) / n_steps**2)
    if name == "linear":
        return np.linspace(1e-4, 2e-2, n_steps)
    if name == "cosine":
        f = np.cos((np.arange(n_steps + 1) / n_steps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.asarray(np.clip(1.0 - f[1:] / f[:-1], 0.0, 0.999))
    raise UserError(f"beta_schedule={name!r} is not known; use 'vp', 'linear' or 'cosine'.")


@dataclass(frozen=True)
class NoiseSchedule:
    """
    The constants of a diffusion process, as float64 arrays of length T + 1 with β_0 = 0.

    :param betas: β_t, the variance added at step t
    :param variance: of the reverse step's noise: ``"beta"``, β_t (as the DAC reference), or ``"posterior"``,
        β_t·(1 − ᾱ_{t−1})/(1 − ᾱ_t)
    """

    betas: np.ndarray
    variance: ReverseVariance = "beta"

    @classmethod
    def make(cls, name: BetaSchedule, n_steps: int, variance: ReverseVariance = "beta") -> "NoiseSchedule":
        """:param name: see :func:`beta_schedule`
        :param n_steps: T, at least 1
        :param variance: of the reverse step's noise
        """
        if n_steps < 1:
            raise UserError(f"n_diffusion_steps={n_steps} must be at least 1.")
        return cls(np.concatenate([[0.0], beta_schedule(name, n_steps)]), variance)

    @property
    def n_steps(self) -> int:
        """T"""
        return len(self.betas) - 1

    @cached_property
    def alphas(self) -> np.ndarray:
        """α_t = 1 − β_t"""
        return 1.0 - self.betas

    @cached_property
    def alpha_bars(self) -> np.ndarray:
        """ᾱ_t = Π_{k ≤ t} α_k"""
        return np.cumprod(self.alphas)

    @cached_property
    def sigmas(self) -> np.ndarray:
        """σ_t = √(1 − ᾱ_t)"""
        return np.sqrt(1.0 - self.alpha_bars)

    @cached_property
    def clean_coefficients(self) -> np.ndarray:
        """Weight of x̂0 in the posterior mean of x_{t−1}; entry 0 is unused."""
        previous = np.concatenate([[1.0], self.alpha_bars[:-1]])
        return np.asarray(np.sqrt(previous) * self.betas / np.maximum(1.0 - self.alpha_bars, 1e-300))

    @cached_property
    def noisy_coefficients(self) -> np.ndarray:
        """Weight of x_t in the posterior mean of x_{t−1}; entry 0 is unused."""
        previous = np.concatenate([[1.0], self.alpha_bars[:-1]])
        return np.asarray(np.sqrt(self.alphas) * (1.0 - previous) / np.maximum(1.0 - self.alpha_bars, 1e-300))

    @cached_property
    def reverse_variances(self) -> np.ndarray:
        """Variance of the noise added in going from x_t to x_{t−1}; entries 0 and 1 are unused."""
        if self.variance == "beta":
            return self.betas
        previous = np.concatenate([[1.0], self.alpha_bars[:-1]])
        return self.betas * (1.0 - previous) / np.maximum(1.0 - self.alpha_bars, 1e-300)
