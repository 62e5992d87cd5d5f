"""Importance weighting: kernel densities, ratios that are known, flows that see no episode they weigh."""

from typing import Any

import numpy as np
import pytest
from problems import Linear, linear_data

from sb3_genoffline import UserError
from sb3_genoffline.ope import FQE, ImportanceWeighting
from sb3_genoffline.ope import weighting as module
from sb3_genoffline.ope.weighting import kernel_log_density


def test_a_kernel_is_a_density_in_any_number_of_dimensions():
    actions, samples = np.array([[0.1, -0.4], [0.3, 0.8]]), np.array([[[0.2, -0.1]], [[-0.5, 0.6]]])
    assert np.exp(kernel_log_density(actions, samples, 0.3)) == pytest.approx([1.01461881, 0.04044917], abs=5e-9)


def test_many_samples_are_a_mixture():
    a = np.array([[0.3]])
    both = kernel_log_density(a, np.array([[[0.0], [50.0]]]), 0.5)
    assert np.exp(both) == pytest.approx(np.exp(kernel_log_density(a, np.array([[[0.0]]]), 0.5)) / 2)


def uniform(states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    return np.full(len(states), -np.log(2.0))


def test_the_behaviours_own_density_gives_the_mean_return():
    data = linear_data(400)
    weighting = ImportanceWeighting(Linear(), data, gamma=0.9, log_prob=uniform, behavior_log_prob=uniform)
    discounted = data.rewards.astype(float).reshape(10, 40) @ 0.9 ** np.arange(40)
    assert weighting.pdis() == pytest.approx(discounted.mean())
    assert weighting.wpdis() == pytest.approx(discounted.mean())
    assert weighting.effective_sample_size == pytest.approx(10)


def test_doubly_robust_estimates_correct_a_model_that_knows_nothing():
    """With the right ratios and Q = 0, it is importance sampling."""
    data = linear_data(400)
    weighting = ImportanceWeighting(Linear(), data, gamma=0.9, log_prob=uniform, behavior_log_prob=uniform)
    fqe = FQE(Linear(), data, gamma=0.9, net_arch=(), n_members=2, device="cpu")
    for parameter in fqe._fit.critic.parameters():
        parameter.data.zero_()
    assert weighting.dr(fqe) == pytest.approx(weighting.pdis())
    assert weighting.wdr(fqe) == pytest.approx(weighting.wpdis())


@pytest.mark.parametrize("terminal", [False, True])
def test_doubly_robust_estimates_go_on_after_time_outs(terminal: bool):
    """Reward 1 in episodes of 10 steps, exactly on-policy: worth 10 with γ = 0.9 if a time-out ends them, else 6.5."""
    last = np.arange(1, 401) % 10 == 0
    ends = {"terminations": last & terminal, "truncations": last & (not terminal)}
    data = linear_data(400, n_rows_episode=10).replace(rewards=np.ones(400, np.float32), **ends)
    weighting = ImportanceWeighting(Linear(), data, gamma=0.9, log_prob=uniform, behavior_log_prob=uniform)
    fqe = FQE(Linear(), data, gamma=0.9, net_arch=(), n_members=1, device="cpu")
    for parameter in fqe._fit.critic.parameters():
        parameter.data.zero_()
    parameter.data.fill_(1.0)  # the last one is the constant: Q = 10
    logged = float((0.9 ** np.arange(10)).sum())
    for estimate in (weighting.wdr(fqe), weighting.dr(fqe)):
        assert estimate == pytest.approx(logged if terminal else 10.0)
    assert weighting.wpdis() == pytest.approx(logged)


def test_a_step_is_weighed_by_a_flow_that_has_not_seen_its_episode(monkeypatch: pytest.MonkeyPatch):
    data = linear_data(200)
    seen: list[set[int]] = []
    fit = module.fit_behaviour
    monkeypatch.setattr(module, "fit_behaviour", lambda d, rows, *a: seen.append({*rows}) or fit(d, rows, *a))
    weighed: list[set[int]] = []
    ask = ImportanceWeighting._log_prob_of
    monkeypatch.setattr(
        ImportanceWeighting, "_log_prob_of", lambda self, flow, rows, d: weighed.append({*rows}) or ask(self, flow, rows, d)
    )
    weighting = ImportanceWeighting(Linear(), data, n_steps=2, net_arch=(8,), device="cpu")
    assert len(seen) == 2 and set.union(*weighed) == {*range(200)}
    for fitted, used in zip(seen, weighed, strict=True):
        assert not fitted & used
        assert all({*range(40 * e, 40 * e + 40)} <= fitted or not {*range(40 * e, 40 * e + 40)} & fitted for e in range(5))
    assert np.isfinite(weighting.log_b).all()


@pytest.mark.slow
def test_a_fitted_flow_finds_the_behaviours_density():
    """Actions scaled to [−1, 1] are uniform there: log ½."""
    data = linear_data(2000)
    weighting = ImportanceWeighting(Linear(), data, n_steps=150, net_arch=(16,), device="cpu")
    inside = np.abs(data.actions[:, 0]) < 1.6
    assert weighting.log_b[inside].mean() == pytest.approx(-np.log(2), abs=0.15)


@pytest.mark.parametrize("n_folds", [1, 99])
def test_folds_that_can_not_be_are_refused(n_folds: int):
    with pytest.raises(UserError, match=rf"n_folds={n_folds} must lie between 2 and the number of episodes, 5"):
        ImportanceWeighting(Linear(), linear_data(200), n_folds=n_folds)


def test_everything_follows_from_the_seed():
    values: list[Any] = []
    for seed in (3, 3, 4):
        made = ImportanceWeighting(Linear(noise=0.3), linear_data(200), n_steps=2, net_arch=(8,), seed=seed, device="cpu")
        values.append((made.log_pi.tolist(), made.log_b.tolist()))
    assert values[0] == values[1] and values[0][0] != values[2][0] and values[0][1] != values[2][1]


@pytest.mark.parametrize(
    ("fqe", "message"),
    [
        (lambda data: FQE(Linear(), data, gamma=0.8, device="cpu"), r"The FQE has gamma=0\.8 and the weights 0\.9"),
        (lambda data: FQE(Linear(0.5), data, gamma=0.9, device="cpu"), "The FQE is of another policy"),
        (lambda data: FQE(Linear(), data, gamma=0.9, deterministic=False, device="cpu"), "The FQE has deterministic=False"),
        (lambda data: "x", "fqe='x' must be an FQE"),
    ],
)
def test_the_q_functions_of_something_else_are_refused(fqe: Any, message: str):
    data = linear_data(80)
    weighting = ImportanceWeighting(Linear(), data, gamma=0.9, log_prob=uniform, behavior_log_prob=uniform)
    for estimate in (weighting.wdr, weighting.dr):
        with pytest.raises(UserError, match=message):
            estimate(fqe(data))


@pytest.mark.parametrize("name", ["log_prob", "behavior_log_prob"])
@pytest.mark.parametrize(
    ("density", "message"),
    [
        (lambda s, a: np.full(len(s), np.nan), "returned numbers that are not finite"),
        (lambda s, a: np.full(len(s), np.inf), "returned numbers that are not finite"),
        (lambda s, a: np.zeros((len(s), 1)), r"returned an array of shape \(80, 1\) for 80 rows: return one of shape \(80,\)"),
        (lambda s, a: np.zeros(3), r"returned an array of shape \(3,\)"),
        (lambda s, a: "x", "returned 'x', which are no numbers"),
    ],
)
def test_a_density_is_a_number_for_each_row(name: str, density: Any, message: str):
    with pytest.raises(UserError, match=f"^{name} {message}"):
        ImportanceWeighting(
            Linear(), linear_data(80), **({"log_prob": uniform, "behavior_log_prob": uniform} | {name: density})
        )


def test_an_action_that_a_policy_never_takes_has_the_logarithm_of_0():
    data = linear_data(80)
    never = lambda s, a: np.where(np.arange(len(s)) == 0, -np.inf, uniform(s, a))  # noqa: E731
    weighting = ImportanceWeighting(Linear(), data, gamma=0.9, log_prob=never, behavior_log_prob=uniform)
    assert np.isfinite([weighting.wpdis(), weighting.pdis()]).all()
    with pytest.raises(UserError, match="both 0 in row 0"):
        ImportanceWeighting(Linear(), data, gamma=0.9, log_prob=never, behavior_log_prob=never)
