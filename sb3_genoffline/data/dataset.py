"""The one form in which data reach an algorithm."""

import dataclasses
import hashlib
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from sb3_genoffline.data import validation
from sb3_genoffline.data.environments import make_matching_env
from sb3_genoffline.data.scores import ScoreScale, check_reference, known_reference
from sb3_genoffline.data.success import success_rate
from sb3_genoffline.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class OfflineDataset:
    """
    Logged transitions, frozen: N rows ``(s, a, r, s')`` in time order, episode after episode.

    Row t belongs to one step: ``next_observations[t]`` is what followed ``actions[t]`` in ``observations[t]``, at the end of
    an episode too, where ``observations[t + 1]`` is the start of another one. ``terminations`` and ``truncations`` say why an
    episode ended; ``episode_ends`` says where, and may hold ends that are neither (the log was cut).

    Everything is checked on construction. The arrays are read-only; those given writable are copied.

    :param observations: float32 ``(N, obs_dim)``.
    :param actions: float32 ``(N, act_dim)``, in the units of ``action_space`` (not rescaled). Values outside the space by
        float round-off (1e-4 of its half-width) are clipped; more is an error.
    :param rewards: float32 ``(N,)``, as logged.
    :param next_observations: float32 ``(N, obs_dim)``.
    :param terminations: bool ``(N,)``: the task ended here, do not bootstrap.
    :param truncations: bool ``(N,)``: cut off here (time limit), bootstrapping goes on.
    :param observation_space: Flat float32 ``Box`` of shape ``(obs_dim,)``.
    :param action_space: ``Box`` of shape ``(act_dim,)`` with finite bounds.
    :param episode_ends: int64 ``(E,)``, exclusive row ends of the episodes, increasing, the last one N. Default: after each
        termination or truncation, and N.
    :param id: Name of the data, if they have one.
    :param env_spec: The environment the data came from, if known.
    :param eval_env_spec: The environment to evaluate in; falls back to ``env_spec``.
    :param ref_min_score: Return that counts as 0 on the normalised scale (a random policy's). If neither is given, they come
        from the table in ``scores.py``, if it knows the id or environment.
    :param ref_max_score: Return that counts as 100 (an expert's).
    :raises UserError: On bad input, naming the array, the row, the value and the fix.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    observation_space: spaces.Box
    action_space: spaces.Box
    episode_ends: np.ndarray = None  # type: ignore[assignment]
    id: str | None = None
    env_spec: EnvSpec | None = None
    eval_env_spec: EnvSpec | None = None
    ref_min_score: float | None = None
    ref_max_score: float | None = None

    def __post_init__(self) -> None:
        validation.check_observation_space(self.observation_space)
        validation.check_action_space(self.action_space)
        obs_dim, act_dim = self.observation_space.shape[0], self.action_space.shape[0]
        if not isinstance(self.id, str | None):
            raise UserError(f"id = {repr(self.id)[:60]} is not a word; give the data a name, or None.")
        rows = {
            "observations": validation.float_rows("observations", self.observations, obs_dim),
            "actions": validation.float_rows("actions", self.actions, act_dim),
            "rewards": validation.float_rows("rewards", self.rewards, None),
            "next_observations": validation.float_rows("next_observations", self.next_observations, obs_dim),
            "terminations": validation.flag_rows("terminations", self.terminations),
            "truncations": validation.flag_rows("truncations", self.truncations),
        }
        n_rows = len(rows["observations"])
        for name, array in rows.items():
            if len(array) != n_rows:
                raise UserError(
                    f"{name} has {len(array)} rows, but observations has {n_rows}. "
                    "Every array needs one row per transition (T observations, not T + 1, for an episode of T steps)."
                )
        if n_rows == 0:
            raise UserError("The dataset is empty: it holds no transition. At least one is needed.")
        rows["actions"] = validation.clip_to_space(rows["actions"], self.action_space)
        ends = self.episode_ends
        if ends is None:
            closed = rows["terminations"] | rows["truncations"]
            ends = np.union1d(np.flatnonzero(closed) + 1, [n_rows])
        rows["episode_ends"] = validation.check_episode_ends(ends, n_rows)
        for name, array in rows.items():
            object.__setattr__(self, name, array)
        reference = (self.ref_min_score, self.ref_max_score)
        if self.ref_min_score is None and self.ref_max_score is None:
            reference = known_reference(self.id, self.eval_env_spec, self.env_spec) or (None, None)
        for name, value in zip(("ref_min_score", "ref_max_score"), check_reference(*reference), strict=True):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.observations)

    def __repr__(self) -> str:
        return (
            f"OfflineDataset(id={self.id!r}, transitions={len(self)}, episodes={self.n_episodes}, "
            f"obs_dim={self.observation_space.shape[0]}, act_dim={self.action_space.shape[0]})"
        )

    @property
    def n_episodes(self) -> int:
        return len(self.episode_ends)

    @property
    def episode_starts(self) -> np.ndarray:
        """First row of each episode, int64 ``(E,)``."""
        return np.concatenate([[0], self.episode_ends[:-1]]).astype(np.int64)

    def episode_lengths(self) -> np.ndarray:
        """Steps of each episode, int64 ``(E,)``."""
        return np.asarray(self.episode_ends - self.episode_starts)

    def episode_returns(self) -> np.ndarray:
        """Undiscounted sum of the rewards of each episode, float64 ``(E,)``."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.episode_starts)

    def normalized_score(self, returns: Any) -> np.ndarray:
        """
        D4RL's normalised score, as papers print it: 0 is a random policy, 100 an expert.

        :param returns: Undiscounted episode returns, any shape.
        :return: Scores of the same shape, float64.
        :raises UserError: If the reference returns are not known, naming the id.
        """
        if self.ref_min_score is None or self.ref_max_score is None:
            raise UserError(
                f"The reference returns of {self.id or 'this dataset'} are not known, so scores cannot be normalised. "
                "Give them: dataset.replace(ref_min_score=<random policy's return>, ref_max_score=<expert's return>)."
            )
        return ScoreScale("return", self.ref_min_score, self.ref_max_score).of(returns)

    @property
    def score_scale(self) -> ScoreScale | None:
        """How agents trained on the data are scored: by success in mazes, else by the return; None if it is not known."""
        names = (spec.id for spec in (self.eval_env_spec, self.env_spec) if spec is not None)
        return ScoreScale.known(self.id, *names, low=self.ref_min_score, high=self.ref_max_score)

    def summary(self) -> dict[str, Any]:
        """
        What a record of a training says about its data: plain JSON with ``id``, ``fingerprint``, ``n_transitions``,
        ``n_episodes``, ``mean_return``, ``success_rate`` (of a maze, else None), ``normalized_score`` (mean, None if the scale
        is not known), ``ref_min_score`` and ``ref_max_score``.
        """
        returns, scale = self.episode_returns(), self.score_scale
        successes = success_rate(self) if scale is not None and scale.kind == "success" else None
        return {
            "id": self.id,
            "fingerprint": self.fingerprint,
            "n_transitions": len(self),
            "n_episodes": self.n_episodes,
            "mean_return": float(returns.mean()),
            "success_rate": successes,
            "normalized_score": None if scale is None else float(scale.of(returns, successes).mean()),
            "ref_min_score": self.ref_min_score,
            "ref_max_score": self.ref_max_score,
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the arrays, episode ends and space bounds: equal for equal contents, on any machine and load."""
        digest = hashlib.sha256(b"sb3_genoffline dataset 1")
        for array in (
            self.observations,
            self.actions,
            self.rewards,
            self.next_observations,
            self.terminations,
            self.truncations,
            self.episode_ends,
            *(np.asarray(bound, np.float32) for s in (self.observation_space, self.action_space) for bound in (s.low, s.high)),
        ):
            digest.update(f"{array.shape}{array.dtype.str}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def replace(self, **changes: Any) -> "OfflineDataset":
        """
        A copy with some fields changed, checked like any other; untouched arrays are shared.

        :param changes: Fields by name.
        """
        return dataclasses.replace(self, **changes)

    def select_episodes(self, indices: Any) -> "OfflineDataset":
        """
        A dataset of some episodes, in the order given.

        :param indices: Episode numbers ``(K,)``, or a boolean mask ``(E,)``.
        :raises UserError: If nothing is selected.
        :raises IndexError: For an episode that does not exist.
        """
        chosen = np.arange(self.n_episodes)[np.asarray(indices)].ravel()
        if len(chosen) == 0:
            raise UserError("No episode is selected; a dataset needs at least one.")
        starts, lengths = self.episode_starts[chosen], self.episode_lengths()[chosen]
        ends = np.cumsum(lengths)
        rows = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
        names = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
        return self.replace(**{name: getattr(self, name)[rows] for name in names}, episode_ends=ends)

    def make_env(self, eval_env: bool = True, *, trust_env: bool = False, **kwargs: Any) -> gym.Env:
        """
        Make the environment of the data, with observations as the dataset has them (flat float32 vectors).

        Data do not choose code. An environment that you gave is made as it was; one that a file or Minari's metadata record is
        made if it is registered on this machine, has no entry point and no wrapper of its own, and its arguments are plain
        values (numbers, words, booleans, None, lists of these).

        :param eval_env: The environment meant for evaluation, if there is a separate one.
        :param trust_env: Make a recorded environment as it is, whatever code it names: for data that you trust.
        :param kwargs: Passed to ``gymnasium.make`` (``render_mode``, …).
        :raises UserError: If no environment is known, it must not be made, or none of the ways to make it works; says what was
            tried.
        """
        specs = [self.eval_env_spec, self.env_spec] if eval_env else [self.env_spec, self.eval_env_spec]
        return make_matching_env(specs, self.id, self.observation_space, self.action_space, kwargs, trust_env)
