"""``genoffline/Glucose-v0``: insulin every half hour for patients with type 1 diabetes who eat."""

from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_genoffline.envs.physiology import Bodies
from sb3_genoffline.errors import UserError

STEP = 30  # min
DAYS = 5  # for which meals are served
COLUMNS = ("glucose", "glucose_before", "carbs", "carbs_active", "insulin_active", "hour", "weight", "daily_dose")
LOW = np.array([0, 0, 0, 0, 0, 0, 20, 0], dtype=np.float32)
HIGH = np.array([60, 60, 300, 600, 100, 24, 250, 300], dtype=np.float32)
MAX_DOSE = 5.0  # U
TOO_LOW, TOO_HIGH = 2.2, 30.0  # mmol/L, beyond which intensive care takes over
INTENSIVE_CARE = -20.0
SENSOR_NOISE = 0.04  # standard deviation, as a share
CARBS_LEFT, INSULIN_LEFT = 0.6, 0.8  # a half hour later, as a pump reckons; it knows no person's own times
MEALS = ((7.5, 45.0), (12.5, 65.0), (18.5, 70.0))  # hour, g
SNACK = (21.5, 20.0, 0.4)  # hour, g, and how often


def reward(glucose: np.ndarray) -> np.ndarray:
    """
    1 − r/25 with the risk r of Kovatchev et al., "Symmetrization of the blood glucose measurement scale and its applications",
    Diabetes Care 20 (1997) 1655-1658: 1 at 6.2 mmol/L, 0 at about 2.6 and 14.4, and negative beyond.

    :param glucose: mmol/L
    """
    return np.asarray(1.0 - 10.0 / 25.0 * (1.794 * (np.log(glucose) ** 1.026 - 1.861)) ** 2)


class Ward:
    """
    n patients side by side, each with constants, meals and a sensor of their own.

    :param n: patients
    :param rng: of all that is drawn
    """

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.n, self.rng = n, rng
        self.bodies = Bodies.draw(n, rng)
        self.states, basal = self.bodies.fasting()
        self.daily_dose = 2.0 * basal * 24 * 60 / 1000 * rng.lognormal(0.0, 0.1, n)  # as prescribed: half of it basal
        self.states[:2] *= rng.uniform(5.0, 16.0, n) / self.bodies.glucose(self.states)
        self.clock = rng.integers(0, 48, n)  # half hours since midnight
        self.meals = self._meals()
        self.insulin_active, self.carbs_active = np.zeros(n), np.zeros(n)
        self.reading = self.before = self._measure()

    def _meals(self) -> np.ndarray:
        """(n, steps) g, by half hours from midnight of the first day."""
        served = np.zeros((self.n, 48 * (DAYS + 2)))
        everyone = np.arange(self.n)
        for day in range(DAYS + 1):
            for hour, grams in MEALS:
                at = 48 * day + np.round(2 * hour + self.rng.normal(0, 1.0, self.n)).astype(int)
                served[everyone, at] += np.clip(grams * self.rng.lognormal(0, 0.3, self.n), 10, 150)
            hour, grams, share = SNACK
            served[:, int(48 * day + 2 * hour)] += grams * (self.rng.random(self.n) < share)
        return served.round()

    def _measure(self) -> np.ndarray:
        noise = 1.0 + SENSOR_NOISE * self.rng.standard_normal(self.n)
        return np.clip(self.bodies.glucose(self.states) * noise, 1.2, 60.0).round(1)

    @property
    def carbs(self) -> np.ndarray:
        """(n,) g on the plate, eaten now."""
        return self.meals[np.arange(self.n), self.clock]

    def observe(self) -> np.ndarray:
        """float32 (n, 8), the :data:`COLUMNS`."""
        hour = self.clock % 48 / 2
        columns = (self.reading, self.before, self.carbs, self.carbs_active, self.insulin_active)
        seen = np.stack([*columns, hour, self.bodies.weight, self.daily_dose], axis=1).astype(np.float32)
        return np.clip(seen, LOW, HIGH)

    def step(self, doses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Half an hour.

        :param doses: (n,) U, given evenly
        :return: rewards (n,), and who came into intensive care, bool (n,)
        :raises UserError: for a dose that is not finite
        """
        wrong = np.flatnonzero(~np.isfinite(doses))
        if len(wrong):
            raise UserError(f"doses[{wrong[0]}] is {doses[wrong[0]]}: a dose must be a finite number of units.")
        doses = np.clip(doses, 0.0, MAX_DOSE)
        self.carbs_active = CARBS_LEFT * (self.carbs_active + self.carbs)
        self.insulin_active = INSULIN_LEFT * (self.insulin_active + doses)
        self.states = self.bodies.advance(self.bodies.eat(self.states, self.carbs), 1000.0 * doses / STEP, STEP)
        self.clock = self.clock + 1
        self.before, self.reading = self.reading, self._measure()
        glucose = self.bodies.glucose(self.states)
        ended = (glucose < TOO_LOW) | (glucose > TOO_HIGH)
        return np.where(ended, INTENSIVE_CARE, reward(self.reading)), ended


class Glucose(gym.Env[np.ndarray, np.ndarray]):
    """
    One patient with type 1 diabetes for at most two days; a new one at each reset.

    - Observation, float32 (8,): sensor's glucose now and half an hour before (mmol/L), carbohydrate on the plate (g), what is
      not yet digested (g) and what insulin still acts (U), both as a pump reckons, hour of the day, weight (kg), and the
      insulin of a day (U) that was prescribed.
    - Action, (1,) in [0, 5]: insulin (U) under the skin, evenly over the next half hour.
    - Reward: :func:`reward` of the next reading; −20 where glucose falls below 2.2 or climbs above 30 mmol/L, which ends the
      episode (intensive care).

    The body is Hovorka's (2004), see :mod:`sb3_genoffline.envs.physiology`, integrated by Euler's rule in steps of one minute.
    Persons, meals and the sensor's noise of 4% are drawn as we chose. How sensitive a person is to insulin is not observed;
    the prescribed dose is a hint. A simulator for examples, and no medical device.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self) -> None:
        self.observation_space = spaces.Box(LOW, HIGH)
        self.action_space = spaces.Box(0.0, MAX_DOSE, (1,))
        self._ward: Ward | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Another patient."""
        super().reset(seed=seed)
        self._ward = Ward(1, self.np_random)
        return self._ward.observe()[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Half an hour."""
        assert self._ward is not None, "call reset first"
        rewards, ended = self._ward.step(np.asarray(action, dtype=np.float64).reshape(1))
        glucose = float(self._ward.bodies.glucose(self._ward.states)[0])
        return self._ward.observe()[0], float(rewards[0]), bool(ended[0]), False, {"glucose": glucose}


