"""``matmul_precision="bf16"``: off by default, at work in training alone, told once, and kept in files."""

import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.logger import Logger
from worlds import make_agent, snapshot

from sb3_genoffline import OfflineDataset, UserError
from sb3_genoffline.common import fitting_learner, precision
from sb3_genoffline.common.precision import Bf16Products, bf16_products, matmul_precision

SWITCH: Any = th.backends.mkldnn.matmul  # type: ignore[attr-defined]
HERE, NOWHERE = Bf16Products(0.19, 4e-5, 2.5), Bf16Products(4e-5, 4e-5, 1.0)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A processor with a unit for bf16; what is logged."""
    monkeypatch.setattr(fitting_learner, "bf16_products", lambda: HERE)
    said: list[str] = []
    monkeypatch.setattr(Logger, "info", lambda _, *words: said.extend(words))
    return said


def test_the_switch_is_set_while_it_is_wanted_and_as_it_was_afterwards() -> None:
    before = SWITCH.fp32_precision
    with matmul_precision("fp32"):
        assert SWITCH.fp32_precision == before
    with pytest.raises(ZeroDivisionError), matmul_precision("bf16"):
        assert SWITCH.fp32_precision == "bf16"
        raise ZeroDivisionError
    assert SWITCH.fp32_precision == before


@pytest.mark.parametrize("algo", ["spot", "td3_bc"])
def test_updates_and_fits_run_with_it_and_acting_and_callbacks_do_not(
    algo: str, dataset: OfflineDataset, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, before = make_agent(algo, matmul_precision="bf16"), SWITCH.fp32_precision
    seen: dict[str, set[str]] = {"update": set(), "fit": set(), "callback": set()}

    def spy(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            seen[name].add(SWITCH.fp32_precision)
            return function(*args)

        return call

    monkeypatch.setattr(model, "update", spy("update", model.update))
    model.set_dataset(dataset)
    if algo == "spot":
        model.begin_fits()
        for fit in model.fits.left or ():
            monkeypatch.setattr(fit, "update", spy("fit", fit.update))
    model.learn_offline(dataset, 3, callback=spy("callback", lambda *_: True))
    assert seen == {"update": {"bf16"}, "fit": {"bf16"} if algo == "spot" else set(), "callback": {before}}
    model.learn_offline(dataset, 1)
    assert told == [str(HERE)]  # once
    assert SWITCH.fp32_precision == before


def test_where_it_does_nothing_a_warning_says_so_once_and_the_error_with_it(
    dataset: OfflineDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting_learner, "bf16_products", lambda: NOWHERE)
    model = make_agent("td3_bc", matmul_precision="bf16")
    with pytest.warns(UserWarning, match=r"'bf16' does nothing: this processor has no unit .* 4\.0e-05, in fp32 4\.0e-05"):
        model.learn_offline(dataset, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn_offline(dataset, 1)


def test_it_is_off_by_default_checked_and_kept_in_files(told: list[str], dataset: OfflineDataset) -> None:
    model = make_agent("td3_bc")
    assert model.matmul_precision == "fp32"
    with pytest.raises(UserError, match="matmul_precision='tf32' is not known; use one of 'fp32', 'bf16'"):
        model.matmul_precision = "tf32"  # type: ignore[assignment]
    model.matmul_precision = "bf16"
    file = io.BytesIO()
    model.save(file)
    assert type(model).load(io.BytesIO(file.getvalue())).matmul_precision == "bf16"
    assert type(model).load(io.BytesIO(file.getvalue()), matmul_precision="fp32").matmul_precision == "fp32"


def test_what_is_measured_is_the_error_of_products() -> None:
    found = bf16_products()
    assert found.fp32_error < precision._ROUNDED and found.speedup > 0
    if not found.rounded:  # then nothing may change at all but what rounding does
        assert found.error < precision._ROUNDED
    assert "in bf16" in str(HERE) and HERE.rounded and not NOWHERE.rounded


def test_an_agent_in_fp32_is_what_it_is_without_the_option(dataset: OfflineDataset) -> None:
    first, second = make_agent("td3_bc"), make_agent("td3_bc", matmul_precision="fp32")
    assert snapshot(first.learn_offline(dataset, 3)) == snapshot(second.learn_offline(dataset, 3))
