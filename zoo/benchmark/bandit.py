"""
What a choice among policies costs in a simulator: Unifloral's protocol (Jackson et al. 2025, arXiv 2504.11453). A bandit
spends evaluations, one episode each, on policies; after each of them the policy that looks best is taken.
"""

from collections.abc import Sequence

import numpy as np

REPEATS, EXPLORATION = 1_000, 2.0
PULLS = (1, 2, 5, 10, 20, 50, 100)
"""Evaluations after which tables say what is taken."""


def bandit_curve(
    returns: Sequence[Sequence[float] | np.ndarray],
    n_pulls: int,
    repeats: int = REPEATS,
    exploration: float = EXPLORATION,
    seed: int = 0,
) -> np.ndarray:
    """
    Upper confidence bounds: the next episode is of the policy with the largest mean + √(α·ln t / n), where n of t episodes
    were its own. Episodes are drawn from those that were run, with replacement.

    Differences from the authors' code: all policies are open to the bandit (theirs draws 20), each is tried once before any is
    tried again, one that was never tried can't be taken, and the returns in the bound are divided by their range.

    :param returns: of the episodes of each of K policies
    :param n_pulls: evaluations allowed
    :param repeats: R, times that all this is done
    :param exploration: α
    :param seed: of the draws
    :return: (R, n_pulls), mean return of the policy that is taken after each evaluation
    """
    rng, rows = np.random.default_rng(seed), np.arange(repeats)
    lengths, truth = np.array([len(values) for values in returns]), np.array([np.mean(values) for values in returns])
    table = np.zeros((len(returns), lengths.max()))
    for row, values in zip(table, returns, strict=True):
        row[: len(values)] = values
    spread = float(np.ptp(np.concatenate([np.asarray(values, dtype=float) for values in returns]))) or 1.0
    first = rng.permuted(np.tile(np.arange(len(returns)), (repeats, 1)), axis=1)
    counts, sums = np.zeros((repeats, len(returns))), np.zeros((repeats, len(returns)))
    taken = np.empty((repeats, n_pulls))
    for pull in range(n_pulls):
        if pull < len(returns):
            arms = first[:, pull]
        else:
            arms = np.argmax(sums / counts / spread + np.sqrt(exploration * np.log(pull) / counts), axis=1)
        sums[rows, arms] += table[arms, rng.integers(lengths[arms])]
        counts[rows, arms] += 1
        means = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)
        taken[:, pull] = truth[np.argmax(means, axis=1)]
    return taken