class Doctor(Protocol):
    """Whoever decides on doses: an agent, or a rule with ``predict``."""

    def predict(self, observation: np.ndarray, deterministic: bool = ...) -> tuple[np.ndarray, Any]:
        """(n, 8) -> (n, 1) U"""
        ...


@dataclass(frozen=True, eq=False)
class Stays:
    """
    What happened to n patients in T steps.

    :param observations: (T, n, 8)
    :param doses: (T, n) U
    :param rewards: (T, n)
    :param ended: bool (T, n), the steps that led into intensive care
    :param present: bool (T, n), the steps before and those
    :param glucose: (T, n) mmol/L after each step, in truth
    """

    observations: np.ndarray
    doses: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray
    present: np.ndarray
    glucose: np.ndarray

    def value(self, gamma: float) -> float:
        """Mean over patients of Σ_t γ^t·r_t."""
        discounts = gamma ** np.arange(len(self.rewards))[:, None]
        return float((discounts * np.where(self.present, self.rewards, 0.0)).sum(0).mean())

    def summary(self, gamma: float) -> dict[str, float]:
        """``value``; shares of the time within 3.9 to 10 mmol/L, below and above; share of patients in intensive care."""
        glucose = self.glucose[self.present]
        return {
            "value": self.value(gamma),
            "in_range": float(((glucose >= 3.9) & (glucose <= 10.0)).mean()),
            "low": float((glucose < 3.9).mean()),
            "high": float((glucose > 10.0).mean()),
            "intensive_care": float(self.ended.any(0).mean()),
        }


def play(doctor: Doctor, n_patients: int = 300, n_steps: int = 192, seed: int = 0) -> Stays:
    """
    Let someone treat patients; the same seed gives the same patients with the same meals.

    :param doctor: an agent, or a rule with ``predict``
    :param n_patients: n, new ones
    :param n_steps: T half hours, at most five days
    :param seed: of patients, meals and sensors
    :raises UserError: for no patients, or steps without meals
    """
    if n_patients < 1 or not 1 <= n_steps <= 48 * DAYS:
        raise UserError(f"n_patients={n_patients} must be at least 1, and n_steps={n_steps} between 1 and {48 * DAYS}.")
    ward = Ward(n_patients, np.random.default_rng(seed))
    steps = []
    here = np.ones(n_patients, dtype=bool)
    policy: Any = getattr(doctor, "policy", doctor)
    memory: dict[str, Any] = {}
    for _ in range(n_steps):
        seen = ward.observe()
        said, state = doctor.predict(seen, deterministic=True, **memory)
        doses = np.clip(np.asarray(said, dtype=np.float64).reshape(-1), 0, MAX_DOSE)
        rewards, ended = ward.step(doses)
        if getattr(policy, "has_memory", False):
            policy.observe_rewards(state, rewards)
            memory = {"state": state}
        steps.append((seen, doses, rewards, ended & here, here, ward.bodies.glucose(ward.states)))
        here = here & ~ended
    return Stays(*(np.stack(column) for column in zip(*steps, strict=True)))
