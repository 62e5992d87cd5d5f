"""From whatever a user has (environment, id, dataset, bare spaces) to the ``VecEnv`` that SB3's base class wants."""

from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from sb3_genoffline.data import OfflineDataset, load_dataset

EnvLike: TypeAlias = gym.Env | VecEnv | str | OfflineDataset | tuple[spaces.Space, spaces.Space]


class SpacesEnv(gym.Env):
    """
    The two spaces without a simulator: enough to train offline and to predict.

    :param observation_space: of the data
    :param action_space: of the data
    """

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def _refuse(self) -> Any:
        raise ValueError(
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


def spaces_only(observation_space: spaces.Space, action_space: spaces.Space) -> VecEnv:
    """A ``VecEnv`` that has the spaces and refuses to be stepped."""
    return DummyVecEnv([lambda: SpacesEnv(observation_space, action_space)])


def as_env(env: EnvLike | None) -> gym.Env | VecEnv | None:
    """
    :param env: an environment (Dict observations are flattened in gymnasium's order), a ``VecEnv``, the id of a registered
        environment or of a dataset, a dataset, or ``(observation_space, action_space)``
    :return: something SB3 can wrap
    :raises ValueError: for ``VecNormalize`` (observation statistics live in the policy here)
    """
    if env is None:
        return None
    if isinstance(env, str):
        env = gym.make(env) if env in gym.registry else load_dataset(env)
    if isinstance(env, OfflineDataset):
        return spaces_only(env.observation_space, env.action_space)
    if isinstance(env, tuple):
        return spaces_only(*env)
    layer: Any = env
    while isinstance(layer, VecEnvWrapper):
        if isinstance(layer, VecNormalize):
            raise ValueError(
                "The environment is wrapped in VecNormalize, whose running statistics the dataset does not share: pass the "
                "bare environment and use `normalize_observations=True`, which keeps the dataset's statistics in the policy."
            )
        layer = layer.venv
    if isinstance(env, gym.Env) and isinstance(env.observation_space, spaces.Dict):
        return FlattenObservation(env)
    return env
