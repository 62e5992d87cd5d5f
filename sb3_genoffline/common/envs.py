"""From whatever a user has (environment, id, dataset, bare spaces) to the ``VecEnv`` that SB3's base class wants."""

import os
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from sb3_genoffline.data import FlatFloatObservation, OfflineDataset, flat_observation_space, flatten_env, load_dataset
from sb3_genoffline.data.environments import make_from_spec
from sb3_genoffline.data.flattening import box_leaves, flatten_observations, spaces_differ
from sb3_genoffline.data.validation import check_action_space
from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.files.untrusted import short

EnvLike: TypeAlias = (
    gym.Env
    | VecEnv
    | EnvSpec
    | str
    | os.PathLike[str]
    | Mapping[str, Any]
    | OfflineDataset
    | tuple[spaces.Space[Any], spaces.Space[Any]]
)


class SpacesEnv(gym.Env):
    """
    The two spaces without a simulator: enough to train offline and to predict.

    :param observation_space: of the data
    :param action_space: of the data
    :param source_space: of observations before they are flattened (None: the same)
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        source_space: spaces.Space[Any] | None = None,
    ) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.source_space = observation_space if source_space is None else source_space

    def _refuse(self) -> Any:
        raise UserError(
            "This agent was built without an environment (from a dataset or bare spaces), so nothing can be stepped: "
            "call `model.set_env(env)` before `learn()`, and evaluate in an environment; `dataset.make_env()` makes the "
            "dataset's."
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self._refuse()

    def step(self, action: Any) -> Any:
        return self._refuse()


def has_simulator(env: VecEnv) -> bool:
    """False where the environment is a :class:`SpacesEnv`."""
    return not any(isinstance(inner, SpacesEnv) for inner in getattr(env.unwrapped, "envs", []))


def spaces_only(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], source_space: spaces.Space[Any] | None = None
) -> VecEnv:
    """A ``VecEnv`` that has the spaces and refuses to be stepped."""
    return DummyVecEnv([lambda: SpacesEnv(observation_space, action_space, source_space)])


def source_space(env: VecEnv | None) -> spaces.Space[Any] | None:
    """The space of observations before they are flattened; None if that is not known."""
    layer: Any = next(iter(getattr(env.unwrapped, "envs", [])), None) if env is not None else None
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, FlatFloatObservation):
            return layer.env.observation_space
        layer = layer.env
    return layer.source_space if isinstance(layer, SpacesEnv) else None


def env_id(env: VecEnv | None) -> str | None:
    """The id that the environment is registered under; None if there is none, or no environment."""
    first: Any = next(iter(getattr(env.unwrapped, "envs", [])), None) if env is not None else None
    spec = None if first is None else first.unwrapped.spec
    return None if spec is None else str(spec.id)


def flat_observation(observation: Any, source: spaces.Space[Any] | None, dim: int) -> Any:
    """
    :param observation: one or a batch, flat or as the environment gives it
    :param source: space of the environment's observations, if known
    :param dim: numbers of a flat observation
    :return: the vector, or the batch of vectors
    :raises UserError: if it is not flat, and how to flatten it is not known
    """
    nested = isinstance(observation, Mapping | tuple)
    if nested:
        known = isinstance(source, spaces.Dict | spaces.Tuple)
    else:  # what has another shape is a vector or a batch of them already
        shape = np.shape(observation)
        known = isinstance(source, spaces.Box) and len(source.shape) != 1 and source.shape in (shape, shape[1:])
    if source is not None and known:
        (path, box), *_ = box_leaves(source)
        leaf = observation
        try:
            for key in path:
                leaf = leaf[key]
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"The observation lacks {list(path)}, which the environment's have: {source}.") from error
        single = np.ndim(leaf) == len(box.shape)
        batch = _with_axis(observation) if single else observation
        flat = flatten_observations(source, batch, "observation").astype(np.float32)
        return flat[0] if single else flat
    if nested:
        raise UserError(
            f"The observation is a {type(observation).__name__}, the agent acts on vectors of {dim} numbers, and it was made "
            "without the environment that tells their order: give it that (env= or set_env), or wrap the environment in "
            "sb3_genoffline.data.FlatFloatObservation (dataset.make_env() does)."
        )
    return observation


def _with_axis(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {key: _with_axis(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_with_axis(value) for value in observation)
    return np.asarray(observation)[None]


def as_env(env: EnvLike | None) -> gym.Env | VecEnv | None:
    """
    :param env: an environment (Dict observations are flattened as datasets are), a ``VecEnv``, the id or spec of a registered
        environment, a dataset or what ``load_dataset`` takes for one (an id, a file, a dict of arrays), or
        ``(observation_space, action_space)``
    :return: something SB3 can wrap
    :raises ValueError: for spaces that are not supported, and for ``VecNormalize`` (observation statistics live in the policy
        here)
    :raises FileNotFoundError: if an id is neither an environment's nor a dataset's
    """
    if env is None:
        return None
    if isinstance(env, str):
        env = _from_id(env)
    elif isinstance(env, EnvSpec):
        env = make_from_spec(env)
    elif isinstance(env, Mapping | os.PathLike):
        env = load_dataset(env)
    if isinstance(env, OfflineDataset):
        return spaces_only(env.observation_space, env.action_space)
    if isinstance(env, tuple | list) and len(env) == 2 and all(isinstance(space, spaces.Space) for space in env):
        observation_space, action_space = env
        check_action_space(action_space)
        return spaces_only(_vector_space(observation_space), action_space, observation_space)
    if not isinstance(env, gym.Env | VecEnv):
        raise UserError(
            f"env is a {type(env).__name__}, {short(env)}; it may be an environment, a VecEnv of stable-baselines3, the id or "
            "spec of an environment, a dataset, its id, file or dict of arrays, or a tuple (observation_space, action_space)."
            + (" It is a function: call it and give what it returns." if callable(env) else "")
        )
    check_action_space(env.action_space)
    flat_observation_space(env.observation_space)  # raises for what can't become a vector of numbers
    if isinstance(env, gym.Env):
        return flatten_env(env) if _vector_space(env.observation_space) is not env.observation_space else env
    if _vector_space(env.observation_space) is not env.observation_space:
        raise UserError(
            f"The VecEnv's observation space is {env.observation_space}, not a vector: wrap each of its environments in "
            "sb3_genoffline.data.FlatFloatObservation first."
        )
    layer: Any = env
    while isinstance(layer, VecEnvWrapper):
        if isinstance(layer, VecNormalize):
            raise UserError(
                "The environment is wrapped in VecNormalize, whose running statistics the dataset does not share: pass the "
                "bare environment and use `normalize_observations=True`, which keeps the dataset's statistics in the policy."
            )
        layer = layer.venv
    return env


def _from_id(name: str) -> gym.Env | OfflineDataset:
    if name in gym.registry or re.fullmatch(r"[\w.]+:[\w./-]+", name):  # or module:id, by the user's own word
        try:
            return gym.make(name)
        except (ImportError, gym.error.Error) as error:
            raise UserError(f"The environment {name!r} cannot be made: {error}") from error
    try:
        return load_dataset(name)
    except FileNotFoundError as error:
        raise NotFoundError(f"{name!r} is not a registered environment, and as a dataset: {error}") from error


def _vector_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The space itself if it is a one-dimensional box of any dtype, else the flat box of a dataset with such observations."""
    return space if isinstance(space, spaces.Box) and len(space.shape) == 1 else flat_observation_space(space)


def check_agent_spaces(
    agent: tuple[spaces.Space[Any], spaces.Space[Any]],
    env: tuple[spaces.Space[Any], spaces.Space[Any]],
    name: str = "environment",
) -> None:
    """
    :param agent: observation and action space of an agent
    :param env: those of an environment it shall act in; dtypes may differ, and bounds where one side has none
    :param name: what ``env`` is, for the error
    :raises ValueError: naming the space that differs, and how
    """
    for what, ours, theirs in zip(("observation", "action"), agent, env, strict=True):
        difference = spaces_differ(ours, theirs)
        if difference is not None:
            raise UserError(
                f"The agent's {what} space differs from the {name}'s: {difference} (agent against {name}). "
                f"An agent acts only in the spaces it was made for, {agent[0]} and {agent[1]}."
            )
