"""Rows with the return that followed, as methods need them that regress Q on returns, and returns improved by planning."""

import warnings
from typing import Any, Literal

import numpy as np
import torch as th
from torch import Tensor

from sb3_genoffline.data.batches import ReturnBatch
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.sampling import IndexSampler
from sb3_genoffline.data.sequences import returns_to_go
from sb3_genoffline.errors import UserError

PlanningTarget = Literal["code", "paper"]
_SMALLEST_SCALE = 0.1
_FEW_ROWS = 0.5


def planned_returns(
    rewards: np.ndarray, values: np.ndarray, episode_ends: np.ndarray, discount: float, form: PlanningTarget = "code"
) -> np.ndarray:
    """
    Returns where a better way than the data's may be taken in each state. Nothing follows an episode's last row, whether it
    terminates or is cut. Backwards over the rows of each episode:

    - ``"paper"``: R_t = r_t + γ·max(R_{t+1}, V_{t+1})
    - ``"code"``: R_t = max(r_t + γ·R_{t+1}, V_t), which is max(R_t of ``"paper"``, V_t)

    :param rewards: (N,)
    :param values: V of the rows' states, (N,)
    :param episode_ends: int (E,), exclusive, increasing, the last one N
    :param discount: γ
    :param form: see above
    :return: float64 (N,)
    """
    lengths = np.diff(episode_ends, prepend=0)
    left = np.repeat(episode_ends, lengths) - np.arange(len(rewards))
    # x -> max(sum + γ^reach·x, best) takes the return of `reach` rows later to that of a row; two such maps in a row are one
    # again, so that doubling takes few passes, and none over episodes. Behind the end x is 0, which `last` rows never read.
    sums, best = np.array(rewards, dtype=np.float64), np.array(values, dtype=np.float64)
    reach = 1
    while reach < lengths.max():
        rows = np.flatnonzero(left > reach)
        following = rows + reach
        best[rows] = np.maximum(best[rows], sums[rows] + discount**reach * best[following])
        sums[rows] += discount**reach * sums[following]
        reach *= 2
    improved: np.ndarray = np.maximum(sums, best)
    if form == "code":
        return improved
    following = np.where(left > 1, np.append(improved[1:], 0.0), 0.0)
    return np.asarray(rewards + discount * following, dtype=np.float64)


class ReturnSampler(IndexSampler[ReturnBatch]):
    """
    Batches of a buffer's offline rows with their returns. At first these are the discounted rewards to the end of
    the episode, where nothing is bootstrapped, whether it terminates or is cut; :meth:`replan` improves them. Batches are
    consecutive slices of a random permutation, or with ``replacement=True`` independent draws.

    :param buffer: with a dataset in time order
    :param discount: γ of the first returns
    :param min_episode_length: rows of shorter episodes are left out
    :param replacement: draw rows with replacement
    :param seed: of the sampler's generator; None takes one from torch's global generator
    :raises UserError: if there is no row to draw
    """

    def __init__(
        self,
        buffer: OfflineBuffer,
        discount: float,
        *,
        min_episode_length: int = 1,
        replacement: bool = False,
        seed: int | None = None,
    ) -> None:
        dataset = buffer.dataset
        if dataset is None:
            raise UserError("The buffer has no offline rows, and only those have known returns: give it a dataset.")
        lengths = dataset.episode_lengths()
        kept = lengths >= min_episode_length
        if not kept.any():
            raise UserError(
                f"min_episode_length={min_episode_length} leaves no row: the longest of {len(lengths)} episodes has "
                f"{lengths.max()}."
            )
        rows = np.flatnonzero(np.repeat(kept, lengths))
        if len(rows) < _FEW_ROWS * len(dataset):
            warnings.warn(
                f"Only {len(rows)} of {len(dataset)} rows are learned from: the others are of episodes that are shorter than "
                f"min_episode_length={min_episode_length}.",
                stacklevel=2,
            )
        super().__init__(buffer.device, replacement=replacement, seed=seed)
        self.buffer = buffer
        self._rows = th.as_tensor(rows, device=buffer.device)
        self._rewards = buffer.reward_scale * dataset.rewards[rows].astype(np.float64) + buffer.reward_shift
        self._ends = np.cumsum(lengths[kept])
        self.n_plans = 0
        """How often the returns were improved."""
        self.n_drawn = 0
        """Batches drawn since then."""
        self._take(returns_to_go(self._rewards, self._ends, discount))

    def __len__(self) -> int:
        """Number of rows that are drawn from."""
        return len(self._rows)

    def _take(self, returns: np.ndarray) -> None:
        self.forget_ahead()
        self.returns = returns
        self.mean, self.scale = float(returns.mean()), max(float(returns.std()), _SMALLEST_SCALE)
        on_device = [returns, self.mean, self.scale]
        options: dict[str, Any] = {"dtype": th.get_default_dtype(), "device": self.buffer.device}
        self._returns, self._mean, self._scale = (th.as_tensor(numbers, **options) for numbers in on_device)

    def draw(self, batch_size: int) -> ReturnBatch:
        """
        :param batch_size: B; the last batch of an epoch may hold fewer rows
        """
        self.n_drawn += 1
        return super().draw(batch_size)

    def draw_by(self, generator: th.Generator, batch_size: int) -> ReturnBatch:
        """
        Independent draws, which leave the order of :meth:`draw` alone.

        :param generator: on the buffer's device
        :param batch_size: B
        """
        return self.gather(th.randint(len(self), (batch_size,), generator=generator, device=generator.device))

    def gather(self, numbers: Tensor) -> ReturnBatch:
        """
        :param numbers: int64 (B,), 0 to ``len(sampler) − 1``
        """
        rows = self.buffer.rows_at(self._rows[numbers])
        return ReturnBatch(rows.observations, rows.actions, self._returns[numbers], self._mean, self._scale)

    def observations_at(self, part: slice) -> Tensor:
        """:param part: of the rows that are drawn from; their observations, raw"""
        return self.buffer.rows_at(self._rows[part]).observations

    def replan(self, values: np.ndarray, discount: float, form: PlanningTarget = "code") -> None:
        """
        Improve the returns.

        :param values: V of the rows' states, standardised as the returns until now, (N,)
        :param discount: γ
        :param form: see :func:`planned_returns`
        """
        self._take(planned_returns(self._rewards, self.mean + self.scale * values, self._ends, discount, form))
        self.n_plans, self.n_drawn = self.n_plans + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands: enough to go on bit for bit, with the same dataset."""
        own = {"returns": th.as_tensor(self.returns), "n_plans": self.n_plans, "n_drawn": self.n_drawn}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on where :meth:`state_dict` was taken. The order of rows of another kind of device is left alone.

        :param state: of a sampler of the same rows; not trusted
        :raises UserError: if it had another number of rows, or its numbers can't be
        """
        returns, counts = state["returns"], [state["n_plans"], state["n_drawn"]]
        if not isinstance(returns, Tensor) or returns.shape != (len(self),):
            found = len(returns) if isinstance(returns, Tensor) and returns.ndim == 1 else "no list of"
            raise UserError(
                f"The saved sampler has {found} returns, and here are {len(self)} rows: continue with the same dataset."
            )
        if not returns.isfinite().all() or not all(type(count) is int and count >= 0 for count in counts):
            raise UserError("The saved sampler has returns that are not finite, or counts that are not whole numbers.")
        self._take(returns.cpu().numpy().astype(np.float64))
        self.n_plans, self.n_drawn = counts
        super().load_state_dict(state)
