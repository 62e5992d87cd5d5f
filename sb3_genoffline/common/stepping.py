"""
How an update, or a step of a fit, is run: by Python, or, on CUDA, as a graph that was recorded once and is launched by one
call.

An update of a few small networks is hundreds of kernels that each take microseconds: a GPU waits for Python. A graph has no
Python in it, and so nothing in it may be decided on the host. What is decided there is named: ``phase`` (which parts run: one
graph for each) and ``number_now`` (learning rates: scalars on the device, filled before each launch). Everything else that
changes lies in tensors that stay where they are.
"""

import copy
import gc
import warnings
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from typing import Any, Protocol

import torch as th
from torch import Tensor, cuda

WARM_UP = 3
"""Updates that Python runs before a graph is recorded, as torch asks for. They are updates like all others: none is lost."""
GRAPH_DEVICES = ("cuda",)
"""Kinds of devices that have graphs."""


class RecordingError(RuntimeError):
    """An update can't be recorded as a graph; nothing has been changed by trying."""


class Stepped(Protocol):
    """Whose updates are run: an algorithm, or a fit."""

    graph: bool
    stepper: "Stepper"

    @property
    def generator(self) -> th.Generator | None:
        """All random numbers of an update come from it; None if it draws none."""

    def phase(self) -> Hashable:
        """Which parts of the coming update run."""


class StaticUpdate:
    """
    One update whose inputs always lie at the same place: what a graph can be recorded of.

    :param stepper: whose it is
    :param batch: gives the inputs their shapes
    """

    def __init__(self, stepper: "Stepper", batch: Any) -> None:
        self.stepper = stepper
        self.batch = _like(batch, (None if part is None else part.clone() for part in batch))
        self.device = device_of(batch)
        self._numbers: list[tuple[Callable[[], float], Tensor]] = []
        self._filled: list[float] = []
        self._asked = 0

    def fill(self, batch: Any) -> None:
        """:param batch: the inputs of the coming update, of the same shapes"""
        pairs = [(own, new) for own, new in zip(self.batch, batch, strict=True) if own is not None]
        th._foreach_copy_([own for own, _ in pairs], [new for _, new in pairs])
        for position, (number, tensor) in enumerate(self._numbers):
            value = number()
            if value != self._filled[position]:
                tensor.fill_(value)
                self._filled[position] = value

    def run(self) -> dict[str, Tensor]:
        """Run it, with nothing decided on the host but what was filled in."""
        self._asked, self.stepper.at_work = 0, self
        try:
            return self.stepper.run(self.batch)
        finally:
            self.stepper.at_work = None

    def number(self, of: Callable[[], float]) -> Tensor:
        """The scalar on the device of the next number that the update asks for; updates of a phase ask for the same ones."""
        if self._asked == len(self._numbers):
            # float32 is what the kernels on CUDA take; on a CPU nothing is rounded, so that bits can be compared
            dtype = th.float32 if self.device.type == "cuda" else th.float64
            self._filled.append(of())
            self._numbers.append((of, th.full((), self._filled[-1], dtype=dtype, device=self.device)))
        self._asked += 1
        return self._numbers[self._asked - 1][1]


