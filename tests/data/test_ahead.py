"""Batches that a thread gathers ahead are those that would have been gathered when they were asked for, whatever happens."""

import _thread
import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from worlds import make_agent, make_dataset, snapshot

from sb3_genoffline import load_dataset
from sb3_genoffline.data.ahead import DEPTH, gathered_ahead
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.returns import ReturnSampler
from sb3_genoffline.data.sampling import IndexSampler, TransitionSampler
from sb3_genoffline.data.sarsa import SarsaSampler
from sb3_genoffline.data.sequences import SequenceSampler

B = 16
KINDS: dict[str, Callable[..., Any]] = {
    "transitions": TransitionSampler,
    "sarsa": SarsaSampler,
    "returns": lambda buffer, **more: ReturnSampler(buffer, 0.9, **more),
    "sequences": lambda buffer, **more: SequenceSampler(buffer, 3, padding="before", discount=0.9, **more),
}


def make_buffer(data: Any = None) -> OfflineBuffer:
    data = data or make_dataset()
    return OfflineBuffer(9, data.observation_space, data.action_space, "cpu", dataset=data, seed=0)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert threads() == []


def gatherings(sampler: IndexSampler[Any]) -> list[tuple[bool, list[int]]]:
    """Whether a thread gathered, and which items, each time, from now on."""
    found: list[tuple[bool, list[int]]] = []
    gather = sampler.gather

    def spy(numbers: th.Tensor) -> Any:
        found.append((threading.current_thread() is not threading.main_thread(), numbers.tolist()))
        return gather(numbers)

    sampler.gather = spy  # type: ignore[method-assign]
    return found


def same(first: Any, second: Any) -> bool:
    return all(a is b is None or th.equal(a, b) for a, b in zip(first, second, strict=True))


def assert_same_state(first: Any, second: Any) -> None:
    ours, theirs = first.state_dict(), second.state_dict()
    assert all(th.equal(th.as_tensor(ours[key]), th.as_tensor(theirs[key])) for key in ours if key != "device")


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_states_are_the_same_with_the_thread_and_without(kind: str, replacement: bool) -> None:
    plain, ahead = (KINDS[kind](make_buffer(), replacement=replacement, seed=3) for _ in range(2))
    found = gatherings(ahead)
    with gathered_ahead(ahead, True):
        for _ in range(11):  # of four or so an epoch
            assert same(plain.draw(B), ahead.draw(B))
            assert_same_state(plain, ahead)
        assert len(threads()) == 1
    assert found and all(threaded for threaded, _ in found)
    if not replacement:  # none was gathered twice
        assert len({tuple(numbers) for _, numbers in found}) == len(found)
    assert ahead.ahead is None and same(plain.draw(B), ahead.draw(B))


def test_several_are_at_work_before_they_are_asked_for() -> None:
    sampler = TransitionSampler(make_buffer(), replacement=True, seed=0)
    gate, begun, gather = threading.Event(), [], sampler.gather

    def wait(numbers: th.Tensor) -> Any:
        begun.append(numbers)
        if len(begun) == 2:
            gate.wait(10)
        return gather(numbers)

    sampler.gather = wait  # type: ignore[method-assign]
    with gathered_ahead(sampler, True):
        sampler.draw(B)  # comes although the thread is stuck with the next one
        assert sampler.ahead is not None and len(sampler.ahead._waiting) == DEPTH  # type: ignore[attr-defined]
        gate.set()
        sampler.draw(B)


def add_row(sampler: TransitionSampler) -> None:
    zeros = np.zeros((1, 3), np.float32)
    buffer: Any = sampler.buffer
    buffer.add(zeros, zeros, np.zeros((1, 2), np.float32), np.array([9.0]), np.array([False]), [{}])


