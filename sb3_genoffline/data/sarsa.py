"""Transitions with the action that the data took next, as methods need them that learn the value of behaviour (SARSA)."""

import warnings
from typing import Any

import numpy as np
import torch as th
from torch import Tensor

from sb3_genoffline.data.batches import SarsaBatch
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.sampling import IndexSampler
from sb3_genoffline.data.windows import trajectory_ends
from sb3_genoffline.errors import UserError

_FEW_ROWS = 0.5


def sarsa_rows(dataset: OfflineDataset) -> np.ndarray:
    """
    The rows that SARSA can learn from: those that terminate, and those of which the next action is known because the next row
    goes on from them. Left out is the last row of an episode that a time limit cut, and of one whose recording breaks off.

    :param dataset: in time order
    :return: int64 (M,), increasing
    :raises UserError: if there is none
    """
    last = np.zeros(len(dataset), bool)
    last[trajectory_ends(dataset) - 1] = True
    rows = np.flatnonzero(~last | dataset.terminations)
    if len(rows) == 0:
        raise UserError(
            f"No row of the {len(dataset)} terminates or is followed by another one of its episode, so no next action is "
            "known: SARSA needs rows in time order, in episodes of more than one step."
        )
    if len(rows) < _FEW_ROWS * len(dataset):
        warnings.warn(
            f"The next action is known of only {len(rows)} of {len(dataset)} rows, and the others are left out: are the rows "
            "in time order?",
            stacklevel=2,
        )
    return rows


class SarsaSampler(IndexSampler[SarsaBatch]):
    """
    Batches of :func:`sarsa_rows` of a buffer's offline rows: consecutive slices of a random permutation, or with
    ``replacement=True`` independent draws. Online rows are never drawn.

    :param buffer: with a dataset
    :param replacement: draw rows with replacement
    :param seed: of the sampler's generator; None takes one from torch's global generator
    :raises UserError: if there is no row to draw
    """

    def __init__(self, buffer: OfflineBuffer, *, replacement: bool = False, seed: int | None = None) -> None:
        if buffer.dataset is None:
            raise UserError("The buffer has no offline rows, and only those have a known next action: give it a dataset.")
        rows = sarsa_rows(buffer.dataset)
        following = np.where(buffer.dataset.terminations[rows], rows, rows + 1)
        super().__init__(buffer.device, replacement=replacement, seed=seed)
        self.buffer = buffer
        self._rows, self._following = (th.as_tensor(numbers, device=buffer.device) for numbers in (rows, following))

    def __len__(self) -> int:
        """Number of rows that are drawn from."""
        return len(self._rows)

    def draw_by(self, generator: th.Generator, batch_size: int) -> SarsaBatch:
        """
        Independent draws, which leave the order of :meth:`draw` alone.

        :param generator: on the buffer's device
        :param batch_size: B
        """
        return self.gather(th.randint(len(self), (batch_size,), generator=generator, device=generator.device))

    def gather(self, numbers: Tensor) -> SarsaBatch:
        """
        :param numbers: int64 (B,), 0 to ``len(sampler) − 1``
        """
        next_actions = self.buffer.rows_at(self._following[numbers]).actions
        return SarsaBatch(*self.buffer.rows_at(self._rows[numbers]), next_actions)

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands: enough to go on bit for bit, with the same dataset."""
        return super().state_dict() | {"n_rows": len(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on where :meth:`state_dict` was taken; a state of another kind of device is left alone.

        :param state: of a sampler of the same rows
        :raises UserError: if it had another number of rows
        """
        if state["n_rows"] != len(self):
            raise UserError(
                f"The saved sampler drew from {state['n_rows']} rows, and here are {len(self)}: continue with the same "
                "dataset."
            )
        super().load_state_dict(state)
