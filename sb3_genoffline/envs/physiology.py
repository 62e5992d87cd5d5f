"""
Glucose and insulin in people with type 1 diabetes: the model of Hovorka et al., "Nonlinear model predictive control of glucose
concentration in subjects with type 1 diabetes", Physiological Measurement 25 (2004) 905-920, with its mean constants. Time is
in minutes, glucose in mmol and mmol/L, insulin in mU and mU/L.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

K12 = 0.066  # 1/min, from the tissues back to the blood
KA = np.array([[0.006], [0.06], [0.03]])  # 1/min, deactivation of insulin's effects on transport, disposal and production
SENSITIVITIES = np.array([[51.2e-4], [8.2e-4], [520e-4]])  # per mU/L: S_IT, S_ID (1/min each) and S_IE
EGP0 = 0.0161  # mmol/kg/min, the liver's production without insulin
F01 = 0.0097  # mmol/kg/min, consumption that needs no insulin
VG, VI = 0.16, 0.12  # L/kg, volumes of glucose and insulin
KE = 0.138  # 1/min, elimination of insulin
T_INSULIN, T_MEAL = 55.0, 40.0  # min, to the peaks of absorption
CARBS_ABSORBED = 0.8
MMOL_PER_GRAM = 1000.0 / 180.16
RENAL_THRESHOLD, RENAL_RATE = 9.0, 0.003  # mmol/L and 1/min


@dataclass(frozen=True, eq=False)
class Bodies:
    """
    Constants of n persons.

    :param weight: (n,) kg
    :param sensitivity: (3, n) S_IT, S_ID and S_IE
    :param insulin_time: (n,) min, to the peak of insulin's absorption
    :param meal_time: (n,) min, to the peak of a meal's
    """

    weight: np.ndarray
    sensitivity: np.ndarray
    insulin_time: np.ndarray
    meal_time: np.ndarray

    @classmethod
    def draw(cls, n: int, rng: np.random.Generator) -> "Bodies":
        """
        Persons around the mean one. The spread is ours: a common factor of sensitivity with 20% and one of each effect with
        10%, times to the peaks with 10% and 15%.
        """
        common = rng.lognormal(0.0, 0.2, n)
        sensitivity = SENSITIVITIES * common * rng.lognormal(0.0, 0.1, (3, n))
        weight = np.clip(rng.normal(75.0, 12.0, n), 45.0, 120.0)
        return cls(weight, sensitivity, T_INSULIN * rng.lognormal(0.0, 0.1, n), T_MEAL * rng.lognormal(0.0, 0.15, n))

    def glucose(self, states: np.ndarray) -> np.ndarray:
        """(10, n) -> (n,) mmol/L"""
        return np.asarray(states[0] / (VG * self.weight))

    def rates(self, states: np.ndarray, insulin: Any) -> np.ndarray:
        """
        dx/dt, (10, n).

        :param states: (10, n): Q1, Q2, S1, S2, I, x1, x2, x3, D1, D2
        :param insulin: (n,) mU/min under the skin
        """
        q1, q2, s1, s2, plasma, x1, x2, x3, d1, d2 = states
        glucose = self.glucose(states)
        used = F01 * np.minimum(glucose / 4.5, 1.0)
        excreted = RENAL_RATE * VG * np.maximum(glucose - RENAL_THRESHOLD, 0.0)
        made = EGP0 * np.maximum(1.0 - x3, 0.0)
        moved, absorbed, digested = x1 * q1, s2 / self.insulin_time, d2 / self.meal_time
        rates = np.empty_like(states)
        rates[0] = digested + self.weight * (made - used - excreted) - moved + K12 * q2
        rates[1] = moved - (K12 + x2) * q2
        rates[2] = insulin - s1 / self.insulin_time
        rates[3] = s1 / self.insulin_time - absorbed
        rates[4] = absorbed / (VI * self.weight) - KE * plasma
        rates[5:8] = KA * (self.sensitivity * plasma - states[5:8])
        rates[8] = -d1 / self.meal_time
        rates[9] = d1 / self.meal_time - digested
        return rates

    def advance(self, states: np.ndarray, insulin: Any, minutes: int) -> np.ndarray:
        """
        By Euler's rule in steps of one minute.

        :param states: (10, n)
        :param insulin: (n,) mU/min
        :param minutes: how far
        """
        for _ in range(minutes):
            states = states + self.rates(states, insulin)
        return states

    def eat(self, states: np.ndarray, carbs: np.ndarray) -> np.ndarray:
        """(n,) g of carbohydrate come into the stomach."""
        states = states.copy()
        states[8] += CARBS_ABSORBED * MMOL_PER_GRAM * carbs
        return states

    def fasting(self, glucose: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
        """
        The state that does not change, and what keeps it.

        :param glucose: mmol/L
        :return: states (10, n) and insulin (n,) in mU/min
        """
        q1 = np.full(len(self.weight), glucose) * VG * self.weight
        low, high = np.zeros_like(q1), np.full_like(q1, 100.0)
        for _ in range(60):  # bisection: more insulin, less glucose
            plasma = (low + high) / 2
            states = self._resting(q1, plasma)
            rises = self.rates(states, KE * VI * self.weight * plasma)[0] > 0
            low, high = np.where(rises, plasma, low), np.where(rises, high, plasma)
        return states, np.asarray(KE * VI * self.weight * plasma)

    def _resting(self, q1: np.ndarray, plasma: np.ndarray) -> np.ndarray:
        """All but Q1 at rest."""
        x1, x2, x3 = self.sensitivity * plasma
        depot = KE * VI * self.weight * plasma * self.insulin_time
        nothing = np.zeros_like(q1)
        return np.stack([q1, x1 * q1 / (K12 + x2), depot, depot, plasma, x1, x2, x3, nothing, nothing])
