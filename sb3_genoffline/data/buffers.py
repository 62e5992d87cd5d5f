"""The rows that training uses: the dataset's on the training device, and online rows behind them."""

import warnings
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer
from torch import Tensor

from sb3_genoffline.data.batches import TransitionBatch
from sb3_genoffline.data.blocks import is_mapped, row_blocks
from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.sampling import TransitionSampler
from sb3_genoffline.data.transforms import clip_actions, scale_actions
from sb3_genoffline.errors import UserError

__all__ = ["OfflineBuffer", "TransitionBatch"]


class OfflineBuffer(BaseBuffer):
    """
    The rows of a batch as ``[s | a | r | s' | mask]``. On a CPU the offline ones are gathered from the dataset's arrays, of
    which there is no second copy: they may be larger than the memory, if they are memory-mapped. On a GPU they lie packed in
    its memory, so that a batch is a single gather, or on the CPU where they would take more than half of what is free there.

    Offline rows are never overwritten; up to ``buffer_size`` online rows (:meth:`add`) follow them and wrap around among
    themselves. In what order rows are drawn is a :class:`~sb3_genoffline.data.sampling.TransitionSampler`'s business: the
    buffer has one for SB3's :meth:`sample`, and others may draw from it too.

    :param buffer_size: number of online rows kept
    :param observation_space: flat Box
    :param action_space: bounded Box; actions are stored scaled to [−1, 1]
    :param device: where the rows live
    :param n_envs: number of environments that :meth:`add` gets rows from at once
    :param dataset: offline rows (None: none)
    :param reward_scale: stored reward = ``reward_scale·r + reward_shift``, for offline and online rows
    :param reward_shift: see ``reward_scale``
    :param replacement: of the buffer's own sampler
    :param action_bound: offline and online actions are clipped to ± this value after scaling (DAC: 1 − 1e-5)
    :param seed: of the buffer's own sampler
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        *,
        dataset: OfflineDataset | None = None,
        reward_scale: float = 1.0,
        reward_shift: float = 0.0,
        replacement: bool = False,
        action_bound: float = 1.0 - 1e-5,
        seed: int | None = None,
    ) -> None:
        super().__init__(buffer_size, observation_space, action_space, device, n_envs)
        assert isinstance(action_space, spaces.Box)
        self.reward_scale, self.reward_shift = reward_scale, reward_shift
        self.action_bound = action_bound
        self.dataset = dataset
        obs_dim = int(np.prod(self.obs_shape))
        self._widths = [obs_dim, self.action_dim, 1, obs_dim, 1]
        self._dtype = th.get_default_dtype()
        ends = np.cumsum(self._widths).tolist()
        self._columns = (slice(ends[0]), slice(*ends[:2]), ends[1], slice(*ends[2:4]), ends[3])
        self.n_offline = 0 if dataset is None else len(dataset)
        self._online = th.empty((0, sum(self._widths)), device=self.device)
        self._packed = self._on_device() if self.device.type == "cuda" else None
        self.sampler = TransitionSampler(self, replacement=replacement, seed=seed)

    def _on_device(self) -> Tensor | None:
        """All offline rows in the device's memory; None where they would take more than half of what is free."""
        shape = (self.n_offline, sum(self._widths))
        if 4 * shape[0] * shape[1] > th.cuda.mem_get_info(self.device)[0] / 2:
            return None
        packed = th.empty(shape, device=self.device)
        for block in row_blocks(self.n_offline):
            packed[block] = self._offline_rows(np.arange(block.start, block.stop)).to(self.device)
        return packed

    @property
    def gathers_slowly(self) -> bool:
        """Whether offline rows come from mapped files, or go to a GPU: batches are then worth gathering ahead."""
        if self.dataset is None or self._packed is not None:
            return False
        return self.device.type == "cuda" or is_mapped(self.dataset.observations)

    def states_and_actions(self) -> tuple[Tensor, Tensor]:
        """
        Raw observations (N, S) and actions (N, A) of the offline rows, not to be written to: on a CPU the observations are the
        dataset's own memory, and on a GPU both are the packed rows'.
        """
        if self._packed is not None:
            return self._packed[:, self._columns[0]], self._packed[:, self._columns[1]]
        data = self.dataset
        assert data is not None
        actions = np.empty(data.actions.shape, dtype=np.float32)
        for block in row_blocks(self.n_offline):
            actions[block] = clip_actions(scale_actions(data.actions[block], self.action_space), self.action_bound)  # type: ignore[arg-type]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the observations are read-only
            tensors = th.from_numpy(data.observations), th.from_numpy(actions)
        states, scaled = (tensor.to(self.device, self._dtype) for tensor in tensors)
        return states, scaled

    def _offline_rows(self, rows: np.ndarray) -> Tensor:
        """Offline rows, packed, on the CPU; ``take`` needs a quarter of the time of indexing."""
        data = self.dataset
        assert data is not None
        return self._pack(
            data.observations.take(rows, axis=0),
            scale_actions(data.actions.take(rows, axis=0), self.action_space),  # type: ignore[arg-type]
            data.rewards.take(rows),
            data.next_observations.take(rows, axis=0),
            data.terminations.take(rows),
        )

    def _pack(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        next_observations: np.ndarray,
        terminations: np.ndarray,
    ) -> Tensor:
        """Arrays with the same number of rows, actions scaled and the rest raw -> packed rows (on the CPU)."""
        packed = np.empty((len(rewards), sum(self._widths)), dtype=np.float32)
        states, acts, reward, following, mask = self._columns
        packed[:, states] = observations.reshape(len(packed), -1)
        packed[:, acts] = clip_actions(actions.reshape(len(packed), -1), self.action_bound)
        packed[:, reward] = self.reward_scale * rewards.astype(np.float64) + self.reward_shift
        packed[:, following] = next_observations.reshape(len(packed), -1)
        packed[:, mask] = ~terminations
        return th.from_numpy(packed).to(self._dtype)

    def holds(self, dataset: OfflineDataset, reward_scale: float, reward_shift: float) -> bool:
        """Whether the offline rows are this dataset's with these rewards."""
        same = self.dataset is not None and self.dataset.fingerprint == dataset.fingerprint
        return same and (self.reward_scale, self.reward_shift) == (reward_scale, reward_shift)

    @property
    def n_online(self) -> int:
        """Number of online rows held."""
        return self.buffer_size if self.full else self.pos

    def size(self) -> int:
        """Number of rows that can be sampled."""
        return self.n_offline + self.n_online

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """
        Append one online row per environment. Time-outs (``TimeLimit.truncated`` in the infos) keep the bootstrap.

        :param action: (n_envs, A), already scaled to [−1, 1] as SB3's off-policy algorithms store it
        """
        if len(self._online) == 0:
            self._online = self._empty_rows(self.buffer_size)
        timeouts = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        rows = self._pack(obs, action, reward, next_obs, np.asarray(done, dtype=bool) & ~timeouts)
        for row in rows:
            self._online[self.pos] = row
            self.pos += 1
            if self.pos == self.buffer_size:
                self.full, self.pos = True, 0

    def _set_online_rows(self, online: Tensor) -> None:
        self._online = th.cat([online, self._empty_rows(self.buffer_size - len(online))])

    def _empty_rows(self, n_rows: int) -> Tensor:
        """:raises UserError: if there is no memory for them"""
        width = sum(self._widths)
        try:
            return th.empty((n_rows, width), device=self.device)
        except (RuntimeError, MemoryError) as error:
            gib = 4 * width * self.buffer_size / 2**30
            raise UserError(
                f"buffer_size={self.buffer_size:,} rows of what is collected online take {gib:,.1f} GiB, which are not "
                "there: set a smaller buffer_size."
            ) from error

    def adopt_online_rows(self, other: "OfflineBuffer") -> None:
        """
        Take over the online rows of another buffer of the same size, with this one's reward transform.

        :param other: the buffer this one replaces
        """
        if other.n_online == 0:
            return
        online = other._online[: other.n_online].clone()
        reward = online[:, sum(self._widths[:2])]
        reward.copy_((reward - other.reward_shift) / other.reward_scale * self.reward_scale + self.reward_shift)
        self._set_online_rows(online)
        self.pos, self.full = other.pos, other.full

    def sample(self, batch_size: int, env: Any = None) -> TransitionBatch:
        """
        The next batch of the buffer's own sampler.

        :param batch_size: B; the last batch of an epoch may hold fewer rows
        :param env: unused, there for SB3's signature: normalisation is the policy's
        """
        return self.sampler.draw(batch_size)

    @property
    def generator(self) -> th.Generator:
        """Of the buffer's own sampler."""
        return self.sampler.generator

    def _next_indices(self, batch_size: int) -> Tensor:
        return self.sampler.next_indices(batch_size)

    def rows_at(self, indices: Tensor) -> TransitionBatch:
        """The transitions at the given rows (offline rows come first)."""
        observations, actions, rewards, next_observations, masks = th.split(self._rows_at(indices), self._widths, dim=1)
        return TransitionBatch(observations, actions, rewards.squeeze(1), next_observations, masks.squeeze(1))

    def _rows_at(self, indices: Tensor) -> Tensor:
        """(B,) -> (B, width), on the device"""
        if self.n_online == 0:
            return self._offline_at(indices)
        if self.n_offline == 0:
            return self._online[indices]
        online = self._online[(indices - self.n_offline).clamp(min=0)]
        offline = self._offline_at(indices.clamp(max=self.n_offline - 1))
        return th.where((indices < self.n_offline).unsqueeze(1), offline, online)

    def _offline_at(self, indices: Tensor) -> Tensor:
        if self._packed is not None:
            return self._packed[indices]
        rows = self._offline_rows(indices.cpu().numpy())
        if self.device.type == "cuda":
            rows = rows.pin_memory().to(self.device, non_blocking=True)
        return rows

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        return self.rows_at(th.as_tensor(batch_inds, device=self.device))

    def observation_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and population std of the offline observations, each (S,)."""
        assert self.dataset is not None
        observations = self.dataset.observations
        mean = observations.mean(axis=0, dtype=np.float64)
        squares = sum(np.square(observations[block] - mean).sum(axis=0) for block in row_blocks(self.n_offline))
        std = np.sqrt(squares / self.n_offline)
        return th.as_tensor(mean, dtype=th.float32, device=self.device), th.as_tensor(
            std, dtype=th.float32, device=self.device
        )

    def online_state_dict(self) -> dict[str, Any]:
        """The rows that were added online; the offline rows are the dataset's."""
        online = self._online[: self.n_online].cpu()
        return {"online_rows": online, "pos": self.pos, "full": self.full}

    def load_online_state_dict(self, state: dict[str, Any]) -> None:
        """
        :param state: of :meth:`online_state_dict`
        :raises UserError: if they are more rows than ``buffer_size``
        """
        online = state["online_rows"].to(self.device)
        if len(online) > self.buffer_size:
            raise UserError(f"{len(online)} online rows were saved, more than buffer_size={self.buffer_size}: make it larger.")
        self.pos, self.full = state["pos"], state["full"]
        if len(online) > 0:
            self._set_online_rows(online)

    def state_dict(self, online_rows: bool = True) -> dict[str, Any]:
        """
        Where the buffer's own sampler stands, and the online rows: enough to go on bit for bit with the same dataset.

        :param online_rows: with the rows that were added online
        """
        none = {"online_rows": self._online[:0].cpu(), "pos": 0, "full": False}
        return self.sampler.state_dict() | (self.online_state_dict() if online_rows else none)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on where :meth:`state_dict` was taken. Of a state of another kind of device, its online rows only.

        :param state: of a buffer with the same dataset
        :raises UserError: if there are more online rows than ``buffer_size``
        """
        self.load_online_state_dict(state)
        self.sampler.load_state_dict(state)
