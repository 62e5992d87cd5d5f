"""
Environments to evaluate and film in: the dataset's own, or one that is named.

Files never choose code: of what data, a run's files and agents record only what is registered on this machine is made, with
plain values as its arguments, unless the user trusts them (``--trust-env``). What the user names (``--env``) is made as it is.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_genoffline.data import OfflineDataset, flatten_env
from sb3_genoffline.data.environments import check_recorded_arguments, make_from_spec, spec_of_recorded_id
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short

from .folders import Run
from .hyperparameters import parse_pairs
from .reading import named_values

# Errors whose text says enough
_PLAIN = (ImportError, gym.error.Error, UserError)

EnvFactory = Callable[..., gym.Env]
"""Makes an environment; keyword arguments go to ``gymnasium.make``."""


class NoEnvironment(UserError):
    """No simulator could be made; the message says why."""


_NO_ARGUMENTS = ("id", "eval_env", "trust_env")
"""Names that mean something to what makes environments, and not to an environment."""


@dataclass(frozen=True)
class Recorded:
    """
    What files say of an environment.

    :param env_id: its id, not trusted; None: the dataset's own is meant
    :param kwargs: arguments of ``gymnasium.make``, not trusted
    :param asked_for: whether the training was told to evaluate there, whatever the dataset records
    :param trusted: the user trusts them, and what the dataset records
    """

    env_id: Any = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    asked_for: bool = False
    trusted: bool = False


_NOTHING = Recorded()


def env_factory(
    dataset: OfflineDataset | None,
    env_id: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    recorded: Recorded = _NOTHING,
) -> EnvFactory:
    """
    :param dataset: its environment is made; may be missing if an id is given or recorded
    :param env_id: environment that the user wants
    :param env_kwargs: arguments of ``gymnasium.make`` that the user gave
    :param recorded: what files say, where the user says nothing
    :return: a function whose keyword arguments are further arguments of ``gymnasium.make``
    :raises UserError: for an argument that no environment has
    """
    own = dict(env_kwargs or {})
    kept = {name: value for name, value in recorded.kwargs.items() if name not in own}
    for name in (*own, *kept):
        if name in _NO_ARGUMENTS:
            raise UserError(f"No environment takes {name} as an argument (--env-kwargs): leave it out.")

    if (own | kept).get("render_mode") == "human":
        raise UserError("render_mode='human' would open a window in every evaluation: leave it out, `enjoy` opens one.")

    def build(**arguments: Any) -> gym.Env:
        if env_id is not None:
            return flatten_env(gym.make(env_id, **arguments))
        if not recorded.trusted:
            check_recorded_arguments(recorded.env_id or (dataset and dataset.id), kept)
        if recorded.env_id is not None:
            if recorded.trusted:
                return flatten_env(gym.make(recorded.env_id, **arguments))
            return flatten_env(make_from_spec(spec_of_recorded_id(recorded.env_id), **arguments))
        if dataset is None:
            raise UserError("its dataset is not on this machine and its run says nothing.")
        if dataset.env_spec is None and dataset.eval_env_spec is None:
            raise NoEnvironment(
                f"No environment is known for {short(dataset.id or 'these data')}: without one you can train, judge and "
                "export; name a simulator, if you have one, with --env."
            )
        return dataset.make_env(trust_env=recorded.trusted, **arguments)

    def make(**kwargs: Any) -> gym.Env:
        try:
            return Blamed(build(**{**kept, **own, **kwargs}))
        except NoEnvironment:
            raise
        except Exception as error:  # whatever an environment's constructor raises
            why = f"{error}" if isinstance(error, _PLAIN) else f"{type(error).__name__}: {error}".rstrip(": ")
            if env_id is not None:
                raise NoEnvironment(f"The environment {short(env_id)} could not be made: {why}") from error
            whose = "data" if recorded.env_id is None else "run"
            raise NoEnvironment(
                f"The environment of the {whose} could not be made: {why} (--env names another; --trust-env makes what is "
                "recorded, whatever code it names.)"
            ) from error

    return make


def try_out(make: EnvFactory) -> None:
    """
    One step in an environment of its own: arguments that only a step shows to be wrong are better seen before a training.

    :raises UserError: if it fails
    """
    env = make()
    try:
        env.reset(seed=0)
        env.action_space.seed(0)
        env.step(env.action_space.sample())
    finally:
        env.close()


class Blamed(gym.Wrapper):
    """An environment of a command line: what goes wrong in it is told as such, with its name, and not as a bug of the zoo."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        try:
            return super().reset(**kwargs)
        except Exception as error:
            raise self._blame("reset", error) from error

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step."""
        try:
            return super().step(action)
        except Exception as error:
            raise self._blame("step", error) from error

    def _blame(self, where: str, error: Exception) -> UserError:
        name = self.spec.id if self.spec else type(self.unwrapped).__name__
        return UserError(f"The environment {name} failed in {where}(): {type(error).__name__}: {error}; see its arguments.")


def env_of_run(
    run: Run | None,
    dataset: OfflineDataset | None,
    env_id: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    trust_env: bool = False,
) -> EnvFactory:
    """
    What the user names; else what the run's training was told to evaluate in; else the dataset's; else what the run was
    evaluated in; these with the arguments of the training, and the user's over them.

    :param run: of the agent, if it lies in one
    :param dataset: that the agent was trained on, if it is here
    :param env_id: that the user names
    :param env_kwargs: that the user gives
    :param trust_env: make what is recorded as it is, whatever code it names
    """
    if env_id is not None or run is None:
        return env_factory(dataset, env_id, env_kwargs, Recorded(trusted=trust_env))
    recorded = replace(recorded_env(run), trusted=trust_env)
    if dataset is not None and (dataset.env_spec or dataset.eval_env_spec) is not None and not recorded.asked_for:
        recorded = replace(recorded, env_id=None)
    return env_factory(dataset, None, env_kwargs, recorded)


def recorded_env(run: Run) -> Recorded:
    """
    What a run's files say of the environment in which it was evaluated.

    :param run: its ``args.yml`` and ``config.yml`` are read
    :return: the id that was given with ``--env``, else that of the environment that was made; and the arguments
    :raises UserError: if the files are damaged
    """
    used, config = run.arguments(), run.config()
    kwargs = named_values(config["hyperparameters"].get("env_kwargs"), f"{run.settings}/config.yml, env_kwargs,")
    for flag in ("env_kwargs", "eval_env_kwargs"):
        pairs = used.get(flag) or []
        if not isinstance(pairs, list) or not all(isinstance(pair, str) for pair in pairs):
            raise UserError(f"{run.settings}/args.yml: {flag} is not a list of texts like name:value.")
        kwargs |= parse_pairs(pairs)
    asked_for = used.get("env")
    return Recorded(asked_for or config["environment"], kwargs, asked_for is not None)


class ReachedGoal(gym.Wrapper):
    """
    Tells SB3 (``info["is_success"]``) whether an episode has been at its goal yet, for environments that report
    ``info["success"]`` step by step: gymnasium-robotics' mazes may go on at the goal, and end elsewhere.
    """

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = super().reset(**kwargs)
        self.reached = bool(info.get("success", False))
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and remember."""
        observation, reward, terminated, truncated, info = super().step(action)
        if "success" in info:
            self.reached |= bool(info["success"])
            info["is_success"] = self.reached
        return observation, reward, terminated, truncated, info


