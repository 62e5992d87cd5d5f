"""The set of uncertain actions and the penalised values: QDQ's README, claims 15 to 18."""

import itertools
import math

import pytest
import torch as th
from torch import Tensor

from sb3_genoffline.qdq.penalty import Penalty, penalized_value, penalty_weight, uncertain_actions

MODES: tuple[Penalty, ...] = ("paper", "antmaze_awr", "antmaze_q", "floor", "none")
every_h = th.tensor([1e-9, 0.05, 0.15, 0.9, 1.0, 1.2, 4.0, 40.0, 500.0], dtype=th.float64)
every_q = th.linspace(-150.0, 400.0, 111, dtype=th.float64)


def weights(penalty: Penalty, h: Tensor, uncertain: bool, beta: float = 0.9) -> Tensor:
    """w of ``h``, all or none of which are in U."""
    return penalty_weight(penalty, h, th.full(h.shape, uncertain), beta)


# ---------------------------------------------------------------------- claim 15: the gate


@pytest.mark.parametrize(("beta", "n_flagged"), [(0.9, 26), (0.8, 51)])
def test_the_largest_tenth_or_fifth_of_a_batch_is_flagged_whatever_the_scale(beta: float, n_flagged: int) -> None:
    h = th.randperm(256, generator=th.Generator().manual_seed(0)).float() + 1.0
    uncertain, threshold = uncertain_actions(h, beta)
    assert (uncertain == (h > 256 - n_flagged)).all() and uncertain.sum() == n_flagged
    assert threshold == pytest.approx(1.0 + beta * 255)  # linear interpolation between the two neighbours
    for scale in (10.0, 1e-3):
        assert (uncertain_actions(scale * h, beta)[0] == uncertain).all()


def test_nothing_is_flagged_where_all_uncertainties_are_equal() -> None:
    for value in (0.0, 0.1, 37.3):
        for n in (1, 7, 256):
            assert not uncertain_actions(th.full((n,), value), 0.9)[0].any()


def test_values_at_the_threshold_are_not_above_it() -> None:
    uncertain, threshold = uncertain_actions(th.tensor([1.0] * 5 + [2.0] * 6), 0.6)
    assert threshold == 2.0 and not uncertain.any()


def test_a_batch_smaller_than_ten_has_one_uncertain_action_at_most() -> None:
    generator = th.Generator().manual_seed(0)
    assert [int(uncertain_actions(th.rand(n, generator=generator), 0.9)[0].sum()) for n in range(1, 12)] == [
        0, *([1] * 9), 1,
    ]  # fmt: skip
    assert uncertain_actions(th.rand(12, generator=generator), 0.9)[0].sum() == 2


# ---------------------------------------------------------------------- claim 16: the multipliers


@pytest.mark.parametrize(
    ("penalty", "inside", "outside"),
    [
        ("paper", 0.25, 0.9),
        ("antmaze_awr", 1.075, 1.0),
        ("antmaze_q", 0.25, 1.0),
        ("floor", 0.25, 0.9),
        ("none", 1.0, 1.0),
    ],
)
def test_the_multipliers_of_an_uncertainty_of_four(penalty: Penalty, inside: float, outside: float) -> None:
    h = th.tensor([4.0, 4.0], dtype=th.float64)
    weight = penalty_weight(penalty, h, th.tensor([True, False]), 0.9)
    assert weight.tolist() == pytest.approx([inside, outside], abs=1e-12)
    q_l = penalized_value(penalty, th.tensor([10.0, -10.0], dtype=th.float64), weight, q_floor=-20.0)
    expected = [-20 + inside * 30, -20 + outside * 10] if penalty == "floor" else [inside * 10, -outside * 10]
    assert q_l.tolist() == pytest.approx(expected, abs=1e-12)


# ---------------------------------------------------------------------- claim 18: the floor


