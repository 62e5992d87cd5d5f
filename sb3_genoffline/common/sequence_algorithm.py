"""What algorithms share that learn from windows of episodes."""

import warnings
from typing import Any

import numpy as np

from sb3_genoffline.common.offline_algorithm import NoiseT, OfflineAlgorithm
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.data.batches import SequenceBatch
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.sequences import SequenceSampler, count_starts
from sb3_genoffline.errors import UserError

_FEW_WINDOWS = 0.5


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
            self._check_windows(int(counts.sum()), buffer.dataset)
        return SequenceSampler(buffer, counts=counts, replacement=self.replacement, seed=self._buffer_seed, **wanted)

    def _check_windows(self, n_windows: int, dataset: OfflineDataset) -> None:
        """Windows overlap: rows that start none are seen less, or, in episodes without a window, never."""
        if n_windows == 0:
            raise UserError(
                f"No row of the data starts a window of {type(self).__name__}: of {dataset.n_episodes} episodes the longest "
                f"has {dataset.episode_lengths().max()} steps. Episodes of two steps or more that end are needed, and a "
                "horizon below max_episode_steps."
            )
        if n_windows < _FEW_WINDOWS * len(dataset):
            warnings.warn(
                f"Only {n_windows} of {len(dataset)} rows start a window that {type(self).__name__} trains on: the others are "
                "of episodes that are not known to have ended, their last rows, or beyond max_episode_steps.",
                stacklevel=2,
            )


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
