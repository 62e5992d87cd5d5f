"""
Getting the environment of a dataset back, and comparing spaces.

Data never choose code. What a file or Minari's metadata record of an environment is a :class:`RecordedSpec`, and
:func:`make_from_spec` builds one only where it names what is registered on this machine, with plain values as its arguments.
"""

import copy
import dataclasses
import importlib
import importlib.util
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.vec_env import VecEnv

from sb3_genoffline.data.flattening import box_leaves, flat_observation_space, flatten_env, spaces_differ
from sb3_genoffline.errors import UserError, printable

# A word can be the name of a variant or of a file beside the environment's own, not a path, a module or an address.
_WORD = re.compile(r"\w[\w .,+-]{0,99}|")
_FLATTENS = "sb3_genoffline.data.flattening:FlatFloatObservation"
# Packages that register their environments when they are imported. Which ones are is decided here, not by the data.
_REGISTERING = ("gymnasium_robotics",)
_TRUST = (
    "give your own environment (load_dataset(..., env=<id or environment>)), or trust_env=True if you trust who made the data"
)


class RecordedSpec(EnvSpec):
    """An ``EnvSpec`` that was read with the data, and is not trusted. Equal to any other with the same contents."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        names = [field.name for field in dataclasses.fields(EnvSpec)]
        return isinstance(other, EnvSpec) and all(getattr(self, name) == getattr(other, name) for name in names)


class GivenEnv(NamedTuple):
    """
    What is used of an environment that a user gave.

    :param observation_space: of one environment, as it is
    :param action_space: likewise
    :param spec: None if it has none
    :param acts: whether it is an environment, and not only its spaces
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    spec: EnvSpec | None
    acts: bool


def recorded(spec: EnvSpec | None, trust_env: bool = False) -> EnvSpec | None:
    """
    :param spec: A spec that was read with the data.
    :param trust_env: The user trusts it.
    :return: The spec, marked as recorded unless it is trusted.
    """
    if spec is None or trust_env:
        return spec
    marked = copy.copy(spec)
    marked.__class__ = RecordedSpec
    return marked


def spec_from_json(text: Any, source: str, trust_env: bool = False) -> EnvSpec | None:
    """
    :param text: JSON of an ``EnvSpec``, as data hold it; None if they hold none. Nothing is imported.
    :param source: What to call the data in a warning.
    :param trust_env: The user trusts it.
    :return: The spec, marked as recorded; None, with a warning, if it is none.
    """
    if text is None:
        return None
    try:
        for old in ('"order_enforce": true,', '"apply_api_compatibility": false,', '"autoreset": false, '):
            text = text.replace(old, "")  # written before gymnasium 1.0, as Minari reads them
        spec = EnvSpec.from_json(text)
        if not (isinstance(spec.id, str) and isinstance(spec.kwargs, dict)):
            raise TypeError("id is not text or kwargs not an object")
    except Exception as error:  # whatever a damaged one raises, the transitions are as good without it
        warnings.warn(
            f"The environment that {printable(source)} records cannot be read and is left out ({type(error).__name__}: "
            f"{printable(str(error)[:200])}). Give it yourself: load_dataset(..., env=<environment>).",
            stacklevel=3,
        )
        return None
    return recorded(spec, trust_env)


def registered_spec(spec: EnvSpec) -> EnvSpec:
    """
    :param spec: What data record of an environment.
    :return: The environment registered on this machine that it names, with the recorded step limit and arguments. Nothing
        else of what was recorded is used, and nothing that it names is imported.
    :raises UserError: If it is no registered one, or has an entry point, wrappers or arguments that are not plain values;
        names it and says what to do.
    """
    _check_id(spec.id)
    package = _package(spec.entry_point)
    known = _registered(spec.id, package)
    if known is None and isinstance(spec.entry_point, str):
        # Another name for a registered environment with arguments of its own is as good as its id with these
        known = next((other for other in gym.registry.values() if other.entry_point == spec.entry_point), None)
        if known is not None:
            known = copy.copy(known)
            known.id, known.kwargs, known.max_episode_steps = spec.id, {}, None
            known.__post_init__()
    if known is None:
        where = "" if spec.entry_point is None else f" (its entry_point is {_short(spec.entry_point)})"
        raise _refusal(spec.id, f"is not registered on this machine{where}")
    if spec.entry_point is not None and package != _package(known.entry_point):
        raise _refusal(spec.id, f"has an entry_point of its own, {_short(spec.entry_point)}")
    wrappers = [getattr(wrapper, "entry_point", wrapper) for wrapper in spec.additional_wrappers or ()]
    others = [wrapper for wrapper in wrappers if wrapper != _FLATTENS]  # observations are flattened anyway
    if others:
        raise _refusal(spec.id, f"is wrapped in {_short(others[0])}")
    check_recorded_arguments(spec.id, spec.kwargs)
    limit = spec.max_episode_steps
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise _refusal(spec.id, f"has max_episode_steps={_short(limit)}, which is not a number of steps")
    built = copy.copy(known)
    built.kwargs = copy.deepcopy(known.kwargs) | copy.deepcopy(spec.kwargs)
    built.max_episode_steps = limit
    return built


