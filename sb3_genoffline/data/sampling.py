"""In what order rows are drawn: shuffled epochs or with replacement, resumed bit for bit."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import torch as th
from torch import Tensor

from sb3_genoffline.data.batches import TransitionBatch
from sb3_genoffline.errors import UserError

BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


class Sampler(Protocol[BatchT_co]):
    """What the training loop asks for batches: one sampler a family of batches."""

    def draw(self, batch_size: int) -> BatchT_co:
        """
        :param batch_size: B; the last batch of an epoch may hold fewer rows
        """

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""


class _Ahead(Protocol[BatchT_co]):
    """What gathers batches before they are asked for: :class:`~sb3_genoffline.data.ahead.Ahead`."""

    def take(self, numbers: Tensor, coming: Callable[[], Iterator[Tensor]]) -> BatchT_co:
        """The batch of these items."""

    def forget(self) -> None:
        """The items have changed."""

    def close(self) -> None:
        """End the thread."""


class Rows(Protocol):
    """What :class:`TransitionSampler` draws from; an :class:`~sb3_genoffline.data.buffers.OfflineBuffer` is one."""

    device: th.device
    n_offline: int

    @property
    def n_online(self) -> int:
        """Number of online rows held, behind the offline ones."""

    def size(self) -> int:
        """Number of rows, offline and online."""

    def rows_at(self, indices: Tensor) -> TransitionBatch:
        """The transitions at the given rows (B,)."""


class IndexStream:
    """
    Random numbers of items, from a generator of its own: consecutive slices of a permutation (every item once an epoch, then
    reshuffled; the last slice of an epoch may be shorter), or independent draws.

    :param device: of the generator and the numbers
    :param seed: of the generator; None takes one from torch's global generator
    """

    def __init__(self, device: th.device | str, seed: int | None = None) -> None:
        self.device = th.device(device)
        self.generator = th.Generator(self.device)
        self.generator.manual_seed(int(th.randint(2**62, (1,))) if seed is None else seed)
        self._epoch_rng = self.generator.get_state()
        self._permutation: Tensor | None = None
        self._cursor = 0

    def draw(self, n_items: int, batch_size: int) -> Tensor:
        """
        :param n_items: any number
        :param batch_size: B
        :return: int64 (B,), independent and uniform; an epoch that was begun is given up
        """
        self._permutation = None
        return th.randint(n_items, (batch_size,), generator=self.generator, device=self.device)

    def next_of_epoch(self, n_items: int, batch_size: int) -> Tensor:
        """
        :param n_items: the same in every call
        :param batch_size: B
        :return: int64 (B,), or fewer at the end of an epoch; none twice in an epoch
        """
        if self._permutation is None or self._cursor >= n_items:
            self._begin_epoch(n_items)
        assert self._permutation is not None
        indices = self._permutation[self._cursor : self._cursor + batch_size]
        self._cursor += len(indices)
        return indices

    def _begin_epoch(self, n_items: int) -> None:
        self._epoch_rng = self.generator.get_state()
        self._permutation = th.randperm(n_items, generator=self.generator, device=self.device)
        self._cursor = 0

    def coming(self, n_items: int, batch_size: int) -> Iterator[Tensor]:
        """What :meth:`draw` will return next, without drawing it."""
        ahead = th.Generator(self.device)
        ahead.set_state(self.generator.get_state())
        while True:
            yield th.randint(n_items, (batch_size,), generator=ahead, device=self.device)

    def rest_of_epoch(self, n_items: int, batch_size: int) -> Iterator[Tensor]:
        """What :meth:`next_of_epoch` will return next, without drawing it, up to the end of the epoch that was begun."""
        permutation = self._permutation
        for start in range(self._cursor, n_items if permutation is not None else 0, batch_size):
            assert permutation is not None
            yield permutation[start : start + batch_size]

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, without the permutation, which is drawn again from the state that the epoch began with."""
        mid_epoch = self._permutation is not None
        return {
            "device": self.device.type,
            "rng": self._epoch_rng if mid_epoch else self.generator.get_state(),
            "mid_epoch": mid_epoch,
            "cursor": self._cursor,
            "online_rng": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any], n_items: int) -> None:
        """
        Go on where :meth:`state_dict` was taken. A state of another kind of device is left alone, as its generator's state
        means nothing here: the stream then begins an epoch.

        :param state: of a stream
        :param n_items: of the epoch that was begun
        """
        self._permutation, self._cursor = None, 0
        if state.get("device", self.device.type) != self.device.type:
            return
        if state["mid_epoch"]:
            self.generator.set_state(state["rng"])
            self._begin_epoch(n_items)
            self._cursor = state["cursor"]
        self.generator.set_state(state["online_rng"])


