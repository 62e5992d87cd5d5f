"""The buffer that training samples from: the dataset's rows on the training device, and online rows behind them."""

from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer
from torch import Tensor

from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.transforms import clip_actions, scale_actions


class TransitionBatch(NamedTuple):
    """
    B transitions as the losses want them.

    :param observations: (B, S)
    :param actions: (B, A), scaled to [−1, 1]
    :param rewards: (B,), transformed
    :param next_observations: (B, S)
    :param masks: (B,) 1 − termination: 0 where the task ended and nothing is bootstrapped; time-outs keep 1
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    masks: Tensor


class OfflineBuffer(BaseBuffer):
    """
    One packed array ``[s | a | r | s' | mask]`` on the training device, so that a batch is a single gather.

    Offline rows are never overwritten; up to ``buffer_size`` online rows (:meth:`add`) follow them and wrap around among
    themselves. Without online rows, batches are consecutive slices of a random permutation (every row once an epoch, then
    reshuffled; the last slice of an epoch may be shorter), as the DAC reference samples; with online rows, or with
    ``replacement=True``, rows are drawn uniformly with replacement. The buffer owns its random generator.

    :param buffer_size: number of online rows kept
    :param observation_space: flat Box
    :param action_space: bounded Box; actions are stored scaled to [−1, 1]
    :param device: where the rows live
    :param n_envs: number of environments that :meth:`add` gets rows from at once
    :param dataset: offline rows (None: none)
    :param reward_scale: stored reward = ``reward_scale·r + reward_shift``, for offline and online rows
    :param reward_shift: see ``reward_scale``
    :param replacement: sample with replacement
    :param action_bound: offline and online actions are clipped to ± this value after scaling (DAC: 1 − 1e-5)
    :param seed: of the buffer's generator
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
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
        self.replacement = replacement
        self.action_bound = action_bound
        self.dataset = dataset
        obs_dim = int(np.prod(self.obs_shape))
        self._widths = [obs_dim, self.action_dim, 1, obs_dim, 1]
        self.n_offline = 0 if dataset is None else len(dataset)
        self._rows = th.empty((self.n_offline, sum(self._widths)), device=self.device)
        if dataset is not None:
            self._rows.copy_(
                self._pack(
                    dataset.observations,
                    scale_actions(dataset.actions, action_space),
                    dataset.rewards,
                    dataset.next_observations,
                    dataset.terminations,
                )
            )
        self.generator = th.Generator(self.device)
        self.generator.manual_seed(int(th.randint(2**62, (1,))) if seed is None else seed)
        self._epoch_rng = self.generator.get_state()
        self._permutation: Tensor | None = None
        self._cursor = 0

    def _pack(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        next_observations: np.ndarray,
        terminations: np.ndarray,
    ) -> Tensor:
        """Arrays with the same number of rows, actions scaled and the rest raw -> packed float32 rows (on the CPU)."""
        n = len(rewards)
        scaled = clip_actions(np.asarray(actions).reshape(n, -1), self.action_bound)
        columns = [
            np.asarray(observations).reshape(n, -1),
            scaled,
            self.reward_scale * np.asarray(rewards, dtype=np.float64).reshape(n, 1) + self.reward_shift,
            np.asarray(next_observations).reshape(n, -1),
            1.0 - np.asarray(terminations, dtype=np.float32).reshape(n, 1),
        ]
        return th.from_numpy(np.concatenate([column.astype(np.float32, copy=False) for column in columns], axis=1))

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
        if len(self._rows) == self.n_offline:
            online = th.empty((self.buffer_size, self._rows.shape[1]), device=self.device)
            self._rows = th.cat([self._rows, online])
        timeouts = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        rows = self._pack(obs, action, reward, next_obs, np.asarray(done, dtype=bool) & ~timeouts)
        for row in rows:
            self._rows[self.n_offline + self.pos] = row
            self.pos += 1
            if self.pos == self.buffer_size:
                self.full, self.pos = True, 0

    def _set_online_rows(self, online: Tensor) -> None:
        empty = th.empty((self.buffer_size - len(online), self._rows.shape[1]), device=self.device)
        self._rows = th.cat([self._rows[: self.n_offline], online, empty])

    def adopt_online_rows(self, other: "OfflineBuffer") -> None:
        """
        Take over the online rows of another buffer of the same size, with this one's reward transform.

        :param other: the buffer this one replaces
        """
        if other.n_online == 0:
            return
        online = other._rows[other.n_offline : other.n_offline + other.n_online].clone()
        reward = online[:, sum(self._widths[:2])]
        reward.copy_((reward - other.reward_shift) / other.reward_scale * self.reward_scale + self.reward_shift)
        self._set_online_rows(online)
        self.pos, self.full = other.pos, other.full

    def sample(self, batch_size: int, env: Any = None) -> TransitionBatch:
        """
        :param batch_size: B; the last batch of an epoch may hold fewer rows
        :param env: unused, there for SB3's signature: normalisation is the policy's
        """
        return self.rows_at(self._next_indices(batch_size))

    def _next_indices(self, batch_size: int) -> Tensor:
        if self.size() == 0:
            raise ValueError("The buffer is empty: call learn_offline(dataset) first, or collect rows with learn().")
        if self.replacement or self.n_online > 0:
            return th.randint(self.size(), (batch_size,), generator=self.generator, device=self.device)
        if self._permutation is None or self._cursor >= self.n_offline:
            self._epoch_rng = self.generator.get_state()
            self._permutation = th.randperm(self.n_offline, generator=self.generator, device=self.device)
            self._cursor = 0
        indices = self._permutation[self._cursor : self._cursor + batch_size]
        self._cursor += len(indices)
        return indices

    def rows_at(self, indices: Tensor) -> TransitionBatch:
        """The transitions at the given rows (offline rows come first)."""
        observations, actions, rewards, next_observations, masks = self._rows[indices].split(self._widths, dim=1)
        return TransitionBatch(observations, actions, rewards.squeeze(1), next_observations, masks.squeeze(1))

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        return self.rows_at(th.as_tensor(batch_inds, device=self.device))

    def observation_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and population std of the offline observations, each (S,)."""
        observations = self._rows[: self.n_offline, : self._widths[0]].double()
        return observations.mean(0).float(), observations.std(0, correction=0).float()

    def state_dict(self, online_rows: bool = True) -> dict[str, Any]:
        """
        Where the sampler stands (not the offline rows, which are the dataset's): enough to go on bit for bit.

        :param online_rows: with the rows that were added online
        """
        rng = self.generator.get_state() if self._permutation is None else self._epoch_rng
        n_online = self.n_online if online_rows else 0
        return {
            "device": self.device.type,
            "rng": rng,
            "mid_epoch": self._permutation is not None and not (self.replacement or self.n_online > 0),
            "cursor": self._cursor,
            "online_rng": self.generator.get_state(),
            "online_rows": self._rows[self.n_offline : self.n_offline + n_online].cpu(),
            "pos": self.pos if online_rows else 0,
            "full": self.full and online_rows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on where :meth:`state_dict` was taken; the offline rows must be those of the same dataset. A state of another kind
        of device gives its online rows only: its generator's state means nothing here.
        """
        online = state["online_rows"].to(self.device)
        if len(online) > self.buffer_size:
            raise ValueError(
                f"{len(online)} online rows were saved, more than buffer_size={self.buffer_size}: make it larger."
            )
        self.pos, self.full = state["pos"], state["full"]
        if len(online) > 0:
            self._set_online_rows(online)
        self._permutation, self._cursor = None, 0
        if state.get("device", self.device.type) != self.device.type:
            return
        if state["mid_epoch"]:
            self.generator.set_state(state["rng"])
            self._epoch_rng = state["rng"]
            self._permutation = th.randperm(self.n_offline, generator=self.generator, device=self.device)
            self._cursor = state["cursor"]
        self.generator.set_state(state["online_rng"])