def spec_of_recorded_id(env_id: Any) -> EnvSpec:
    """
    :param env_id: What a file that is not trusted calls an environment.
    :return: The environment registered on this machine under this id, as a recorded spec for :func:`make_from_spec`. Nothing
        is imported by a name from the file.
    :raises UserError: If there is none.
    """
    _check_id(env_id)
    known = _registered(env_id, None)
    if known is None:
        raise _refusal(env_id, "is not registered on this machine")
    return RecordedSpec(env_id, known.entry_point, max_episode_steps=known.max_episode_steps)


def check_recorded_arguments(env_id: Any, kwargs: Any) -> None:
    """
    :param env_id: Of the environment, for the error.
    :param kwargs: Arguments of it that were read from a file.
    :raises UserError: Unless they are plain values by name.
    """
    for name, value in (kwargs if isinstance(kwargs, Mapping) else {"its arguments": kwargs}).items():
        if not isinstance(name, str) or not isinstance(kwargs, Mapping) or not _is_plain(value):
            raise _refusal(
                env_id,
                f"has {_short(name)}={_short(value)} among its arguments, which is not a plain value (a number, a word, True, "
                "False, None or lists of these)",
            )


def _check_id(env_id: Any) -> None:
    if not isinstance(env_id, str) or ":" in env_id:
        raise _refusal(env_id, "names a module to import" if isinstance(env_id, str) else "is not an id")


def _refusal(env_id: Any, what: str) -> UserError:
    return UserError(f"the recorded environment {_short(env_id)} {what}, and data must not choose what runs: {_TRUST}")


def _registered(env_id: str, package: str | None) -> EnvSpec | None:
    """An environment by its id; ``package``, if it is known, says whose it is."""
    for name in _REGISTERING if env_id not in gym.registry else ():
        if package in (None, name) and importlib.util.find_spec(name) is not None:
            gym.register_envs(importlib.import_module(name))
    return gym.registry.get(env_id)


def _package(entry_point: Any) -> str | None:
    module = entry_point if isinstance(entry_point, str) else getattr(entry_point, "__module__", None)
    return None if module is None else module.partition(":")[0].partition(".")[0]


def _is_plain(value: Any, depth: int = 8) -> bool:
    if isinstance(value, list | tuple):
        return depth > 0 and len(value) <= 10_000 and all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None and ".." not in value
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def make_from_spec(spec: EnvSpec, trust_env: bool = False, **kwargs: Any) -> gym.Env:
    """
    Every environment that is built from a spec is built here.

    :param spec: One that is recorded is built as :func:`registered_spec` has it.
    :param trust_env: Build a recorded one as it is, whatever code it names.
    :param kwargs: Passed to ``gymnasium.make``.
    :raises UserError: If it is recorded and must not be built.
    """
    if isinstance(spec, RecordedSpec):
        if not trust_env:
            return gym.make(registered_spec(spec), **kwargs)
        spec = _trusted(spec)
    return gym.make(spec, **kwargs)


