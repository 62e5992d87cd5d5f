"""How good estimates of policies' values are, where the truth is known: DOPE's figures (Fu et al. 2021) and SCOPE-RL's."""

from typing import Annotated, Any

import numpy as np

from sb3_genoffline.common.arguments import Bounds, Count, PositiveInt
from sb3_genoffline.common.checked_calls import checked
from sb3_genoffline.common.conforming import misfit
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short

Level = Annotated[float, Bounds(0.0, 1.0, open_low=True, open_high=True)]


def _vector(values: Any, name: str) -> np.ndarray:
    """:raises UserError: if they are no finite numbers, one at least, in one axis"""
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}={short(values)} must be numbers, one for each policy or run.") from error
    if vector.ndim == 1 and not np.isfinite(vector).all():
        at = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise UserError(f"{name} has {vector[at]} at {at}: give finite numbers, or leave that one out.")
    return vector


def _paired(estimates: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    estimates, truth = _vector(estimates, "estimates"), _vector(truth, "truth")
    if estimates.shape != truth.shape or estimates.ndim != 1 or len(truth) == 0:
        raise UserError(f"estimates {estimates.shape} and truth {truth.shape} must be vectors of one length.")
    return estimates, truth


def _best(estimates: np.ndarray, k: int) -> np.ndarray:
    """The k policies that are estimated best; of equals those that come first."""
    if misfit(k, PositiveInt) is not None:
        raise UserError(f"k={k!r} {misfit(k, PositiveInt)}.")
    return np.argsort(-estimates, kind="stable")[:k]


def absolute_error(estimates: np.ndarray, truth: np.ndarray, rescaled: bool = True) -> float:
    """
    :param estimates: (P,) of P policies
    :param truth: (P,)
    :param rescaled: DOPE's: both over the range of the truth, estimates capped at 2; else in the units of the values
    :return: mean absolute error; nan if it is over a range of 0
    """
    estimates, truth = _paired(estimates, truth)
    if rescaled:
        low, high = truth.min(), truth.max()
        if low == high:
            return float("nan")
        estimates, truth = np.minimum((estimates - low) / (high - low), 2.0), (truth - low) / (high - low)
    return float(np.abs(estimates - truth).mean())


def rank_correlation(estimates: np.ndarray, truth: np.ndarray) -> float:
    """
    :param estimates: (P,)
    :param truth: (P,)
    :return: Spearman's ρ; nan if one of them is constant
    """
    from scipy.stats import spearmanr

    estimates, truth = _paired(estimates, truth)
    if np.ptp(estimates) == 0 or np.ptp(truth) == 0:
        return float("nan")
    return float(spearmanr(estimates, truth).statistic)


def regret(estimates: np.ndarray, truth: np.ndarray, k: int = 1) -> float:
    """
    DOPE's regret@k: what is lost if the best of the k policies that are estimated best is taken.

    :param estimates: (P,)
    :param truth: (P,)
    :param k: policies that one can afford to try
    :return: as a share of the truth's range
    """
    estimates, truth = _paired(estimates, truth)
    low, high = truth.min(), truth.max()
    return float((high - truth[_best(estimates, k)].max()) / (high - low)) if high > low else 0.0


def summed_regret(estimates: np.ndarray, truth: np.ndarray, k: int = 1) -> float:
    """
    SCOPE-RL's regret@k.

    :param estimates: (P,)
    :param truth: (P,)
    :param k: policies taken
    :return: sum of the k largest truths − sum of the truths of the k that are estimated best
    """
    estimates, truth = _paired(estimates, truth)
    return float(np.sort(truth)[::-1][:k].sum() - truth[_best(estimates, k)].sum())


def sharpe_ratio(estimates: np.ndarray, truth: np.ndarray, k: int, baseline: float) -> float:
    """
    SCOPE-RL's SharpeRatio@k: what the best of the k gains over the behaviour, per spread among the k.

    :param estimates: (P,)
    :param truth: (P,)
    :param k: policies tried, at least 2
    :param baseline: value of the behaviour
    """
    estimates, truth = _paired(estimates, truth)
    if misfit(baseline, float) is not None:
        raise UserError(f"baseline={short(baseline)} {misfit(baseline, float)}.")
    tried = truth[_best(estimates, k)]
    return float(max(0.0, tried.max() - baseline) / tried.std(ddof=1))


@checked
def bootstrap_interval(
    values: np.ndarray, level: Level = 0.9, n_resamples: PositiveInt = 1000, seed: Count = 0
) -> tuple[float, float]:
    """
    Percentile bootstrap of a mean.

    :param values: (n,)
    :param level: of the interval
    :param n_resamples: number of resamples
    :param seed: of the resamples
    :return: lower and upper end
    """
    values = _vector(values, "values")
    if values.ndim != 1 or len(values) == 0:
        raise UserError(f"values of shape {values.shape} must be a vector of one number at least.")
    draws = np.random.default_rng(seed).integers(len(values), size=(n_resamples, len(values)))
    return interval_of(values[draws].mean(axis=1), level)


def interval_of(means: np.ndarray, level: float) -> tuple[float, float]:
    """
    :param means: of resamples
    :param level: share of them that lies inside
    :return: their linear quantiles
    """
    means, wrong = _vector(means, "means"), misfit(level, Level)
    if wrong is not None:
        raise UserError(f"level={short(level)} {wrong}.")
    if means.ndim != 1 or len(means) == 0:
        raise UserError(f"means of shape {means.shape} must be a vector of one number at least.")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
