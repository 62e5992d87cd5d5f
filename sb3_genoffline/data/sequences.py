"""Windows of consecutive steps of one episode, as Decision Transformer and Diffuser train on."""

from typing import Any, Literal, get_args

import numpy as np
import torch as th
from torch import Tensor

from sb3_genoffline.data.batches import SequenceBatch
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.sampling import IndexSampler
from sb3_genoffline.errors import UserError

Padding = Literal["before", "after"]


class SequenceSampler(IndexSampler[SequenceBatch]):
    """
    Batches of windows. A window that starts at row p of an episode that ends at e (exclusive) holds the rows p to
    min(p + H, e) − 1. If these are fewer than H, the rest is padding: before the rows, as Decision Transformer has it, or
    after them, as Diffuser has it. A window never goes on into another episode.

    No window is stored, only the row that each starts at. Windows are consecutive slices of a random permutation (every
    window once an epoch), or with ``replacement=True`` independent draws. Online rows of a buffer are in no window.

    :param source: a buffer, whose rewards are transformed and whose actions are scaled to [−1, 1], or a dataset: raw rewards,
        actions scaled likewise
    :param horizon: H, steps of a window
    :param padding: ``"before"`` or ``"after"``: every row starts a window; None: windows of H steps alone, so that episodes
        that are shorter have none
    :param counts: (E,) number of windows of each episode, which start at its first rows (None: as many as ``padding`` says)
    :param discount: γ of ``returns_to_go``; None leaves them out
    :param raw_returns: whether ``returns_to_go`` are of the dataset's rewards, not of the transformed ones
    :param termination_penalty: added, in ``returns_to_go`` alone, to the reward of a step that terminates its episode
    :param replacement: draw windows with replacement
    :param seed: of the sampler's generator; None takes one from torch's global generator
    :param device: of the rows of a dataset; a buffer has its own
    :raises UserError: for a bad argument, or if there is no window
    """

    def __init__(
        self,
        source: OfflineBuffer | OfflineDataset,
        horizon: int,
        *,
        padding: Padding | None = None,
        counts: Any = None,
        discount: float | None = None,
        raw_returns: bool = False,
        termination_penalty: float = 0.0,
        replacement: bool = False,
        seed: int | None = None,
        device: th.device | str = "auto",
    ) -> None:
        if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or horizon < 1:
            raise UserError(f"horizon={horizon!r} must be a whole number of at least 1.")
        if padding not in (None, *get_args(Padding)):
            raise UserError(f"padding={padding!r} is not known; use None, 'before' or 'after'.")
        if discount is not None and not 0.0 <= discount <= 1.0:
            raise UserError(f"discount={discount} must lie in [0, 1].")
        if isinstance(source, OfflineDataset):
            source = OfflineBuffer(1, source.observation_space, source.action_space, device, dataset=source)
        if source.dataset is None:
            raise UserError("The buffer has no offline rows, and windows are drawn from those: give it a dataset.")
        dataset = source.dataset
        super().__init__(source.device, replacement=replacement, seed=seed)
        self.buffer, self.horizon, self.padding = source, horizon, padding
        counts = count_starts(dataset.episode_lengths(), horizon, padding) if counts is None else counts
        starts = _starts(dataset, _checked_counts(counts, dataset.episode_lengths(), horizon, padding))
        if len(starts) == 0:
            raise UserError(
                f"There is no window of horizon={horizon} steps: the longest of {dataset.n_episodes} episodes has "
                f"{dataset.episode_lengths().max()} steps. Use a smaller horizon, or padding."
            )
        self._starts = th.as_tensor(starts, device=source.device)
        self._ends = th.as_tensor(dataset.episode_ends.copy(), device=source.device)
        self._returns: Tensor | None = None
        if discount is not None:
            rewards = dataset.rewards.astype(np.float64)
            if not raw_returns:
                rewards = source.reward_scale * rewards + source.reward_shift
            rewards = rewards + termination_penalty * dataset.terminations
            returns = returns_to_go(rewards, dataset.episode_ends, discount)
            self._returns = th.as_tensor(returns, dtype=th.get_default_dtype(), device=source.device)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._starts)

    def gather(self, numbers: Tensor) -> SequenceBatch:
        """
        :param numbers: int64 (B,) of windows, 0 to ``len(sampler) − 1``, in the order of their first rows
        """
        starts = self._starts[numbers].unsqueeze(1)  # (B, 1)
        episodes = th.searchsorted(self._ends, starts, right=True)
        ends = self._ends[episodes]
        first_rows = th.where(episodes > 0, self._ends[episodes - 1], 0)
        rows = starts + th.arange(self.horizon, device=starts.device)  # (B, H)
        if self.padding == "before":
            rows = rows - (starts + self.horizon - ends).clamp(min=0)
        valid = (rows >= starts) & (rows < ends)
        absent = ~valid
        rows = th.where(valid, rows, starts)
        batch = self.buffer.rows_at(rows.flatten())

        def window(column: Tensor) -> Tensor:
            shaped = column.view(*rows.shape, *column.shape[1:])
            return shaped.masked_fill(absent.view(*rows.shape, *(1 for _ in column.shape[1:])), 0)

        return SequenceBatch(
            window(batch.observations),
            window(batch.actions),
            window(batch.rewards),
            window(batch.masks),
            (rows - first_rows).masked_fill(absent, 0),
            valid,
            None if self._returns is None else self._returns[rows].masked_fill(absent, 0),
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands: enough to go on bit for bit, with the same dataset and arguments."""
        return super().state_dict() | {"n_windows": len(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on where :meth:`state_dict` was taken; a state of another kind of device is left alone.

        :param state: of a sampler of the same windows
        :raises UserError: if it had another number of windows
        """
        if state["n_windows"] != len(self):
            raise UserError(
                f"The saved sampler drew from {state['n_windows']} windows, and here are {len(self)}: continue with the same "
                "dataset, horizon and padding."
            )
        super().load_state_dict(state)


def count_starts(lengths: np.ndarray, horizon: int, padding: Padding | None) -> np.ndarray:
    """
    :param lengths: int (E,) steps of episodes
    :param horizon: H
    :param padding: see :class:`SequenceSampler`
    :return: int (E,) windows of each: one from every row, or without padding one from every row that H rows follow or are
    """
    return np.asarray(lengths if padding is not None else np.maximum(lengths - horizon + 1, 0))


def returns_to_go(rewards: np.ndarray, episode_ends: np.ndarray, discount: float) -> np.ndarray:
    """
    :param rewards: (N,)
    :param episode_ends: int (E,), exclusive, increasing, the last one N
    :param discount: γ
    :return: float64 (N,), Σ_i γ^i·r_{t+i} up to the end of row t's episode
    """
    lengths = np.diff(episode_ends, prepend=0)
    left = np.repeat(episode_ends, lengths) - np.arange(len(rewards))  # rows up to the episode's end, the row itself included
    returns = np.array(rewards, dtype=np.float64)
    reach = 1  # every entry is the sum over so many rows; doubling takes few passes, and none over episodes
    while reach < lengths.max():
        rows = np.flatnonzero(left > reach)
        returns[rows] += discount**reach * returns[rows + reach]
        reach *= 2
    return returns


def _checked_counts(counts: Any, lengths: np.ndarray, horizon: int, padding: Padding | None) -> np.ndarray:
    counts = np.asarray(counts)
    most = count_starts(lengths, horizon, padding)
    if counts.shape != lengths.shape or counts.dtype.kind not in "iu":
        raise UserError(
            f"counts has shape {counts.shape} and dtype {counts.dtype}; one integer for each of the {len(lengths)} episodes "
            "is needed."
        )
    wrong = (counts < 0) | (counts > most)
    if wrong.any():
        episode = int(np.argmax(wrong))
        raise UserError(
            f"counts[{episode}]={counts[episode]}, but the episode of {lengths[episode]} steps has 0 to {most[episode]} "
            f"windows of horizon={horizon} with padding={padding!r}."
        )
    return np.asarray(counts, dtype=np.int64)


def _starts(dataset: OfflineDataset, counts: np.ndarray) -> np.ndarray:
    """First rows of all windows, int64 (M,)."""
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, ... in each episode
    return np.asarray(np.repeat(dataset.episode_starts, counts) + number)
