"""Recording what any SB3 algorithm does to its environment while it trains, as an :class:`OfflineDataset`."""

import copy
import warnings
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecEnv, VecMonitor, VecNormalize, VecVideoRecorder
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.util import dict_to_obs

from sb3_genoffline.data import OfflineDataset, flat_observation_space, flatten_observations
from sb3_genoffline.data.validation import check_action_space
from sb3_genoffline.errors import UserError

_FIRST_CAPACITY = 4096
_HOOKED = ("step_async", "step_wait", "reset")


class RecordDatasetCallback(BaseCallback):
    """
    Records every step of the training environments, of on- and off-policy algorithms alike::

        recorder = RecordDatasetCallback()
        PPO("MlpPolicy", "Pendulum-v1").learn(100_000, callback=recorder)
        dataset = recorder.dataset()

    It listens at the ``VecEnv`` below every ``VecEnvWrapper``, so it records what the environments themselves got and gave:
    raw observations and rewards whatever ``VecNormalize`` makes of them, actions in the environment's units as PPO has clipped
    or SAC rescaled them, and the true last observation of each episode. ``terminations`` are the ends without the time-outs
    (``TimeLimit.truncated``). Training is not changed in any way.

    Consecutive calls of ``learn`` go on in the same dataset. An episode goes on too with ``reset_num_timesteps=False``;
    otherwise SB3 resets the environments, and the episode is cut there. A ``DummyVecEnv`` still has the observations with
    which training begins. Another ``VecEnv`` (``SubprocVecEnv``) has not: below a wrapper that may have changed them
    (``VecFrameStack``, your own, …) recording begins with each environment's next episode, with a warning.

    :param max_steps: Keep the last ``max_steps`` steps only, all environments together; the oldest episode of each environment
        may then have lost its beginning. None keeps all. A step takes 4 · (2 · obs_dim + act_dim + 2) + 2 bytes; memory grows
        by doubling, up to ``max_steps``.
    :raises UserError: If ``max_steps`` is below 1.
    """

    def __init__(self, max_steps: int | None = None) -> None:
        super().__init__()
        if max_steps is not None and max_steps < 1:
            raise UserError(f"max_steps is {max_steps}; keep at least 1 step, or None for all.")
        self.max_steps = max_steps
        self.n_recorded = 0
        """Steps recorded so far, those included that ``max_steps`` has dropped."""
        self.env_spec: EnvSpec | None = None
        self._env: VecEnv | None = None
        self._inner: dict[str, Any] = {}
        self._rows: np.ndarray = np.empty(0)
        self._pending: dict[str, np.ndarray] | None = None

    @property
    def n_steps(self) -> int:
        """Steps held now."""
        return self.n_recorded if self.max_steps is None else min(self.n_recorded, self.max_steps)

    def dataset(self) -> OfflineDataset:
        """
        What has been recorded, also in the middle of training: environment by environment, each in time order. An end that is
        no termination is marked truncated, as every loader here marks it.

        :raises UserError: If nothing has been recorded, or the records make no dataset (NaNs, actions outside the space).
        """
        if self.n_steps == 0:
            raise UserError("Nothing has been recorded: pass the callback to model.learn(..., callback=recorder) first.")
        assert self._env is not None
        order = (np.arange(self.n_steps) + self.n_recorded) % self.n_steps  # a full ring starts with its oldest row
        rows = self._rows[order[np.argsort(self._rows["env"][order], kind="stable")]]
        last = np.append(rows["env"][1:] != rows["env"][:-1], True)
        closed = rows["terminations"] | rows["truncations"] | last
        return OfflineDataset(
            observations=rows["observations"],
            actions=rows["actions"],
            rewards=rows["rewards"],
            next_observations=rows["next_observations"],
            terminations=rows["terminations"],
            truncations=closed & ~rows["terminations"],
            observation_space=flat_observation_space(self._env.observation_space),
            action_space=cast(spaces.Box, self._env.action_space),
            episode_ends=np.flatnonzero(closed) + 1,
            env_spec=self.env_spec,
        )

    def _on_training_start(self) -> None:
        self._unhook()
        self._drop_pending()
        env, seen = self.training_env.unwrapped, self._seen_at_start()
        goes_on = (
            env is self._env
            and not self.locals.get("reset_num_timesteps", True)
            and seen is not None
            and np.array_equal(seen, self._current)
        )
        if not goes_on:
            self._start_recording(env, seen)
        for name in _HOOKED:
            self._inner[name] = getattr(env, name)
            vars(env)[name] = getattr(self, f"_{name}")

    def _on_step(self) -> bool:
        if self._pending is not None:
            self._append(self._pending)
            self._pending = None
        return True

    def _on_training_end(self) -> None:
        self._unhook()

    def _unhook(self) -> None:
        for name in self._inner:
            vars(self._env).pop(name, None)
        self._inner = {}

    def _start_recording(self, env: VecEnv, seen: np.ndarray | None) -> None:
        """Close the episodes that were open and begin with the environments as they are; ``seen`` is None if not known."""
        check_action_space(env.action_space)
        obs_dim = flat_observation_space(env.observation_space).shape[0]
        act_dim = cast(spaces.Box, env.action_space).shape[0]
        spec = _spec_of(env)
        if self._env is None:
            self.env_spec = spec
            columns = [("observations", "f4", (obs_dim,)), ("actions", "f4", (act_dim,)), ("rewards", "f4")]
            columns += [("next_observations", "f4", (obs_dim,)), ("terminations", "?"), ("truncations", "?"), ("env", "u4")]
            self._rows = np.empty(min(_FIRST_CAPACITY, self.max_steps or _FIRST_CAPACITY), dtype=columns)
            _warn_of_normalisation(env, spec)
        elif (env.observation_space, env.action_space, spec) != (
            self._env.observation_space,
            self._env.action_space,
            self.env_spec,
        ):
            raise UserError(
                "The model trains in another environment now than the one that was recorded before; one dataset holds one "
                "environment, so use a new RecordDatasetCallback."
            )
        self._cut()
        self._env = env
        self._known = np.full(env.num_envs, seen is not None)
        self._current = np.empty((env.num_envs, obs_dim), np.float32) if seen is None else seen
        self._last_row = np.full(env.num_envs, -1)

    def _seen_at_start(self) -> np.ndarray | None:
        """The observations the environments have given last, float32 ``(n_envs, obs_dim)``, if anyone still has them."""
        env = self.training_env.unwrapped
        if isinstance(env, DummyVecEnv):
            return self._flat(env, dict_to_obs(env.observation_space, env.buf_obs))
        observations: Any = self.model._last_obs
        layer = self.training_env
        while isinstance(layer, VecEnvWrapper):
            if isinstance(layer, VecNormalize):
                observations = layer.get_original_obs()
            elif not isinstance(layer, VecMonitor | VecCheckNan | VecVideoRecorder):
                warnings.warn(
                    f"{type(layer).__name__} may have changed the observations with which training begins, and "
                    f"{type(env).__name__} has not kept them: each environment is recorded from its next episode on.",
                    stacklevel=2,
                )
                return None
            layer = layer.venv
        return None if observations is None else self._flat(layer, observations)

    @staticmethod
    def _flat(env: VecEnv, observations: Any) -> np.ndarray:
        with np.errstate(over="ignore"):
            return flatten_observations(env.observation_space, observations).astype(np.float32)

    def _step_async(self, actions: np.ndarray) -> None:
        self._actions = np.array(actions)
        self._inner["step_async"](actions)

    def _step_wait(self) -> Any:
        observations, rewards, dones, infos = self._inner["step_wait"]()
        assert self._env is not None
        self._drop_pending()
        following = self._flat(self._env, observations)
        next_observations = following.copy()
        for i in np.flatnonzero(dones):
            if "terminal_observation" not in infos[i]:
                raise UserError(
                    f"{type(self._env).__name__} gives no infos['terminal_observation'] at the end of an episode, so its last "
                    "next observation cannot be recorded. SB3's DummyVecEnv and SubprocVecEnv give it."
                )
            next_observations[i] = self._flat(self._env, _batch_of_one(infos[i]["terminal_observation"]))[0]
        timeouts = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos])
        known = np.flatnonzero(self._known)
        columns = {
            "observations": self._current,
            "actions": self._actions.reshape(len(dones), -1),
            "rewards": np.asarray(rewards),
            "next_observations": next_observations,
            "terminations": dones & ~timeouts,
            "truncations": dones & timeouts,
        }
        self._pending = {name: values[known] for name, values in columns.items()} | {"env": known}
        self._current, self._known = following, self._known | dones
        return observations, rewards, dones, infos

    def _reset(self) -> Any:
        observations = self._inner["reset"]()
        assert self._env is not None
        self._pending = None
        self._cut()
        self._current, self._known[:] = self._flat(self._env, observations), True
        return observations

    def _drop_pending(self) -> None:
        """Forget a step that the algorithm has not reported: an interrupted one, or another's on the same environments."""
        if self._pending is not None:
            self._pending = None
            self._cut()

    def _append(self, columns: dict[str, np.ndarray]) -> None:
        at = self.n_recorded + np.arange(len(columns["env"]))
        self._reserve(self.n_recorded + len(at))
        for name, values in columns.items():
            self._rows[name][at % len(self._rows)] = values
        self._last_row[columns["env"]] = at
        self.n_recorded += len(at)

    def _reserve(self, n: int) -> None:
        """Make room for ``n`` rows, or for ``max_steps``, from which on the oldest are overwritten."""
        needed = n if self.max_steps is None else min(n, self.max_steps)
        if needed > len(self._rows):
            capacity = max(needed, 2 * len(self._rows))
            grown = np.empty(capacity if self.max_steps is None else min(capacity, self.max_steps), self._rows.dtype)
            grown[: self.n_recorded] = self._rows[: self.n_recorded]
            self._rows = grown

    def _cut(self) -> None:
        """Mark the last row of each environment as the end of an episode: what comes next does not follow on it."""
        if self._env is None:
            return
        kept = self._last_row[self._last_row >= max(0, self.n_recorded - self.n_steps)] % len(self._rows)
        self._rows["truncations"][kept] |= ~self._rows["terminations"][kept]
        self._last_row[:] = -1