def make_matching_env(
    specs: Sequence[EnvSpec | None],
    dataset_id: str | None,
    observation_space: spaces.Box,
    action_space: spaces.Box,
    kwargs: dict[str, Any],
    trust_env: bool = False,
) -> gym.Env:
    """
    Make the first environment that works and has the spaces of the dataset.

    A recorded spec can fail where its id does not: it may name a wrapper that is not installed, or arguments that the
    installed version no longer takes. So each spec is tried as recorded, then without its wrappers, then by its id alone.
    One that data record and the user does not trust is tried as :func:`registered_spec` has it, then by its id if it is
    registered; if it must not be built, it is not tried.

    :param specs: Specs in the order of preference.
    :param dataset_id: For the error.
    :param observation_space: The dataset's flat observation space.
    :param action_space: The dataset's action space.
    :param kwargs: Passed to ``gymnasium.make``.
    :param trust_env: Build recorded ones as they are.
    :return: An environment with flat float32 observations.
    :raises UserError: If there is no spec, or none works; says what was tried.
    """
    name = dataset_id or "this dataset"
    known = [spec for spec in specs if spec is not None]
    if not known:
        raise UserError(
            f'No environment is known for {name}: name it when you load the data, load_dataset(..., env="Hopper-v5"), or make '
            "it yourself with gymnasium.make."
        )
    tried = []
    for spec in known:
        try:
            attempts = _attempts(spec, trust_env)
        except UserError as error:
            tried.append(str(error))
            continue
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
                        f"The environment of {printable(name)} was made {how} ({spec.id}); what it was recorded with may be "
                        f"missing. Failed before: {printable('; '.join(tried))}.",
                        stacklevel=3,
                    )
                return env
            env.close()
            tried.append(f"{spec.id} {how}: {difference}")
    raise UserError(f"The environment of {name} could not be made. Tried: " + "; ".join(tried) + ".")


def _trusted(spec: EnvSpec) -> EnvSpec:
    plain = copy.copy(spec)
    plain.__class__ = EnvSpec
    return plain


def _attempts(spec: EnvSpec, trust_env: bool) -> list[tuple[str, EnvSpec | str]]:
    """What to try to make of a spec, and how to call it."""
    if isinstance(spec, RecordedSpec) and not trust_env:
        attempts: list[tuple[str, EnvSpec | str]] = [("as recorded", registered_spec(spec))]
        if spec.id in gym.registry:
            attempts.append(("by its id", copy.deepcopy(gym.registry[spec.id])))
        return attempts
    bare = _trusted(copy.deepcopy(spec))
    bare.additional_wrappers = ()
    return [("as recorded", _trusted(spec)), ("without its wrappers", bare), ("by its id", spec.id)]


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

    :param dataset: An :class:`~sb3_genoffline.data.dataset.OfflineDataset`.
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


def resolve_env(env: Any) -> GivenEnv:
    """
    :param env: An environment, a vectorised one, an id, a spec, a dataset, its two spaces, or anything else with
        ``observation_space`` and ``action_space``.
    :return: Observation space, action space (of one environment), spec if known.
    :raises UserError: If it is none of these, or the id does not exist.
    """
    if isinstance(env, GivenEnv):
        return env
    if isinstance(env, str | EnvSpec):
        try:
            made = make_from_spec(env) if isinstance(env, EnvSpec) else gym.make(env)
        except Exception as error:
            raise UserError(f"The environment {env!r} cannot be made: {error}") from error
        found = GivenEnv(made.observation_space, made.action_space, made.spec, True)
        made.close()
        return found
    if isinstance(env, tuple | list) and len(env) == 2 and all(isinstance(space, spaces.Space) for space in env):
        return GivenEnv(env[0], env[1], None, False)
    for prefix in ("single_", ""):
        try:
            observation_space, action_space = getattr(env, f"{prefix}observation_space"), getattr(env, f"{prefix}action_space")
        except AttributeError:
            continue
        spec = env.get_attr("spec", 0)[0] if isinstance(env, VecEnv) else getattr(env, "spec", None)
        acts = isinstance(env, gym.Env | gym.vector.VectorEnv | VecEnv)
        return GivenEnv(observation_space, action_space, spec if isinstance(spec, EnvSpec) else None, acts)
    called = " Call it and give what it returns." if callable(env) else ""
    raise UserError(
        f"env is {_short(env)}; an environment, its id or spec, a tuple (observation_space, action_space), or an object with "
        f"observation_space and action_space is needed.{called}"
    )
