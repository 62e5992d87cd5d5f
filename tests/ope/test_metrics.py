"""Figures of DOPE and SCOPE-RL: the values that their functions give."""

import numpy as np
import pytest

from sb3_genoffline import UserError
from sb3_genoffline.ope import metrics

K = np.arange(6)
ESTIMATES, TRUTH = np.sin(1.1 * K + 0.4), np.cos(0.8 * K + 0.1) + 0.3 * K


def test_dopes_figures():
    assert metrics.absolute_error(ESTIMATES, TRUTH) == pytest.approx(0.71830541, abs=5e-9)
    assert metrics.absolute_error(ESTIMATES, TRUTH, rescaled=False) == pytest.approx(0.64370780, abs=5e-9)
    assert metrics.rank_correlation(ESTIMATES, TRUTH) == pytest.approx(0.48571429, abs=5e-9)
    regrets = [metrics.regret(ESTIMATES, TRUTH, k) for k in (1, 2, 3)]
    assert regrets == pytest.approx([0.08189966, 0.08189966, 0], abs=5e-9)


def test_scope_rls_figures():
    regrets = [metrics.summed_regret(ESTIMATES, TRUTH, k) for k in (1, 2, 3)]
    assert regrets == pytest.approx([0.07339420, 0.52741477, 0.45402055], abs=5e-8)
    ratios = [metrics.sharpe_ratio(ESTIMATES, TRUTH, k, 0.5) for k in (2, 3)]
    assert ratios == pytest.approx([1.32365552, 1.74517838], abs=5e-9)


def test_a_bootstrap_of_known_resamples():
    values, b = np.sin(1.7 * np.arange(8)), np.arange(20)[:, None]
    means = values[(7 * b + 3 * np.arange(8) + b * np.arange(8)) % 8].mean(axis=1)
    assert values.mean() == pytest.approx(-0.02688779, abs=5e-9)
    assert metrics.interval_of(means, 0.9) == pytest.approx((-0.92581468, 0.06155003), abs=5e-9)
    assert means.std(ddof=1) == pytest.approx(0.37528766, abs=5e-9)


def test_constant_estimates_rank_nothing():
    assert np.isnan(metrics.rank_correlation(np.ones(6), TRUTH))
    assert metrics.regret(np.ones(6), np.ones(6)) == 0


@pytest.mark.parametrize("estimates", [[], [1.0, 2.0], [[1.0]]])
def test_other_lengths_are_refused(estimates):
    with pytest.raises(ValueError, match="must be vectors of one length"):
        metrics.regret(np.array(estimates), np.ones(3))


@pytest.mark.parametrize(
    "figure",
    [
        *(metrics.regret, metrics.absolute_error, metrics.rank_correlation, metrics.summed_regret),
        lambda estimates, truth: metrics.sharpe_ratio(estimates, truth, 2, 0.0),
    ],
)
def test_what_is_no_finite_number_is_named(figure):
    for bad in (np.nan, np.inf):
        with pytest.raises(UserError, match=r"truth has (nan|inf) at 1"):
            figure([1, 2, 3], [1, bad, 5])
        with pytest.raises(UserError, match=r"estimates has (nan|inf) at 2"):
            figure([1, 2, bad], [1, 2, 5])
    with pytest.raises(UserError, match="estimates='abc' must be numbers"):
        figure("abc", [1, 2, 3])
    with pytest.raises(UserError, match=r"truth=\['a', 'b', 'c'\] must be numbers"):
        figure([1, 2, 3], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        ([1.0, 2.0], {"level": 2}, r"level=2 must lie in \(0, 1\)"),
        ([], {}, r"values of shape \(0,\) must be a vector"),
        ([[1.0]], {}, r"values of shape \(1, 1\) must be a vector"),
        ([1.0, np.nan], {}, "values has nan at 1"),
        ([1.0, 2.0], {"n_resamples": 0}, "n_resamples=0 must be at least 1"),
        ("x", {}, "values='x' must be numbers"),
    ],
)
def test_a_bootstrap_of_nothing_is_refused(values, settings, message):
    with pytest.raises(UserError, match=message):
        metrics.bootstrap_interval(values, **settings)
    with pytest.raises(UserError, match="level=2 must"):
        metrics.interval_of([1.0, 2.0], 2)