def _batch_of_one(observation: Any) -> Any:
    """An observation, nested or not, with a leading axis."""
    if isinstance(observation, dict):
        return {key: _batch_of_one(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_batch_of_one(value) for value in observation)
    return np.asarray(observation)[None]


def _warn_of_normalisation(env: VecEnv, spec: EnvSpec | None) -> None:
    """Name gymnasium's wrappers whose running statistics would drift into the records."""
    found = [wrapper.name for wrapper in spec.additional_wrappers] if spec is not None else []
    for layer in getattr(env, "envs", [])[:1]:
        while isinstance(layer, gym.Wrapper):
            found += [base.__name__ for base in type(layer).__mro__]
            layer = layer.env
    drifting = [name for name in ("NormalizeObservation", "NormalizeReward") if name in found]
    if drifting:
        warnings.warn(
            f"The environment is wrapped in {' and '.join(drifting)}, whose running statistics change while they are "
            "recorded: early and late numbers of the dataset are on different scales, and make_env() begins with new "
            "statistics. Record without it: put SB3's VecNormalize on top, below which raw numbers are recorded.",
            stacklevel=2,
        )


def _spec_of(env: VecEnv) -> EnvSpec | None:
    """The spec of the first environment, without SB3's ``Monitor``, which cannot be made from a spec and changes nothing."""
    spec = env.get_attr("spec", 0)[0]
    if not isinstance(spec, EnvSpec):
        return None
    spec = copy.copy(spec)
    spec.additional_wrappers = tuple(
        wrapper for wrapper in spec.additional_wrappers if wrapper.entry_point != "stable_baselines3.common.monitor:Monitor"
    )
    return spec