def eval_envs(make: EnvFactory, n_envs: int) -> VecEnv:
    """
    ``n_envs`` monitored copies stepped in one process, so that actions are sampled in one batch. Those with a goal say whether
    it was reached.
    """
    return DummyVecEnv([lambda: Monitor(ReachedGoal(make()))] * n_envs)


def env_id_of(env: VecEnv) -> str | None:
    """Id of a vectorised environment, if it has one."""
    spec = env.get_attr("spec")[0]
    return None if spec is None else spec.id


def own_spec(env: VecEnv) -> dict[str, Any] | None:
    """
    What makes a vectorised environment where its id does not: a maze of its own, or arguments unlike the registered ones.

    :return: ``entry_point``, ``max_episode_steps`` and ``kwargs``, plain data; None if ``gymnasium.make(id)`` does the same or
        if they cannot be written down
    """
    spec = env.get_attr("spec")[0]
    if spec is None or not isinstance(spec.entry_point, str):
        return None
    own, registered = _essence(spec), gym.registry.get(spec.id)
    try:
        json.dumps(own)
    except TypeError:
        return None
    return None if registered is not None and _essence(registered) == own else own


def _essence(spec: EnvSpec) -> dict[str, Any]:
    return {"entry_point": spec.entry_point, "max_episode_steps": spec.max_episode_steps, "kwargs": spec.kwargs}


def env_for_pictures(make: EnvFactory, render_mode: str, width: int, height: int) -> gym.Env:
    """
    An environment that renders; of the given size if it can be chosen, and with the camera that follows the body if there is
    one (MuJoCo environments have a camera ``track``, but gymnasium's default camera stays where the body starts).

    :raises NoEnvironment: if none can be made
    """
    if render_mode == "human":
        return make(render_mode=render_mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for choices in ({"width": width, "height": height, "camera_name": "track"}, {"width": width, "height": height}, {}):
            try:
                env = make(render_mode=render_mode, **choices)
                break
            except (NoEnvironment, TypeError):
                if not choices:
                    raise
    model: Any = getattr(env.unwrapped, "model", None)
    if hasattr(model, "vis"):
        model.vis.quality.shadowsize = 0  # MuJoCo's shadow map is two thirds of the time of software rendering
    return env
