"""What algorithms share that learn from windows of episodes."""

from typing import Any

import numpy as np

from sb3_genoffline.common.offline_algorithm import NoiseT, OfflineAlgorithm
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.data.batches import SequenceBatch
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.sequences import SequenceSampler, count_starts
from sb3_genoffline.errors import UserError


class SequenceAlgorithm(OfflineAlgorithm[SequenceBatch, NoiseT]):
    """
    An algorithm whose batches are windows of consecutive steps. An episode that the log cuts off, whose last row neither
    terminates nor truncates it, has none: what would have come is not known. It does not go on online.

    A subclass says in :meth:`window_arguments` which windows it wants. The arguments are those of
    :class:`~sb3_genoffline.common.learner.Learner`.
    """

    goes_online = False
    batches: SequenceSampler

    def window_arguments(self) -> dict[str, Any]:
        """``horizon`` and the other arguments of :class:`~sb3_genoffline.data.sequences.SequenceSampler` that are wanted."""
        raise NotImplementedError

    def count_windows(self, lengths: np.ndarray) -> np.ndarray:
        """
        :param lengths: int (E,) steps of episodes
        :return: int (E,) windows of each, which start at its first rows: as many as there can be
        """
        wanted = self.window_arguments()
        return count_starts(lengths, wanted["horizon"], wanted.get("padding"))

    def make_sampler(self, buffer: OfflineBuffer) -> SequenceSampler:
        """
        See :meth:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm.make_sampler`.

        :param buffer: the rows
        :raises UserError: if no episode of the data ends
        """
        wanted, counts = self.window_arguments(), None
        if buffer.dataset is not None:
            counts = self.count_windows(buffer.dataset.episode_lengths()) * ended_episodes(buffer.dataset)
        return SequenceSampler(buffer, counts=counts, replacement=self.replacement, seed=self._buffer_seed, **wanted)


def ended_episodes(dataset: OfflineDataset) -> np.ndarray:
    """
    :param dataset: of episodes
    :return: whether each of them ends, bool (E,)
    :raises UserError: if none does
    """
    last = dataset.episode_ends - 1
    ended = dataset.terminations[last] | dataset.truncations[last]
    if not ended.any():
        raise UserError(
            f"None of the {dataset.n_episodes} episodes ends: their last rows are neither terminations nor truncations, so "
            "what came after them is unknown. Mark the rows that end an episode in `terminals` or `timeouts`."
        )
    return np.asarray(ended)
