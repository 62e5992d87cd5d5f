"""An update or a fit that runs as a graph is the ordinary one, bit for bit: shown on a CPU by a tape in the graph's place."""

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from worlds import EXPECTED_WARNINGS, FITTING, differing, make_agent, snapshot

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.fitting import Fit, FitListener
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.common.optimizers import load_optimizer, make_optimizer
from sb3_genoffline.common.stepping import StaticUpdate, Stepper
from sb3_genoffline.ope import FQE
from zoo.gpu_check.tape import Tape, TapedGraph, graphs_on_cpu

N_UPDATES, N_STEPS = 12, 10
_LATER = ("_start", "warmup_steps", "bc_steps", "flow_joint_steps")
pytestmark = pytest.mark.filterwarnings(f"ignore:{EXPECTED_WARNINGS}", "error:.*can't be recorded as a CUDA graph")


def unequal(*models: OfflineAlgorithm) -> list[str]:
    """In what two agents differ, but for the rate that an optimizer was called with last: each step brings its own."""
    first, second = (
        {name: re.sub(rb'"lr", [^]]+', b"", content) for name, content in snapshot(model).items()} for model in models
    )
    return differing(first, second)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[TapedGraph]]:
    """Updates and fits run from tapes; the launches so far."""
    launched: list[TapedGraph] = []
    launch = TapedGraph.replay

    def replay(graph: TapedGraph) -> None:
        launched.append(graph)
        launch(graph)

    monkeypatch.setattr(TapedGraph, "replay", replay)
    with graphs_on_cpu():
        yield launched


def two(algo: str, **changes: Any) -> tuple[OfflineAlgorithm, OfflineAlgorithm]:
    """One that Python runs, and one that is replayed."""
    ordinary, replayed = make_agent(algo, **changes), make_agent(algo, **changes)
    ordinary.graph = False
    return ordinary, replayed


def test_a_replayed_update_is_the_ordinary_one(algo: str, dataset: OfflineDataset, replays: list[TapedGraph]) -> None:
    names = make_agent(algo, None).argument_table().arguments
    changes: dict[str, Any] = {name: 5 for name in names if name.endswith(_LATER)}  # phases begin on the way
    changes |= {name: 40 for name in ("lr_decay_steps",) if name in names}
    ordinary, replayed = two(algo, **changes)
    for model in (ordinary, replayed):
        del replays[:]
        model.learn_offline(dataset, N_UPDATES, log_interval=N_UPDATES)
    assert len(replays) - len(set(map(id, replays))) >= 3  # the first launch of each is its recording
    assert ordinary.last_metrics == replayed.last_metrics
    assert not unequal(ordinary, replayed)