@pytest.mark.parametrize("q_floor", [-100.0, 0.0])
@pytest.mark.parametrize("uncertain", [True, False])
def test_with_a_floor_values_never_rise_and_never_fall_below_it(q_floor: float, uncertain: bool) -> None:
    q = every_q[every_q >= q_floor]
    for weight in weights("floor", every_h, uncertain):
        q_l = penalized_value("floor", q, weight.expand_as(q), q_floor)
        assert (q_l >= q_floor).all() and (q_l <= q).all()
        assert (q_l[q > q_floor] < q[q > q_floor]).all()


@pytest.mark.parametrize("beta", [0.9, 0.5])
def test_the_floor_at_zero_is_the_papers_penalty_where_that_is_sound(beta: float) -> None:
    q, h = every_q[every_q >= 0], every_h[1.0 / every_h <= beta]
    for uncertain in (True, False):
        floor, paper = weights("floor", h, uncertain, beta), weights("paper", h, uncertain, beta)
        for a, b in zip(floor, paper, strict=True):
            first, second = penalized_value("floor", q, a.expand_as(q), 0.0), penalized_value("paper", q, b.expand_as(q))
            assert th.allclose(first, second, rtol=1e-14, atol=0)


def test_with_a_floor_the_penalty_contracts_by_beta() -> None:
    pairs = th.cartesian_prod(every_q, every_q)
    for uncertain, q_floor in itertools.product((True, False), (-100.0, 0.0)):
        for weight in weights("floor", every_h, uncertain):
            values = penalized_value("floor", pairs, weight.expand_as(pairs), q_floor)
            distance, before = (values[:, 0] - values[:, 1]).abs(), (pairs[:, 0] - pairs[:, 1]).abs()
            assert (distance <= 0.9 * before + 1e-12).all()


def test_a_value_below_the_floor_is_lifted_to_it() -> None:
    q_l = penalized_value("floor", th.tensor([-150.0, -100.0]), th.tensor([0.9, 0.5]), -100.0)
    assert q_l.tolist() == [-100.0, -100.0]


# ---------------------------------------------------------------------- claim 17: where a mode is sound


def raised(penalty: Penalty, q: float, h: float, q_floor: float) -> bool:
    """Whether an uncertain action's target grows."""
    weight = weights(penalty, th.tensor([h]), True)
    return bool(penalized_value(penalty, th.tensor([q]), weight, q_floor) > q)


@pytest.mark.parametrize(
    ("penalty", "q", "h", "bonus"),
    [
        ("paper", 50.0, 4.0, False),
        ("paper", -50.0, 4.0, True),  # the sign
        ("paper", 50.0, 0.5, True),  # the scale of H: samples in [−1, 1]
        ("antmaze_q", -50.0, 4.0, True),
        ("antmaze_awr", -50.0, 3.0, False),
        ("antmaze_awr", -50.0, 0.15, True),  # too good a consistency model
        ("floor", 50.0, 4.0, False),
        ("floor", -50.0, 4.0, False),
        ("floor", 50.0, 0.5, False),
        ("floor", -50.0, 0.15, False),
        ("none", -50.0, 0.15, False),
    ],
)
def test_the_published_modes_reward_uncertainty_where_q_is_negative_or_h_below_one_and_the_floor_never(
    penalty: Penalty, q: float, h: float, bonus: bool
) -> None:
    assert raised(penalty, q, h, q_floor=-100.0) == bonus


def test_a_sharp_consistency_model_turns_the_antmaze_factor_far_below_one() -> None:
    weight = weights("antmaze_awr", th.tensor([0.15, 0.09, 3.0]), True).tolist()
    assert weight[0] == pytest.approx(0.43, abs=0.005) and weight[1] < 0 and 1 < weight[2] < 1.1


@pytest.mark.parametrize("penalty", MODES)
def test_no_uncertainty_at_all_gives_finite_values(penalty: Penalty) -> None:
    weight = weights(penalty, th.zeros(3), True)
    assert weight.isfinite().all()
    assert penalized_value(penalty, th.tensor([-80.0, 0.0, 80.0]), weight, -100.0).isfinite().all()
    if penalty == "floor":
        assert weight.tolist() == pytest.approx([0.9] * 3)
    if penalty == "paper":
        assert math.isclose(weight[0].item(), 1e6, rel_tol=1e-6)
