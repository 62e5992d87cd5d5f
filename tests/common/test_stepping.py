"""An update that runs as a graph is the ordinary one, bit for bit: shown on a CPU by a tape in the graph's place."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from tape import Tape, TapedUpdate
from worlds import EXPECTED_WARNINGS, differing, make_agent, snapshot

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common import stepping
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm

N_UPDATES = 20
_LATER = ("_start", "warmup_steps", "bc_steps", "flow_joint_steps")


def unequal(*models: OfflineAlgorithm) -> list[str]:
    """In what two agents differ, but for the rate that an optimizer was called with last: each step brings its own."""
    first, second = (
        {name: re.sub(rb'"lr", [^]]+', b"", content) for name, content in snapshot(model).items()} for model in models
    )
    return differing(first, second)


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> list[TapedUpdate]:
    """All agents made from here on run their updates from a tape."""
    made: list[TapedUpdate] = []

    def make(static: stepping.StaticUpdate) -> TapedUpdate:
        made.append(TapedUpdate(static))
        return made[-1]

    monkeypatch.setattr(stepping, "CudaUpdate", make)
    monkeypatch.setattr(stepping.Stepper, "uses_graphs", property(lambda stepper: stepper.agent.graph and not stepper._failed))
    return made


@pytest.mark.filterwarnings(f"ignore:{EXPECTED_WARNINGS}")
def test_a_replayed_update_is_the_ordinary_one(
    agent: Callable[..., OfflineAlgorithm], dataset: OfflineDataset, taped: list[TapedUpdate]
) -> None:
    names = agent(None).argument_table().arguments
    changes: dict[str, Any] = {name: 7 for name in names if name.endswith(_LATER)}  # phases begin on the way
    changes |= {name: 40 for name in ("lr_decay_steps",) if name in names}
    ordinary, replayed = agent(**changes), agent(**changes)
    ordinary.graph = False
    for model in (ordinary, replayed):
        model.learn_offline(dataset, N_UPDATES, log_interval=N_UPDATES)
    assert sum(update.calls - 2 for update in taped if update.calls > 2) >= 4
    assert ordinary.last_metrics == replayed.last_metrics
    assert not unequal(ordinary, replayed)


def test_the_tape_notices_a_number_that_python_decides(dataset: OfflineDataset, taped: list[TapedUpdate]) -> None:
    ordinary, replayed = make_agent("bc"), make_agent("bc")
    ordinary.graph = False
    for model in (ordinary, replayed):
        model.rate_now = lambda rate, model=model: 1e-3 / (1 + model._n_updates)  # type: ignore[method-assign, misc]
        model.learn_offline(dataset, 12)
    assert unequal(ordinary, replayed)


def test_the_tape_notices_a_read() -> None:
    with pytest.raises(AssertionError, match="reads a number"), Tape():
        th.ones(()).item()


def test_a_setting_on_a_live_agent_reaches_recorded_updates(dataset: OfflineDataset, taped: list[TapedUpdate]) -> None:
    ordinary, replayed = make_agent("td3_bc"), make_agent("td3_bc")
    ordinary.graph = False
    for model in (ordinary, replayed):

        def change(found: dict[str, Any], _: dict[str, Any], model: Any = model) -> bool:
            if model.num_timesteps == 12:
                model.gamma, model.learning_rate = 0.5, 1e-2
            return True

        model.learn_offline(dataset, 20, callback=change)
    assert not unequal(ordinary, replayed)


def test_an_update_that_cannot_be_recorded_is_run_by_python_with_one_warning(
    dataset: OfflineDataset, taped: list[TapedUpdate], monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary, falls_back = make_agent("td3_bc"), make_agent("td3_bc")
    ordinary.graph = False
    ordinary.learn_offline(dataset, 12)

    def refuse(tape: Tape) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Tape, "__enter__", refuse)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        falls_back.learn_offline(dataset, 12)
    assert [str(one.message)[:40] for one in caught if "CUDA graph" in str(one.message)] == [
        "TD3BC's update can't be recorded as a CUDA graph"[:40]
    ]
    assert not unequal(ordinary, falls_back)
