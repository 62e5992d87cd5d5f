"""The bandit that chooses among policies by a simulator's evaluations."""

import numpy as np

from zoo.benchmark.bandit import bandit_curve


def test_policies_without_noise_are_told_apart_once_all_were_tried() -> None:
    curve = bandit_curve([[1.0, 1.0], [3.0], [2.0, 2.0, 2.0]], 6, repeats=400)
    assert curve.shape == (400, 6)
    assert abs(curve[:, 0].mean() - 2.0) < 0.15  # the first one is any
    assert abs(curve[:, 1].mean() - 8 / 3) < 0.1  # the better one of two: 3 in two of three pairs, else 2
    assert (curve[:, 2:] == 3.0).all()


def test_what_is_taken_is_told_by_its_true_mean_and_gets_better_with_evaluations() -> None:
    rng = np.random.default_rng(0)
    returns = [rng.normal(mean, 3.0, 200) for mean in (0.0, 1.0, 2.0)]
    curve = bandit_curve(returns, 200, repeats=300, seed=1)
    assert set(np.unique(curve)) <= {float(np.mean(values)) for values in returns}
    assert curve[:, 0].mean() < curve[:, 9].mean() < curve[:, -1].mean() <= max(np.mean(values) for values in returns)
    assert curve[:, -1].mean() > 1.8


def test_the_same_seed_gives_the_same_curve_and_one_policy_is_no_choice() -> None:
    returns = [[0.0, 1.0], [0.5, 0.7]]
    assert (bandit_curve(returns, 9, 20, seed=3) == bandit_curve(returns, 9, 20, seed=3)).all()
    assert (bandit_curve([[1.0, 3.0]], 4, 5) == 2.0).all()
