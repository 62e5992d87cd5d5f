"""Batches that a thread gathers before they are asked for: rows that lie in files, or go to a GPU, take a while."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch as th
from torch import Tensor

from sb3_genoffline.data.sampling import IndexSampler

BatchT = TypeVar("BatchT")
DEPTH = 4
"""Batches that are ready, or at work, beyond the one that is asked for."""


class Ahead(Generic[BatchT]):
    """
    Gathers what a sampler will probably be asked for next. The order of the items is still drawn when a batch is asked for: a
    batch that was gathered ahead is handed out only if it holds the very items that were drawn, and else it is gathered anew.
    So batches, the sampler's state and what is saved of it are the same with the thread and without.

    :param gather: gives the batch of some items; only reads, as it runs in the thread
    """

    def __init__(self, gather: Callable[[Tensor], BatchT]) -> None:
        self._gather = gather
        self._waiting: deque[tuple[Tensor, Future[BatchT]]] = deque()
        self._coming: Iterator[Tensor] = iter(())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._thread.submit(bool).result()  # it is known before Ctrl-C can come between its start and that

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """A copied or pickled sampler has no thread."""
        return type(None), ()

    def take(self, numbers: Tensor, coming: Callable[[], Iterator[Tensor]]) -> BatchT:
        """
        :param numbers: items of the batch, as they were drawn
        :param coming: what is drawn next if nothing comes between
        :return: the batch; an error of the thread is raised here
        """
        if self._waiting and th.equal(self._waiting[0][0], numbers):
            batch = self._waiting.popleft()[1]
        else:
            self.forget()
            batch = self._thread.submit(self._gather, numbers)
            self._coming = coming()
        while len(self._waiting) < DEPTH and (following := next(self._coming, None)) is not None:
            self._waiting.append((following, self._thread.submit(self._gather, following)))
        return batch.result()

    def forget(self) -> None:
        """What was gathered ahead is not what it was: the items have changed, or others are wanted."""
        for _, batch in self._waiting:
            batch.cancel()
        self._waiting.clear()

    def close(self) -> None:
        """End the thread, after the batch that it is at."""
        self._thread.shutdown(cancel_futures=True)


@contextmanager
def gathered_ahead(sampler: object, wanted: bool) -> Iterator[None]:
    """
    While this lasts a sampler's batches are gathered ahead; the thread ends with it, whatever ends it.

    :param sampler: one that is no :class:`~sb3_genoffline.data.sampling.IndexSampler` goes on as it is
    :param wanted: False leaves it as it is
    """
    if not wanted or not isinstance(sampler, IndexSampler) or sampler.ahead is not None:
        yield
        return
    sampler.ahead = Ahead(sampler.gather)
    try:
        yield
    finally:
        ahead, sampler.ahead = sampler.ahead, None
        ahead.close()
