"""Who treats the patients of the log: by the rules of thumb that pumps are set by, and not very well."""

from typing import Any

import numpy as np

from sb3_genoffline.envs.glucose import MAX_DOSE


class Clinician:
    """
    Basal insulin is 45% of the daily dose; a meal gets one unit for 500/(daily dose) g, each 100/(daily dose) mmol/L above
    the target one more (the "500" and "100" rules). What is wrong with it: carbohydrate is guessed, many meals are
    answered half an hour late or not at all, corrections are rare, careful, and blind to the insulin that is still acting, and
    every dose misses by 20%.

    :param rng: of the mistakes
    :param target: mmol/L
    """

    def __init__(self, rng: np.random.Generator, target: float = 8.0) -> None:
        self.rng, self.target = rng, target
        self._owed: np.ndarray | None = None

    def predict(self, observation: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, Any]:
        """(n, 8) -> (n, 1) U; patients are the same from call to call"""
        glucose, _, carbs, _, _, _, _, daily = observation.astype(np.float64).T
        n = len(glucose)
        owed = np.zeros(n) if self._owed is None else self._owed
        wanted = carbs * self.rng.uniform(0.3, 0.9, n) * daily / 500
        at_once = self.rng.random(n)
        self._owed = np.where((at_once > 0.5) & (at_once < 0.85), wanted, 0.0)
        meal = owed + np.where(at_once <= 0.5, wanted, 0.0)
        looked = self.rng.random(n) < np.where(glucose > 14, 0.3, 0.15)
        correction = looked * np.maximum(glucose - self.target, 0) * daily / 100 * self.rng.uniform(0.2, 0.5, n)
        basal = 0.45 * daily / 48 * self.rng.uniform(0.6, 1.4, n)
        doses = (basal + meal + correction) * self.rng.lognormal(0.0, 0.2, n)
        doses = np.where(glucose < 5.0, 0.2 * basal, doses)
        return np.clip(doses, 0.0, MAX_DOSE).round(2)[:, None], None