class IndexSampler(ABC, Generic[BatchT]):
    """
    Batches of numbered items: consecutive slices of a random permutation, or with ``replacement=True`` independent draws.

    :param device: of the numbers
    :param replacement: draw items with replacement
    :param seed: of the sampler's generator; None takes one from torch's global generator
    """

    def __init__(self, device: th.device | str, *, replacement: bool = False, seed: int | None = None) -> None:
        self.replacement = replacement
        self._stream = IndexStream(device, seed)
        self.ahead: _Ahead[BatchT] | None = None
        """Gathers the coming batches in a thread, while :func:`~sb3_genoffline.data.ahead.gathered_ahead` lasts."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of items that are drawn from."""

    @abstractmethod
    def gather(self, numbers: Tensor) -> BatchT:
        """
        The batch of some items. It only reads what stays as it is, or calls :meth:`forget_ahead` when that changes.

        :param numbers: int64 (B,), 0 to ``len(sampler) − 1``
        """

    @property
    def generator(self) -> th.Generator:
        """Of the order of items, and of nothing else."""
        return self._stream.generator

    def next_indices(self, batch_size: int) -> Tensor:
        """Items of the next batch, int64 (B,), which :meth:`draw` gathers."""
        draw = self._stream.draw if self.replacement else self._stream.next_of_epoch
        return draw(len(self), batch_size)

    def coming_indices(self, batch_size: int) -> Iterator[Tensor]:
        """What :meth:`next_indices` will return next, as far as that is known."""
        coming = self._stream.coming if self.replacement else self._stream.rest_of_epoch
        return coming(len(self), batch_size)

    def draw(self, batch_size: int) -> BatchT:
        """
        :param batch_size: B; the last batch of an epoch may hold fewer items
        """
        numbers = self.next_indices(batch_size)
        if self.ahead is None:
            return self.gather(numbers)
        return self.ahead.take(numbers, lambda: self.coming_indices(batch_size))

    def forget_ahead(self) -> None:
        """What items hold has changed: batches that were gathered ahead are gathered anew."""
        if self.ahead is not None:
            self.ahead.forget()

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands: enough to go on bit for bit, with the same items."""
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on where :meth:`state_dict` was taken; a state of another kind of device is left alone.

        :param state: of a sampler of the same items
        """
        self._stream.load_state_dict(state, len(self))


class TransitionSampler(IndexSampler[TransitionBatch]):
    """
    Batches of transitions. Without online rows they are consecutive slices of a random permutation, as the DAC reference
    samples; with online rows, or with ``replacement=True``, rows are drawn uniformly with replacement.

    :param buffer: rows to draw from
    :param replacement: always draw with replacement
    :param seed: of the sampler's generator; None takes one from torch's global generator
    """

    def __init__(self, buffer: Rows, *, replacement: bool = False, seed: int | None = None) -> None:
        super().__init__(buffer.device, replacement=replacement, seed=seed)
        self.buffer = buffer

    def __len__(self) -> int:
        """Number of rows of an epoch: the offline ones."""
        return self.buffer.n_offline

    def gather(self, numbers: Tensor) -> TransitionBatch:
        """The transitions at the given rows."""
        return self.buffer.rows_at(numbers)

    def draw(self, batch_size: int) -> TransitionBatch:
        """
        :param batch_size: B; the last batch of an epoch may hold fewer rows
        :raises UserError: if there are no rows
        """
        return super().draw(batch_size)

    def next_indices(self, batch_size: int) -> Tensor:
        """Rows of the next batch, int64 (B,), which :meth:`draw` gathers."""
        if self.buffer.size() == 0:
            raise UserError("The buffer is empty: call learn_offline(dataset) first, or collect rows with learn().")
        if self.buffer.n_online > 0:
            return self._stream.draw(self.buffer.size(), batch_size)
        return super().next_indices(batch_size)

    def coming_indices(self, batch_size: int) -> Iterator[Tensor]:
        """None are known where there are online rows: these may be others by then."""
        return iter(()) if self.buffer.n_online > 0 else super().coming_indices(batch_size)
