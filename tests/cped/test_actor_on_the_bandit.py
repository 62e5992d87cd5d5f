"""
CPED on the two-mode bandit (its README, claims 21 to 24).

The best action lies far outside the data, behind the + mode, so a constraint that does nothing or too much shows at once. The
critic is the true value; what is under test is the fitted density, the actor's loss and the multiplier.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import Tensor, nn
from toy_world import ACTION_DIM, MEAN_NLL, STATE_DIM, direction, draw_behaviour, true_log_prob, value

from sb3_genoffline import OfflineDataset
from sb3_genoffline.cped import CPED

pytestmark = pytest.mark.slow

BOX = (spaces.Box(-1, 1, (STATE_DIM,)), spaces.Box(-1, 1, (ACTION_DIM,)))
N_ROWS = 100_000
WARM_UP, FULL = 300, 1200
FIXED_50: dict[str, Any] = {"alpha_mode": "fixed", "alpha": 50.0}


class TrueValue(nn.Module):
    """
    Both critics know Q(s, a) = ± 50·a·u(s).

    :param sign: of the mode behind which the best actions lie
    """

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign
        self.unused = nn.Parameter(th.zeros(1))

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """(B, 1), (B, 2) -> (2, B)"""
        return (self.sign * value(states, actions)).expand(2, -1)


class Outcome(NamedTuple):
    """Of a trained policy on 10,000 fresh states; NLLs in nats."""

    nll: float  # under the fitted density
    true_nll: float
    q: float
    within_q99: float
    plus_share: float  # of the actions nearer to the + mode
    alpha: float
    data_nll: float
    q95: float


@pytest.fixture(scope="module")
def bandit() -> OfflineDataset:
    """100,000 episodes of one step."""
    states, actions = draw_behaviour(N_ROWS, seed=0)
    return OfflineDataset(
        observations=states.numpy(),
        actions=actions.numpy(),
        rewards=value(states, actions).numpy(),
        next_observations=states.numpy(),
        terminations=np.ones(N_ROWS, dtype=bool),
        truncations=np.zeros(N_ROWS, dtype=bool),
        observation_space=BOX[0],
        action_space=BOX[1],
    )


def make(**settings: Any) -> CPED:
    shared: dict[str, Any] = {
        "learning_rate": 3e-4,
        "alpha_sgd": True,
        "alpha_learning_rate": 0.01,
        "critic_start": 10**9,
        "q_start": WARM_UP,
        "policy_delay": 1,
        "max_grad_norm": None,
        "flow_steps": 1500,
        "adv_weight": 0.0,
        "dequantization": 0.0,
        "seed": 0,
        "device": "cpu",
        "policy_kwargs": {"net_arch": [64, 64], "flow_net_arch": [64, 64]},
    }
    return CPED("FlowDensityPolicy", BOX, **(shared | settings))


@pytest.fixture(scope="module")
def train(bandit: OfflineDataset) -> Callable[..., Outcome]:
    """``train(n_updates, **settings)``: all agents share one density; the same settings are trained once."""
    fitted = make().pretrain(bandit).policy.density
    known: dict[str, Outcome] = {}

    def run(n_updates: int = WARM_UP + FULL, **settings: Any) -> Outcome:
        key = f"{n_updates} {settings}"
        if key not in known:
            known[key] = train_once(n_updates, **settings)
            print(key, known[key])
        return known[key]

    def train_once(n_updates: int, sign: float = 1.0, **settings: Any) -> Outcome:
        model = make(density=fitted, **settings)
        model.critic = model.critic_target = TrueValue(sign)  # type: ignore[assignment]
        model.learn_offline(bandit, n_updates)
        states, actions = draw_behaviour(10_000, seed=1)
        with th.no_grad():
            chosen = model.actor(states)
            nll = model.policy.nll(states, chosen)
            data_nll = model.policy.nll(states, actions)
        return Outcome(
            nll.mean().item(),
            -true_log_prob(states, chosen).mean().item(),
            sign * value(states, chosen).mean().item(),
            (nll <= data_nll.quantile(0.99)).float().mean().item(),
            ((chosen * direction(states)).sum(-1) > 0).float().mean().item(),
            model.alpha_now().item(),
            data_nll.mean().item(),
            data_nll.quantile(0.95).item(),
        )

    return run


def test_without_a_constraint_the_policy_leaves_the_data_and_with_the_dual_it_stays_at_the_threshold(
    train: Callable[..., Outcome],
) -> None:
    free, held = train(alpha_mode="fixed", alpha=0.0), train()
    assert held.data_nll == pytest.approx(MEAN_NLL, abs=0.5)
    assert free.true_nll > 30 and free.within_q99 < 0.01 and free.q > 50
    assert abs(held.nll - held.data_nll) < 0.1
    assert held.within_q99 >= 0.97 and held.q > 30 and held.plus_share > 0.99


def test_a_quantile_allows_more_than_the_mean_and_is_reached_too(train: Callable[..., Outcome]) -> None:
    mean, quantile = train(), train(epsilon="quantile", epsilon_quantile=0.95)
    assert abs(quantile.nll - quantile.q95) < 0.3
    assert quantile.q > mean.q + 1


def test_a_larger_fixed_alpha_keeps_the_policy_closer_to_the_data(train: Callable[..., Outcome]) -> None:
    settings = ({"alpha_mode": "fixed", "alpha": alpha} for alpha in (0.0, 0.5, 5.0))
    none, weak, middle, strong = (train(**chosen) for chosen in (*settings, FIXED_50))
    assert none.nll > weak.nll - 0.3  # both leave the data, where the density is what the splines make of nothing
    assert weak.nll > middle.nll + 5 and middle.nll > strong.nll
    assert middle.nll < middle.data_nll


def test_the_warm_up_alone_seeks_the_modes(train: Callable[..., Outcome]) -> None:
    """A mode of the true density lies half a nat per dimension below the mean; a fitted one has peaks of its own."""
    warm = train(n_updates=1500, q_start=10**9)
    assert 0.3 <= (MEAN_NLL - warm.true_nll) / ACTION_DIM <= 0.5
    assert 0.3 <= (warm.data_nll - warm.nll) / ACTION_DIM <= 0.8
    assert warm.within_q99 > 0.9


def test_a_policy_that_starts_under_a_heavy_constraint_is_locked_into_the_mode_it_found_first(
    train: Callable[..., Outcome],
) -> None:
    first_found = train(n_updates=WARM_UP).plus_share
    sign = -1.0 if first_found > 0.5 else 1.0  # the other mode is the better one
    light, heavy, fixed = (train(sign=sign, **settings) for settings in ({}, {"alpha": 1000.0}, FIXED_50))
    assert light.q > 30 and light.within_q99 > 0.97
    assert heavy.q < light.q - 10 and heavy.within_q99 > 0.97
    assert fixed.q < light.q - 10