class Followed(BaseCallback, FitListener):
    """Notes what fits log."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: dict[str, float] = {}

    def _on_step(self) -> bool:
        return True

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        self.metrics |= metrics
        return True


@pytest.mark.parametrize("algo", FITTING)
def test_a_replayed_fit_is_the_ordinary_one(algo: str, dataset: OfflineDataset, replays: list[TapedGraph]) -> None:
    steps = {"flow_steps", "vae_steps", "teacher_steps", "cd_steps", "behavior_steps", "critic_steps"}
    names = make_agent(algo, None).argument_table().arguments
    changes = dict.fromkeys(steps & names.keys(), N_STEPS)
    changes |= {"held_out": 0.2, "flow_eval_every": 5, "n_critic_steps": 2} if "held_out" in names else {}
    logged = []
    models = two(algo, **changes)
    for model in models:
        del replays[:]
        logged.append(Followed())
        model.pretrain(dataset, logged[-1], log_interval=N_STEPS)
    assert len(replays) - len(set(map(id, replays))) >= 4
    assert logged[0].metrics == logged[1].metrics and logged[0].metrics
    assert not unequal(*models)


def test_a_replayed_evaluation_is_the_ordinary_one(dataset: OfflineDataset, replays: list[TapedGraph]) -> None:
    agent = make_agent("td3_bc").learn_offline(dataset, 1)
    ordinary, replayed = (FQE(agent, dataset, net_arch=(8,), batch_size=16, n_members=2, device="cpu") for _ in range(2))
    ordinary._fit.graph = False
    for fqe in (ordinary, replayed):
        fqe.fit(N_STEPS)
    assert len(replays) > 4
    assert ordinary.history == replayed.history


def test_the_tape_notices_a_number_that_python_decides(dataset: OfflineDataset, replays: list[TapedGraph]) -> None:
    ordinary, replayed = two("bc")
    for model in (ordinary, replayed):
        model.rate_now = lambda rate, model=model: 1e-3 / (1 + model._n_updates)  # type: ignore[method-assign, misc]
        model.learn_offline(dataset, 16)
    assert unequal(ordinary, replayed)


@pytest.mark.parametrize("read", [lambda: th.ones(()).item(), lambda: th.ones(3)[th.ones(3) > 0], lambda: th.tensor(1.0)])
def test_the_tape_notices_what_waits_for_the_device(read: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match=r"reads a number|sends numbers"), Tape():
        read()


def test_a_setting_on_a_live_agent_reaches_recorded_updates(dataset: OfflineDataset, replays: list[TapedGraph]) -> None:
    ordinary, replayed = two("td3_bc")
    for model in (ordinary, replayed):

        def change(found: dict[str, Any], _: dict[str, Any], model: Any = model) -> bool:
            if model.num_timesteps == 12:
                model.gamma, model.learning_rate = 0.5, 1e-2
            return True

        model.learn_offline(dataset, 20, callback=change)
    assert replays and not unequal(ordinary, replayed)


def test_a_copy_records_graphs_of_its_own(dataset: OfflineDataset, replays: list[TapedGraph]) -> None:
    ordinary, replayed = (model.learn_offline(dataset, 16) for model in two("td3_bc"))
    copied = copy.deepcopy(replayed)
    assert copied.stepper.owner is copied and copied.stepper.n_graphs == 0 < replayed.stepper.n_graphs
    for model in (ordinary, copied):
        model.set_dataset(dataset)
        model.train(16, 16)
    assert copied.stepper.n_graphs > 0 and not unequal(ordinary, copied)


def test_an_update_that_cannot_be_recorded_is_run_by_python_with_one_warning(
    dataset: OfflineDataset, replays: list[TapedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary, falls_back = two("td3_bc")
    ordinary.learn_offline(dataset, 12)

    def refuse(tape: Tape) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Tape, "__enter__", refuse)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        falls_back.learn_offline(dataset, 12)
    (message,) = [str(one.message) for one in caught if "CUDA graph" in str(one.message)]
    assert message.startswith("TD3BC's update can't be recorded as a CUDA graph")
    assert message.endswith("operation not permitted when stream is capturing")
    assert falls_back.stepper.n_graphs == 0 and not unequal(ordinary, falls_back)


def test_a_failed_recording_is_ended_and_says_what_went_wrong_first(
    replays: list[TapedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Owner:
        graph, generator = True, th.Generator().manual_seed(3)

        def phase(self) -> None:
            return None

    ended: list[TapedGraph] = []
    runs: list[Any] = []

    def end(graph: TapedGraph) -> None:  # as torch does, whose own sentence says less
        ended.append(graph)
        graph.tape.__exit__(None, None, None)
        if graph.tape.operators:
            raise RuntimeError("capture was invalidated")

    monkeypatch.setattr(TapedGraph, "capture_end", end)
    owner: Any = Owner()

    def run(batch: Any) -> dict[str, Any]:
        runs.append(stepper.at_work)
        total = batch[0].sum() + th.rand((), generator=owner.generator)
        return {"loss": total if len(runs) != 2 else total * total.item()}

    stepper = Stepper(owner, run)
    with pytest.warns(UserWarning, match=r"_local_scalar_dense.default reads a number"):
        found = [float(stepper((th.ones(2),))["loss"]) for _ in range(4)]
    assert len(ended) == 2 and not ended[1].tape.operators  # the last is that of nothing, after which generators draw again
    again = th.Generator().manual_seed(3)
    assert found == [float(2 + th.rand((), generator=again)) for _ in range(4)]  # no number was lost
    assert [at_work is None for at_work in runs] == [False] * 2 + [True] * 3


def test_an_error_of_the_update_itself_is_no_failed_recording(replays: list[TapedGraph]) -> None:
    class Owner:
        graph, generator = True, None

        def phase(self) -> None:
            return None

    def run(batch: Any) -> dict[str, Any]:
        raise RuntimeError("out of memory")

    stepper = Stepper(Owner(), run)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="out of memory"):
        stepper((th.ones(2),))
    assert stepper.failure is None and stepper.at_work is None


def test_inputs_keep_their_place_whatever_kind_of_tuple_they_are(replays: list[TapedGraph]) -> None:
    stepper = Stepper(make_agent("bc"), lambda batch: {})
    static = StaticUpdate(stepper, (th.zeros(2), None, th.zeros(3)))
    before = static.batch
    static.fill((th.ones(2), None, th.full((3,), 2.0)))
    assert static.batch is before and before[1] is None
    assert before[0].tolist() == [1, 1] and before[2].tolist() == [2, 2, 2]


@pytest.mark.parametrize("cls", [th.optim.Adam, th.optim.RAdam, th.optim.NAdam])
def test_an_optimizers_state_goes_from_a_cpu_to_where_there_are_graphs_and_back(cls: Any) -> None:
    def make() -> th.optim.Optimizer:
        return make_optimizer(cls, [th.nn.Parameter(th.ones(2))], 1e-3)

    on_cpu = make()
    on_cpu.param_groups[0]["params"][0].grad = th.ones(2)
    on_cpu.step()
    saved = on_cpu.state_dict()
    with graphs_on_cpu():
        capturable = make()
    assert capturable.param_groups[0]["capturable"] and not saved["param_groups"][0]["capturable"]
    load_optimizer(capturable, saved)
    assert capturable.param_groups[0]["capturable"]
    (state,) = capturable.state.values()
    assert state["step"].dtype == th.float32 and float(state["step"]) == 1
    load_optimizer(on_cpu, capturable.state_dict())
    assert not on_cpu.param_groups[0]["capturable"]
    elsewhere = cls([th.nn.Parameter(th.ones(2, device="meta"))], capturable=True)
    load_optimizer(elsewhere, saved)
    assert all(value.is_meta for state in elsewhere.state.values() for value in state.values() if isinstance(value, th.Tensor))