class Recorder:
    """
    Where the graphs of one algorithm or fit are recorded: a stream beside the usual one, and memory that they share, as only
    one of them runs at a time.

    :param device: of all tensors
    """

    def __init__(self, device: th.device) -> None:
        self.device = device
        with cuda.device(device):
            self._stream: Any = cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._pool: Any = cuda.graph_pool_handle()

    def warm_up(self, run: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Run by Python on the stream that graphs are recorded on."""
        usual = cuda.current_stream(self.device)
        self._stream.wait_stream(usual)
        with cuda.device(self.device), cuda.stream(self._stream):
            result = run()
        usual.wait_stream(self._stream)
        return result

    def record(self, run: Callable[[], dict[str, Tensor]], generator: th.Generator | None) -> tuple[Any, dict[str, Tensor]]:
        """
        Record without running: the graph draws the generator's numbers afresh in each launch.

        :return: the graph, and the tensors into which it writes its results
        :raises RecordingError: if it can't be recorded
        """
        before = None if generator is None else generator.get_state()
        gc.collect()  # what is freed while recording could end it
        try:
            with cuda.device(self.device):
                cuda.synchronize(self.device)
                cuda.empty_cache()
                return self._record(run, generator)
        except Exception as error:
            self._end_failed_recording(generator)
            if generator is not None and before is not None:
                generator.set_state(before)
            first: BaseException = error
            while first.__context__ is not None:  # the end of a recording that went wrong raises too, and says less
                first = first.__context__
            raise RecordingError(str(first) or type(first).__name__) from error

    def _record(self, run: Callable[[], dict[str, Tensor]], generator: th.Generator | None) -> tuple[Any, dict[str, Tensor]]:
        graph = cuda.CUDAGraph()
        if generator is not None:
            graph.register_generator_state(generator)
        with cuda.stream(self._stream):
            # other threads may call CUDA meanwhile, as those that make batches ready do
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                result = run()
            finally:
                graph.capture_end()
        return graph, result

    def _end_failed_recording(self, generator: th.Generator | None) -> None:
        """Some versions of torch leave the generators of a failed recording as if it went on; that of nothing ends it."""
        with suppress(RuntimeError), warnings.catch_warnings(), cuda.device(self.device):
            warnings.simplefilter("ignore")  # that the graph is empty
            empty = cuda.CUDAGraph()
            if generator is not None:
                empty.register_generator_state(generator)
            with cuda.stream(cuda.Stream(self.device)):  # type: ignore[no-untyped-call]
                empty.capture_begin()
                empty.capture_end()


class GraphedUpdate:
    """
    A static update on CUDA: by Python a few times, then recorded, then launched.

    :param static: the update
    :param recorder: where its graph is recorded
    """

    def __init__(self, static: StaticUpdate, recorder: Recorder) -> None:
        self.static, self.recorder = static, recorder
        self.graph: Any = None
        self._metrics: dict[str, Tensor] = {}
        self._n_warm = 0

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """
        :param batch: of the shapes that it was made with
        :raises RecordingError: if it can't be recorded
        """
        self.static.fill(batch)
        if self._n_warm < WARM_UP:
            self._n_warm += 1
            return self.recorder.warm_up(self.static.run)
        if self.graph is None:
            self.graph, self._metrics = self.recorder.record(self.static.run, self.static.stepper.owner.generator)
        self.graph.replay()
        return self._metrics


class Stepper:
    """
    Runs the updates of one algorithm or fit: one graph for each phase and size of a batch on CUDA, and Python elsewhere.

    :param owner: whose updates they are
    :param run: one update on a batch: draws what it needs from the owner's generator, and returns scalars to log
    """

    def __init__(self, owner: Stepped, run: Callable[[Any], dict[str, Tensor]]) -> None:
        self.owner, self.run = owner, run
        self.at_work: StaticUpdate | None = None
        """The update that is run with static inputs just now, if one is."""
        self.failure: str | None = None
        """Why updates can't be recorded, once that was tried in vain."""
        self._updates: dict[Hashable, GraphedUpdate] = {}
        self._recorder: Recorder | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Stepper":
        """A copy of the owner records its own graphs, of its own tensors."""
        return Stepper(copy.deepcopy(self.owner, memo), copy.deepcopy(self.run, memo))

    @property
    def n_graphs(self) -> int:
        """How many graphs are recorded."""
        return sum(update.graph is not None for update in self._updates.values())

    def forget(self) -> None:
        """Drop what was recorded: a setting, or where a tensor lies, has changed."""
        self._updates, self._recorder = {}, None

    def number(self, of: Callable[[], float]) -> float | Tensor:
        """A number that is reckoned on the host for the coming update: a scalar on the device where it is recorded."""
        return of() if self.at_work is None else self.at_work.number(of)

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """
        One update.

        :param batch: B rows
        :return: scalars to log, valid until the next update
        """
        if self.owner.graph and self.failure is None and device_of(batch).type in GRAPH_DEVICES:
            try:
                return self._graphed(batch)
            except RecordingError as error:
                self.failure = str(error)
                self.forget()
                warnings.warn(
                    f"{type(self.owner).__name__}'s update can't be recorded as a CUDA graph, so Python runs it, which is "
                    f"slower (`model.graph = False` says so from the start): {error}",
                    stacklevel=4,
                )
        return self.run(batch)

    def _graphed(self, batch: Any) -> dict[str, Tensor]:
        key = (self.owner.phase(), tuple(None if part is None else part.shape for part in batch))
        if key not in self._updates:
            if self._recorder is None:
                self._recorder = Recorder(device_of(batch))
            self._updates[key] = GraphedUpdate(StaticUpdate(self, batch), self._recorder)
        return self._updates[key](batch)


def device_of(batch: Any) -> th.device:
    """Where a batch lies."""
    device: th.device = next(part.device for part in batch if part is not None)
    return device


def _like(batch: Any, parts: Iterable[Tensor | None]) -> Any:
    """Parts as a tuple of the batch's kind."""
    return batch._make(parts) if hasattr(batch, "_make") else tuple(parts)
