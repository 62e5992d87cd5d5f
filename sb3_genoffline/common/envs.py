"""From whatever a user has (environment, id, dataset, bare spaces) to the ``VecEnv`` that SB3's base class wants."""

from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from sb3_genoffline.data import OfflineDataset, flat_observation_space, flatten_env, load_dataset
from sb3_genoffline.data.flattening import spaces_differ
from sb3_genoffline.data.validation import check_action_space
from sb3_genoffline.errors import NotFoundError, UserError

EnvLike: TypeAlias = gym.Env | VecEnv | str | OfflineDataset | tuple[spaces.Space[Any], spaces.Space[Any]]


class SpacesEnv(gym.Env):
    """
    The two spaces without a simulator: enough to train offline and to predict.

    :param observation_space: of the data
    :param action_space: of the data
    """

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def _refuse(self) -> Any:
        raise UserError(
            "This agent was built without an environment (from a dataset or bare spaces), so nothing can be stepped: "
            "call `model.set_env(env)` before `learn()`, or pass an evaluation environment to the callback."
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self._refuse()

    def step(self, action: Any) -> Any:
        return self._refuse()


def has_simulator(env: VecEnv) -> bool:
    """False where the environment is a :class:`SpacesEnv`."""
    return not any(isinstance(inner, SpacesEnv) for inner in getattr(env.unwrapped, "envs", []))


def spaces_only(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> VecEnv:
    """A ``VecEnv`` that has the spaces and refuses to be stepped."""
    return DummyVecEnv([lambda: SpacesEnv(observation_space, action_space)])


def as_env(env: EnvLike | None) -> gym.Env | VecEnv | None:
    """
    :param env: an environment (Dict observations are flattened as datasets are), a ``VecEnv``, the id of a registered
        environment or of a dataset, a dataset, or ``(observation_space, action_space)``
    :return: something SB3 can wrap
    :raises ValueError: for spaces that are not supported, and for ``VecNormalize`` (observation statistics live in the policy
        here)
    :raises FileNotFoundError: if an id is neither an environment's nor a dataset's
    """
    if env is None:
        return None
    if isinstance(env, str):
        env = _from_id(env)
    if isinstance(env, OfflineDataset):
        return spaces_only(env.observation_space, env.action_space)
    if isinstance(env, tuple):
        observation_space, action_space = env
        check_action_space(action_space)
        return spaces_only(_vector_space(observation_space), action_space)
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
    if name in gym.registry:
        return gym.make(name)
    try:
        return load_dataset(name)
    except FileNotFoundError as error:
        raise NotFoundError(f"{name!r} is no registered environment, and as a dataset: {error}") from error


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
