"""
How an update is run: by Python, or, on CUDA, as a graph that was recorded once and is launched by one call.

An update of a few small networks is hundreds of kernels that each take microseconds: a GPU waits for Python. A graph has no
Python in it, and so nothing in it may be decided on the host. What is decided there is named: :meth:`phase
<sb3_genoffline.common.offline_algorithm.OfflineAlgorithm.phase>` (which parts run: one graph for each) and
:meth:`number_now <sb3_genoffline.common.offline_algorithm.OfflineAlgorithm.number_now>` (learning rates: scalars on the
device, filled before each launch). Everything else that changes lies in tensors that stay where they are.
"""

import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch as th
from torch import Tensor

WARM_UP = 3
"""Updates that Python runs before a graph is recorded, as torch asks for. They are updates like all others: none is lost."""


class StaticUpdate:
    """
    One update whose inputs always lie at the same place: what a graph can be recorded of.

    :param agent: the algorithm
    :param batch: gives the inputs their shapes
    """

    def __init__(self, agent: Any, batch: Any) -> None:
        self.agent = agent
        self.batch = type(batch)(*(None if part is None else part.clone() for part in batch))
        self.n_rows = len(batch[0])
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
        """Draw the update's random numbers and run it, with nothing decided on the host but what was filled in."""
        self._asked, self.agent.stepper.at_work = 0, self
        try:
            metrics: dict[str, Tensor] = self.agent.update(self.batch, self.agent.draw_noise(self.n_rows))
        finally:
            self.agent.stepper.at_work = None
        return metrics

    def number(self, of: Callable[[], float]) -> Tensor:
        """The scalar on the device of the next number that the update asks for; updates of a phase ask for the same ones."""
        if self._asked == len(self._numbers):
            device = self.agent.device
            # float32 is what the kernels on CUDA take; on a CPU nothing is rounded, so that bits can be compared
            dtype = th.float32 if device.type == "cuda" else th.float64
            self._filled.append(of())
            self._numbers.append((of, th.full((), self._filled[-1], dtype=dtype, device=device)))
        self._asked += 1
        return self._numbers[self._asked - 1][1]


class CudaUpdate:
    """
    A static update on CUDA: by Python a few times, then recorded, then launched.

    :param static: the update
    """

    def __init__(self, static: StaticUpdate) -> None:
        self.static = static
        self._stream = th.cuda.Stream(static.agent.device)  # type: ignore[no-untyped-call]
        self._graph: th.cuda.CUDAGraph | None = None
        self._metrics: dict[str, Tensor] = {}
        self._n_warm = 0

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """
        :param batch: of the shapes that it was made with
        :raises RuntimeError: where the update can't be recorded; nothing has been changed by it
        """
        self.static.fill(batch)
        if self._n_warm < WARM_UP:
            return self._warm_up()
        if self._graph is None:
            self._record()
        assert self._graph is not None
        self._graph.replay()
        return self._metrics

    def _warm_up(self) -> dict[str, Tensor]:
        self._n_warm += 1
        current = th.cuda.current_stream(self.static.agent.device)
        self._stream.wait_stream(current)
        with th.cuda.stream(self._stream):
            metrics = self.static.run()
        current.wait_stream(self._stream)
        return metrics

    def _record(self) -> None:
        """Recording runs nothing; the generator's numbers are drawn anew by each launch."""
        generator = self.static.agent.generator
        before = generator.get_state()
        graph = th.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        try:
            with th.cuda.graph(graph):
                self._metrics = self.static.run()
        except RuntimeError:
            generator.set_state(before)
            raise
        self._graph = graph


class Stepper:
    """
    Runs the updates of one agent: one graph for each phase and size of a batch on CUDA, and Python elsewhere.

    :param agent: the algorithm
    """

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.at_work: StaticUpdate | None = None
        """The update that is run with static inputs just now, if one is."""
        self._updates: dict[Hashable, CudaUpdate] = {}
        self._failed = False

    @property
    def uses_graphs(self) -> bool:
        """Whether updates are launched as graphs."""
        return self.agent.graph and self.agent.device.type == "cuda" and not self._failed

    def forget(self) -> None:
        """Drop what was recorded: a setting, or where a tensor lies, has changed."""
        self._updates = {}

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """
        One update.

        :param batch: B rows
        :return: scalars to log, valid until the next update
        """
        if self.uses_graphs:
            try:
                return self._graphed(batch)
            except RuntimeError as error:
                self._failed = True
                self.forget()
                warnings.warn(
                    f"{type(self.agent).__name__}'s update can't be recorded as a CUDA graph, so Python runs it, which is "
                    f"slower (`model.graph = False` says so from the start): {error}",
                    stacklevel=4,
                )
        metrics: dict[str, Tensor] = self.agent.update(batch, self.agent.draw_noise(len(batch[0])))
        return metrics

    def _graphed(self, batch: Any) -> dict[str, Tensor]:
        key = (self.agent.phase(), tuple(None if part is None else part.shape for part in batch))
        if key not in self._updates:
            self._updates[key] = CudaUpdate(StaticUpdate(self.agent, batch))
        return self._updates[key](batch)