BETWEEN: dict[str, Callable[[Any], Any]] = {
    "another draw": lambda sampler: sampler.draw(B),
    "a draw of another size": lambda sampler: sampler.draw(B // 2),
    "another seed": lambda sampler: sampler.generator.manual_seed(8),
    "a state that is loaded": lambda sampler: sampler.load_state_dict(TransitionSampler(make_buffer(), seed=8).state_dict()),
    "an online row": add_row,
}


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("between", BETWEEN)
def test_what_comes_between_changes_what_it_changes_without_the_thread(between: str, replacement: bool) -> None:
    plain, ahead = (TransitionSampler(make_buffer(), replacement=replacement, seed=3) for _ in range(2))
    with gathered_ahead(ahead, True):
        for number in range(9):
            assert same(plain.draw(B), ahead.draw(B))
            if number % 3 == 1:
                for sampler in (plain, ahead):
                    BETWEEN[between](sampler)
        assert_same_state(plain, ahead)


def test_returns_that_are_planned_anew_are_in_the_next_batch() -> None:
    plain, ahead = (KINDS["returns"](make_buffer(), seed=3) for _ in range(2))
    with gathered_ahead(ahead, True):
        for number in range(8):
            assert same(plain.draw(B), ahead.draw(B))
            if number == 1:
                for sampler in (plain, ahead):
                    sampler.replan(np.linspace(-1.0, 2.0, len(sampler)), 0.9)


def failing(sampler: IndexSampler[Any], at: int) -> IndexSampler[Any]:
    """A sampler whose n-th batch can't be read."""
    gather, n_gathered = sampler.gather, iter(range(100))

    def fail(numbers: th.Tensor) -> Any:
        if next(n_gathered) == at:
            raise OSError(5, "the disk is gone")
        return gather(numbers)

    sampler.gather = fail  # type: ignore[method-assign]
    return sampler


def test_an_error_of_the_thread_is_raised_where_its_batch_is_asked_for() -> None:
    sampler = failing(TransitionSampler(make_buffer(), replacement=True, seed=0), at=3)
    with pytest.raises(OSError, match="the disk is gone") as caught, gathered_ahead(sampler, True):
        for drawn in range(9):  # noqa: B007
            sampler.draw(B)
    assert drawn == 3 and caught.traceback[-1].name == "fail" and sampler.ahead is None


def test_ctrl_c_ends_the_wait_for_a_batch() -> None:
    sampler = TransitionSampler(make_buffer(), seed=0)
    gate = threading.Event()

    def stuck(numbers: th.Tensor) -> None:
        if not gate.is_set():
            _thread.interrupt_main()  # as Ctrl-C does
            gate.wait(10)

    sampler.gather = stuck  # type: ignore[assignment, method-assign]
    with gathered_ahead(sampler, True):
        with pytest.raises(KeyboardInterrupt):
            sampler.draw(B)
        assert not gate.is_set()
        gate.set()


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda sampler: pickle.loads(pickle.dumps(sampler))])
def test_a_copy_has_no_thread_and_draws_the_same(copy_of: Callable[[Any], Any]) -> None:
    sampler = TransitionSampler(make_buffer(), seed=0)
    with gathered_ahead(sampler, True):
        sampler.draw(B)
        copied = copy_of(sampler)
        assert copied.ahead is None and len(threads()) == 1
        assert same(copied.draw(B), sampler.draw(B))


def test_it_is_done_where_rows_are_mapped_or_where_the_agent_says_so(tmp_path: Path) -> None:
    data = make_dataset()
    names = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
    for name in names:
        np.save(tmp_path / f"{name}.npy", getattr(data, name))
    arrays = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in names}
    arrays |= {"observation_space": data.observation_space, "action_space": data.action_space}
    assert (
        not make_buffer().gathers_slowly
        and not OfflineBuffer(9, data.observation_space, data.action_space, "cpu").gathers_slowly
    )
    agents = {}
    for source, wanted, expected in [(data, None, 0), (arrays, None, 1), (arrays, False, 0), (data, True, 1)]:
        model = agents[source is data, wanted] = make_agent("td3_bc")
        model.gather_ahead = wanted
        alive = []
        model.learn_offline(load_dataset(source), 9, callback=lambda *_: alive.append(len(threads())) or True)  # noqa: B023
        assert alive == [expected] * 9
    found = [snapshot(model) for model in agents.values()]
    assert all(other[name] == found[0][name] for other in found for name in found[0] if name != "data")  # which names the data


@pytest.mark.parametrize("algo", ["td3_bc", "onestep", "sfbc", "decision_transformer"])  # one of each kind of batch
def test_a_training_is_the_same_and_so_is_one_that_is_broken_off_saved_and_resumed(algo: str, tmp_path: Path) -> None:
    data, changes = make_dataset(), {"behavior_steps": 2} if algo in ("onestep", "sfbc") else {}
    plain, whole, broken = (make_agent(algo, **changes) for _ in range(3))
    plain.gather_ahead, whole.gather_ahead, broken.gather_ahead = False, True, True
    plain.learn_offline(data, 10)
    whole.learn_offline(data, 10)

    def stop(state: dict[str, Any], _: Any) -> bool:
        if state["self"].num_timesteps == 6:
            state["self"].save(tmp_path / "agent.zip")  # while batches wait that nobody has asked for
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        broken.learn_offline(data, 10, callback=stop)
    assert threads() == []
    resumed = type(broken).load(tmp_path / "agent.zip", device="cpu")
    resumed.gather_ahead = True
    resumed.learn_offline(data, 4, reset_num_timesteps=False)
    assert snapshot(plain) == snapshot(whole) == snapshot(resumed)


def test_fits_read_the_datasets_own_observations() -> None:
    """No second copy of them is made, and the numbers are the buffer's."""
    buffer = make_buffer()
    assert buffer.dataset is not None
    states, actions = buffer.states_and_actions()
    assert states.data_ptr() == buffer.dataset.observations.ctypes.data
    rows = buffer.rows_at(th.arange(len(states)))
    assert th.equal(states, rows.observations) and th.equal(actions, rows.actions)
