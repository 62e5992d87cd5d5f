"""Getting the environment of a dataset back, and comparing spaces."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from sb3_genoffline.data.flattening import box_leaves, flat_observation_space, flatten_env, spaces_differ
from sb3_genoffline.errors import UserError


def make_matching_env(
    specs: Sequence[EnvSpec | None],
    dataset_id: str | None,
    observation_space: spaces.Box,
    action_space: spaces.Box,
    kwargs: dict[str, Any],
) -> gym.Env:
    """
    Make the first environment that works and has the spaces of the dataset.

    A recorded spec can fail where its id does not: it may name a wrapper that is not installed, or arguments that the
    installed version no longer takes. So each spec is tried as recorded, then without its wrappers, then by its id alone.

    :param specs: Specs in the order of preference.
    :param dataset_id: For the error.
    :param observation_space: The dataset's flat observation space.
    :param action_space: The dataset's action space.
    :param kwargs: Passed to ``gymnasium.make``.
    :return: An environment with flat float32 observations.
    :raises UserError: If there is no spec, or none works; says what was tried.
    """
    name = dataset_id or "this dataset"
    known = [spec for spec in specs if spec is not None]
    if not known:
        raise UserError(
            f"No environment is known for {name}. Make it yourself with gymnasium.make and pass it on, "
            "or record it: load_dataset(..., env=<id>)."
        )
    tried = []
    for spec in known:
        bare = copy.deepcopy(spec)
        bare.additional_wrappers = ()
        attempts: list[tuple[str, EnvSpec | str]] = [
            ("as recorded", spec),
            ("without its wrappers", bare),
            ("by its id", spec.id),
        ]
        for how, target in attempts:
            try:
                env = flatten_env(gym.make(target, **kwargs))
            except Exception as error:  # whatever an environment's constructor raises, the next way may work
                tried.append(f"{spec.id} {how}: {type(error).__name__}: {error}")
                continue
            difference = env_difference(observation_space, action_space, env)
            if difference is None:
                if tried:
                    warnings.warn(
                        f"The environment of {name} was made {how} ({spec.id}); what it was recorded with may be missing. "
                        f"Failed before: {'; '.join(tried)}.",
                        stacklevel=3,
                    )
                return env
            env.close()
            tried.append(f"{spec.id} {how}: {difference}")
    raise UserError(f"The environment of {name} could not be made. Tried: " + "; ".join(tried) + ".")


def env_difference(observation_space: spaces.Box, action_space: spaces.Box, env: gym.Env) -> str | None:
    """What differs between the dataset's spaces and those of an environment with flat observations, or None."""
    for name, ours, theirs in (
        ("observation space", observation_space, env.observation_space),
        ("action space", action_space, env.action_space),
    ):
        difference = spaces_differ(ours, theirs)
        if difference is not None:
            return f"the {name} differs from the dataset's: {difference} (dataset against env)"
    return None


def check_compatible(dataset: Any, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """
    Check that an agent or environment with these spaces can use a dataset.

    Dict observations are compared after flattening. The dtype does not count, nor do bounds where one side has none.

    :param dataset: An :class:`OfflineDataset`.
    :param observation_space: Observation space of the environment, flat or not.
    :param action_space: Its action space.
    :raises UserError: Naming the space that differs, and how.
    """
    name = f"dataset {dataset.id}" if dataset.id else "the dataset"
    box_leaves(observation_space, "The environment's observation_space")
    for what, ours, theirs in (
        ("observation", dataset.observation_space, flat_observation_space(observation_space)),
        ("action", dataset.action_space, action_space),
    ):
        difference = spaces_differ(ours, theirs)
        if difference is not None:
            raise UserError(
                f"The {what} space of {name} differs from the environment's: {difference} (dataset against environment). "
                "Use the environment the data came from (dataset.make_env() makes it if it is known)."
            )


def resolve_env(env: Any) -> tuple[spaces.Space[Any], spaces.Space[Any], EnvSpec | None]:
    """
    :param env: An environment, a vectorised one, an id, or anything else with ``observation_space`` and ``action_space``.
    :return: Observation space, action space (of one environment), spec if known.
    :raises UserError: If it is none of these, or the id does not exist.
    """
    if isinstance(env, str | EnvSpec):
        try:
            made = gym.make(env)
        except Exception as error:
            raise UserError(f"The environment {env!r} cannot be made: {error}") from error
        found = (made.observation_space, made.action_space, made.spec)
        made.close()
        return found
    for prefix in ("single_", ""):
        try:
            observation_space, action_space = getattr(env, f"{prefix}observation_space"), getattr(env, f"{prefix}action_space")
        except AttributeError:
            continue
        spec = getattr(env, "spec", None)
        return observation_space, action_space, spec if isinstance(spec, EnvSpec) else None
    raise UserError(f"env is {env!r}; an environment, its id, or an object with observation_space and action_space is needed.")
