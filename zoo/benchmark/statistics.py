"""
Comparisons over runs and datasets (Agarwal et al., NeurIPS 2021, arXiv 2108.13264), where datasets may have different numbers
of seeds: every dataset counts the same. Their library rliable, and scipy's trimmed mean, want the same number everywhere.
"""

from collections.abc import Mapping

import numpy as np

RESAMPLES = 2_000
Scores = Mapping[str, np.ndarray]
"""Scores of an algorithm: dataset -> (number of seeds,)."""


def interquartile_mean(scores: Scores) -> float:
    """
    Mean of the middle half of all runs. A run weighs 1 / (number of seeds of its dataset), and of runs at the quartiles that
    part counts which lies inside.
    """
    return float(_middle_means([values[None] for values in scores.values()])[0])


def improvement(ours: Scores, theirs: Scores) -> float:
    """P(a run of ours scores higher than one of theirs), a tie being a half, averaged over the datasets of both."""
    common = [dataset for dataset in ours if dataset in theirs]
    return float(np.mean([_win_shares(ours[dataset][None], theirs[dataset][None])[0] for dataset in common]))


def interval(statistic: str, *scores: Scores, level: float = 0.95, seed: int = 0) -> tuple[float, float] | None:
    """
    Stratified percentile bootstrap: the seeds of each dataset are resampled.

    :param statistic: ``"interquartile_mean"`` (of one algorithm) or ``"improvement"`` (of two)
    :param scores: of the algorithms
    :param level: coverage
    :param seed: of the resampling
    :return: bounds; None where no dataset has a second seed, so that nothing is known of the spread
    """
    if all(len(values) < 2 for algorithm in scores for values in algorithm.values()):
        return None
    generator = np.random.default_rng(seed)

    def resample(values: np.ndarray) -> np.ndarray:
        return values[generator.integers(len(values), size=(RESAMPLES, len(values)))]

    if statistic == "interquartile_mean":
        draws = _middle_means([resample(values) for values in scores[0].values()])
    else:
        ours, theirs = scores
        common = [dataset for dataset in ours if dataset in theirs]
        draws = np.mean([_win_shares(resample(ours[name]), resample(theirs[name])) for name in common], axis=0)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _middle_means(strata: list[np.ndarray]) -> np.ndarray:
    """:param strata: (R, seeds) of each dataset; returns (R,)"""
    values = np.concatenate(strata, axis=1)
    weights = np.concatenate([np.full(stratum.shape[1], 1.0 / stratum.shape[1]) for stratum in strata]) / len(strata)
    order = np.argsort(values, axis=1)
    ends = np.cumsum(weights[order], axis=1)
    inside = np.clip(np.minimum(ends, 0.75) - np.maximum(ends - weights[order], 0.25), 0.0, None)
    return (inside * np.take_along_axis(values, order, axis=1)).sum(axis=1) / inside.sum(axis=1)


def _win_shares(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """:param ours: (R, n), :param theirs: (R, m); returns (R,)"""
    a, b = ours[:, :, None], theirs[:, None, :]
    return ((a > b) + 0.5 * (a == b)).mean(axis=(1, 2))
