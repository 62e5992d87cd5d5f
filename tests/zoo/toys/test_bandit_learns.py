"""DAC on the paper's bandit: DAC's README claim 26 (slow: 20,000 updates an agent)."""

import pytest

from zoo.plot.bandit import run_method
from zoo.toys.bandit import make_data, true_q

pytestmark = pytest.mark.slow
SETS = pytest.mark.parametrize("index", [0, 1, 2, 3])


@SETS
def test_soft_guidance_improves_on_the_data_and_stays_near_them(index: int) -> None:
    result = run_method("soft", index, 20_000)["soft"]
    assert result["ood"] <= 0.25
    assert result["mean_q"] >= true_q(make_data(index).actions).mean() + 0.2


@SETS
def test_hard_guidance_leaves_the_data(index: int) -> None:
    assert run_method("hard", index, 20_000)["hard"]["ood"] >= 0.5


@SETS
def test_imitation_has_the_value_of_the_data(index: int) -> None:
    assert run_method("bc", index, 20_000)["bc"]["mean_q"] == pytest.approx(true_q(make_data(index).actions).mean(), abs=0.05)
