"""An SB3 algorithm whose arguments are checked once, when they are set, and whose state is declared once."""

import functools
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from sb3_genoffline.common.arguments import (
    Argument,
    ArgumentTable,
    Bounds,
    Count,
    Fixed,
    Normalized,
    Positive,
    PositiveInt,
    PositiveShare,
    Rate,
    RewardTransform,
    as_device,
    constructor_arguments,
    nearest,
)
from sb3_genoffline.common.envs import EnvLike, as_env, check_agent_spaces, flat_observation, has_simulator, source_space
from sb3_genoffline.common.fitting import Fits
from sb3_genoffline.common.frozen import frozen
from sb3_genoffline.common.metrics import TrainingMonitor
from sb3_genoffline.common.plain import to_json
from sb3_genoffline.common.policies import OfflinePolicy
from sb3_genoffline.common.policy_files import sizing
from sb3_genoffline.common.precision import MatmulPrecision
from sb3_genoffline.common.refused import REFUSED
from sb3_genoffline.common.state import LearnerState
from sb3_genoffline.common.stepping import Stepper
from sb3_genoffline.data import REWARD_TRANSFORMS
from sb3_genoffline.errors import NotMadeError, UserError
from sb3_genoffline.files.untrusted import check_sizes, short

_MADE_LATER = ("policy", "observation_space", "action_space", "lr_schedule", "generator", "monitor", "state", "stepper")
# Not part of an agent: what it is made from, and what belongs to one machine
_NO_HYPERPARAMETERS = ("policy", "env", "device", "_init_setup_model", "tensorboard_log", "action_noise")


@functools.cache
def _arguments_of(cls: "type[Learner]") -> Mapping[str, Argument]:
    """The table, looked at each time an attribute is set."""
    return cls.argument_table().arguments


class Learner(OffPolicyAlgorithm):
    """
    What an algorithm is made of: arguments, policy, and what is learned.

    Each constructor argument is an attribute of the same name. Its annotation is checked whenever it is set, and setting it on
    a live agent either works at once or is refused. A subclass says in :meth:`declare_state` which networks, optimizers and
    variables it has; saving, resuming and restarting follow from that.

    :param policy: policy class or its name
    :param env: environment, id, dataset, or ``(observation_space, action_space)``; None takes the spaces of the dataset
        given to ``learn_offline``. No simulator is needed to train or predict.
    :param learning_rate: a number or an SB3 schedule of the remaining progress
    :param batch_size: B
    :param lr_decay_steps: K of the cosine decay to 0 per gradient step, multiplied onto ``learning_rate``; None: no decay
    :param max_grad_norm: L2 norm that gradients are clipped to (None: no clipping)
    :param reward_transform: name in ``sb3_genoffline.data.REWARD_TRANSFORMS`` or None
    :param normalize_observations: standardise observations by the dataset's statistics, kept in the policy
    :param buffer_size: number of online rows kept by ``learn`` (offline rows are never dropped)
    :param learning_starts: random steps before ``learn`` acts by the policy
    :param tau: soft-update coefficient of the target networks
    :param gamma: discount
    :param train_freq: environment steps between updates in ``learn``
    :param gradient_steps: updates each time in ``learn`` (−1: as many as environment steps)
    :param action_noise: SB3's noise on actions in ``learn``, instead of a deterministic actor's own of std 0.1 and beside what
        other actors draw. It is not part of a saved agent: give it again, ``load(path, action_noise=...)``.
    :param replacement: sample batches with replacement
    :param matmul_precision: of training on a CPU: ``"bf16"`` computes matrix products in bf16, with 8 bits of precision
        instead of 24, where the processor has a unit for that (AMX). **No paper and no reference does so: it is an
        approximation.** What it does here is measured when training starts and logged once; where it does nothing, a warning
        says so. Acting is as ever.
    :param policy_kwargs: additional arguments of the policy
    :param stats_window_size: see SB3
    :param tensorboard_log: folder for tensorboard
    :param verbose: 0 silent, 1 info, 2 debug
    :param seed: of all random numbers; the same seed gives the same weights bit for bit on a CPU
    :param device: of networks and data
    """

    policy: OfflinePolicy
    name: ClassVar[str]
    """Key in ``ALGOS`` and in files: the folder's name, or the class's in lower case where it comes from elsewhere."""
    graph: bool = True
    """Whether updates and fits run as CUDA graphs where there is CUDA; ``model.graph = False`` refuses. It is not saved."""
    retired_arguments: ClassVar[frozenset[str]] = frozenset()
    """Arguments of earlier versions that changed no result: files may still have them."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            return
        package, *rooms = cls.__module__.split(".")
        cls.name = rooms[0] if package == "sb3_genoffline" and len(rooms) > 1 else cls.__name__.lower()

    def __init__(
        self,
        policy: str | type[OfflinePolicy],
        env: EnvLike | None,
        learning_rate: Rate,
        *,
        batch_size: PositiveInt = 256,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        buffer_size: Annotated[PositiveInt, Fixed("sizes the buffer")] = 1_000_000,
        learning_starts: Count = 0,
        tau: PositiveShare = 0.005,
        gamma: PositiveShare = 0.99,
        train_freq: PositiveInt | tuple[PositiveInt, Literal["step", "episode"]] | TrainFreq = 1,
        gradient_steps: Annotated[int, Bounds(-1)] = 1,
        action_noise: ActionNoise | None = None,
        replacement: Annotated[bool, Fixed("decides how the sampler that is at work draws")] = False,
        matmul_precision: MatmulPrecision = "fp32",
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: Annotated[PositiveInt, Fixed("sizes SB3's window of episodes")] = 100,
        tensorboard_log: str | PathLike[str] | None = None,
        verbose: int = 0,
        seed: Annotated[Annotated[int, Bounds(0, 2**32 - 1)] | None, Fixed("has done its work: use set_random_seed()")] = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
        **unknown: Any,
    ) -> None:
        self.argument_table().check(unknown)  # raises: SB3's arguments that do not apply say why
        self._is_set_up = self._is_made = False
        # SB3's constructor works with these before they are attributes
        given = {
            "policy_kwargs": policy_kwargs,
            "seed": seed,
            "train_freq": train_freq,
            "stats_window_size": stats_window_size,
            "verbose": verbose,
        }
        checked = self.argument_table().check(given)
        super().__init__(
            policy,
            as_env(env),  # type: ignore[arg-type]
            learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=checked["train_freq"],
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            policy_kwargs=dict(checked["policy_kwargs"] or {}),
            stats_window_size=checked["stats_window_size"],
            tensorboard_log=tensorboard_log,  # type: ignore[arg-type]
            verbose=checked["verbose"],
            device=as_device(device),
            support_multi_env=True,
            seed=checked["seed"],
            sde_support=False,
            supported_action_spaces=(spaces.Box,),
        )
        self.stats_window_size = checked["stats_window_size"]
        self.lr_decay_steps = lr_decay_steps
        self.max_grad_norm = max_grad_norm
        self.reward_transform = reward_transform
        self.replacement = replacement
        self.matmul_precision = matmul_precision
        self.normalize_observations = normalize_observations
        self.dataset_info: dict[str, Any] = {}
        """What the agent was trained on: id, fingerprint, sizes, scale of the rewards. Empty before the first dataset."""
        self.fits = Fits()
        self.policy_kwargs = self._checked_policy_kwargs(self.policy_kwargs)
        self._check()
        self._is_made = True
        if _init_setup_model and env is not None:
            self._setup_model()

    # ------------------------------------------------------------------ arguments

    def _get_policy_from_name(self, policy_name: str) -> type[OfflinePolicy]:
        """As SB3, but an unknown name gets an answer that lists the known ones."""
        if policy_name not in self.policy_aliases:
            known = ", ".join(map(repr, self.policy_aliases))
            raise UserError(
                f"policy={short(policy_name)} is not known{nearest(policy_name, self.policy_aliases)} "
                f"{type(self).__name__} knows {known}; images are not supported."
            )
        return cast(type[OfflinePolicy], super()._get_policy_from_name(policy_name))

    @classmethod
    def argument_table(cls) -> ArgumentTable:
        """The constructor's arguments that make up the agent; not those that belong to one machine, as ``device``."""
        arguments = constructor_arguments(cls, Learner)
        own = {name: argument for name, argument in arguments.items() if name not in _NO_HYPERPARAMETERS}
        return ArgumentTable(cls.__name__, own, REFUSED)

    def __setattr__(self, name: str, value: Any) -> None:
        """Check a hyper-parameter; on a live agent let all that depends on it follow, or refuse."""
        argument = _arguments_of(type(self)).get(name)
        if name == "action_noise" and not isinstance(value, ActionNoise | None):
            raise UserError(f"action_noise={short(value)} is not an ActionNoise of stable_baselines3.common.noise.")
        if name == "tensorboard_log" and not isinstance(value, str | PathLike | None):
            raise UserError(f"tensorboard_log={short(value)} is not a folder's name: use a path, or None.")
        if name == "device" and self.__dict__.get("_is_set_up") and str(value) != str(self.device):
            raise UserError(f"device can't be changed to {short(value)} on a live agent: save it, and load it with device=.")
        if argument is None:
            self._check_not_a_variable(name, value)
            super().__setattr__(name, value)
            return
        value = frozen(argument.check(value))
        if not (argument.names_file or name == "policy_kwargs"):
            to_json(name, value)  # raises: what could not be saved
        if name not in self.__dict__ or not self.__dict__.get("_is_made"):
            super().__setattr__(name, value)
            return
        before = self.__dict__[name]
        if name == "policy_kwargs":
            value = self._checked_policy_kwargs(value)
        if not self._is_set_up:  # made without spaces: nothing follows yet
            self._set_or_restore(name, value, before)
            return
        if value is before or (type(value) is type(before) and value == before):
            return
        if argument.fixed is not None:
            raise UserError(
                f"{name} can't be changed to {short(value)} on a live agent: it {argument.fixed}.{self._instead(name)}"
            )
        given = self._given_to_policy()
        self._set_or_restore(name, value, before, lambda: self._follow(name, given))

    def _check_not_a_variable(self, name: str, value: Any) -> None:
        """:raises UserError: if a tensor that was declared would be replaced by another, which nobody saves"""
        declared = self.state.variables.get(name) if "state" in self.__dict__ else None
        if declared is not None and value is not declared.tensor:
            raise UserError(
                f"{name} is a variable of {type(self).__name__}, which is saved and resumed: change it in place, as "
                f"self.{name}.copy_(...) or self.{name}.add_(...) do."
            )

    def __getattr__(self, name: str) -> Any:
        """Of what is not there: make an optimizer, and say why where the agent has no spaces or no data yet."""
        if name.endswith("_optimizer") and "state" in self.__dict__ and name.removesuffix("_optimizer") in self.state.plans:
            self.__dict__[name] = self.state.optimizer(name.removesuffix("_optimizer"))
            return self.__dict__[name]
        if name == "batches":
            raise NotMadeError("The agent has no rows to draw batches from yet: call set_dataset(dataset) first.")
        if name in _MADE_LATER:
            raise NotMadeError(self._not_made(name))
        return super().__getattribute__(name)  # raises, as it did

    def _not_made(self, name: str) -> str:
        without = "with _init_setup_model=False" if "observation_space" in self.__dict__ else "without spaces"
        return f"The agent has no {name} yet, as it was made {without}: train it (learn_offline), or make it with env=."

    def _set_or_restore(self, name: str, value: Any, before: Any, follow: Callable[[], None] = lambda: None) -> None:
        """Set a checked value, unless it does not go with the others, or what depends on it can't follow."""
        super().__setattr__(name, value)
        try:
            self._check()
            follow()
        except UserError:
            super().__setattr__(name, before)
            raise

    def _follow(self, name: str, given_before: Mapping[str, Any]) -> None:
        """
        Let policy, schedule and declared state follow a hyper-parameter that was set.

        :param name: of it
        :param given_before: what the policy was made with, or acts with since
        :raises UserError: before anything has moved, if what depends on it can't follow
        """
        acting = {}
        for key, value in self._given_to_policy().items():
            if value == given_before[key]:
                continue
            if key not in self.policy.acting_settings:
                raise UserError(
                    f"{name} can't be changed to {short(getattr(self, name))} on a live agent: it shapes the policy, which is "
                    f"made.{self._instead(name)}"
                )
            acting[key] = value
        if name == "train_freq":
            self._check_train_freq()
        self.policy.act_with(acting)
        self.stepper.forget()
        if name == "learning_rate":
            self._setup_lr_schedule()
        elif name == "train_freq":
            self._convert_train_freq()
        self.state.on_argument_set(name)

    def _check_train_freq(self) -> None:
        """:raises UserError: if ``train_freq`` counts episodes, and of several environments"""
        by_episodes = (
            isinstance(self.train_freq, tuple) and TrainFrequencyUnit(self.train_freq[1]) == TrainFrequencyUnit.EPISODE
        )
        if by_episodes and self.env is not None and has_simulator(self.env) and self.env.num_envs > 1:
            raise UserError(
                f"train_freq counts episodes, and {self.env.num_envs} environments do not end theirs together: use "
                "`model.train_freq = n`, in steps of each, or one environment."
            )

    def _checked_policy_kwargs(self, value: Mapping[str, Any] | None) -> dict[str, Any]:
        policy_class: Any = self.policy_class
        checked: dict[str, Any] = frozen(policy_class.check_arguments(value or {}))
        return checked

    def _given_to_policy(self) -> dict[str, Any]:
        """The policy's arguments: those that follow from the algorithm's, ``policy_kwargs``, and defaults for the others."""
        arguments, policy_class = self.policy_arguments(), cast(Any, self.policy_class)
        if doubled := arguments.keys() & self.policy_kwargs.keys():
            key = min(doubled)
            raise UserError(
                f"policy_kwargs has {key!r}, which is an argument of {type(self).__name__}: pass {key}="
                f"{self.policy_kwargs[key]!r} there."
            )
        defaults = {name: argument.default for name, argument in policy_class.argument_table().arguments.items()}
        return defaults | arguments | self.policy_kwargs

    def _instead(self, name: str) -> str:
        return f" Make a new agent with {type(self).__name__}(..., {name}=...)."

    def _check(self) -> None:
        """What single arguments can't say: names in tables, and :meth:`check_arguments`."""
        if self.reward_transform is not None and self.reward_transform not in REWARD_TRANSFORMS:
            known = ", ".join(map(repr, REWARD_TRANSFORMS))
            raise UserError(f"reward_transform={self.reward_transform!r} is not known; use None or one of {known}.")
        self.check_arguments()

    def check_arguments(self) -> None:
        """
        Combinations of hyper-parameters; called when the agent is made, and again when one is set.

        :raises UserError: naming those that do not go together
        """

    def policy_arguments(self) -> dict[str, Any]:
        """Arguments of the policy that are, or follow from, arguments of the algorithm."""
        return {}

    # ------------------------------------------------------------------ set-up

    def _setup_model(self) -> None:
        """Build the policy; no buffer, which only training needs."""
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._given_to_policy()  # raises: what is given twice
        policy_class: Any = self.policy_class
        arguments = self.policy_arguments() | self.policy_kwargs
        sizes = spaces.flatdim(self.observation_space), spaces.flatdim(self.action_space)
        shaping = sizing(arguments, policy_class.argument_table())
        check_sizes(shaping, *sizes, None)  # raises: what would fill the memory
        policy = policy_class(self.observation_space, self.action_space, self.lr_schedule, **arguments)
        check_sizes(shaping, *sizes, sum(tensor.numel() for tensor in policy.state_dict().values()))  # raises, as load would
        policy.belong_to(self)
        self.policy = policy.to(self.device)
        self._convert_train_freq()
        self.generator = th.Generator(self.device)
        self.monitor = TrainingMonitor(self.device)
        self._seed_generators(int(th.randint(2**62, (1,))) if self.seed is None else self.seed)
        self.state = LearnerState(self, self.device, self.policy.obs_mean.dtype)
        self.stepper = Stepper(self, self.draw_and_update)
        self.declare_state()
        self._is_set_up = True

    def _take_spaces(self, env: VecEnv) -> None:
        """Of an agent that was made without: everything that waits for them is made now."""
        self.env, self.n_envs = env, env.num_envs
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self._setup_model()

    def draw_and_update(self, batch: Any) -> dict[str, Tensor]:
        """One update on a batch, its random numbers drawn now: what is recorded as a CUDA graph."""
        raise NotImplementedError

    def declare_state(self) -> None:
        """Say what is learned: :meth:`add_networks`, :meth:`add_optimizer`, :meth:`add_variable`."""
        raise NotImplementedError

    def add_networks(self, *names: str) -> None:
        """:param names: networks of the policy that the algorithm has too, under the same names"""
        for name in names:
            setattr(self, name, getattr(self.policy, name))
        self.state.aliases += names

    def add_network(self, name: str, network: nn.Module) -> None:
        """
        :param name: attribute that it becomes
        :param network: one that the policy does not have: only training needs it
        """
        self.state.networks[name] = network.to(self.device)
        setattr(self, name, network)

    def add_optimizer(
        self,
        name: str,
        parameters: Iterable[Tensor],
        cls: type[th.optim.Optimizer] | None = None,
        options: Callable[[Any], dict[str, Any]] = lambda _: {},
        usual: type[th.optim.Optimizer] = th.optim.Adam,
    ) -> None:
        """
        :param name: of what it moves: it becomes the attribute ``{name}_optimizer``
        :param parameters: moved by it
        :param cls: optimizer class, whatever the user has chosen for networks (None: the policy's ``optimizer_class`` with its
            ``optimizer_kwargs``)
        :param options: gives its further options from the agent's hyper-parameters as they are now
        :param usual: optimizer class where the policy's is the default, Adam
        """
        if cls is None:
            cls, own = self.policy.optimizer_class, options
            cls = usual if cls is th.optim.Adam else cls
            options = lambda agent: own(agent) | agent.policy.optimizer_kwargs  # noqa: E731
        self.state.add_optimizer(name, list(parameters), cls, self.lr_schedule(1.0), options)
        if self.policy.optimizer_class is not th.optim.Adam or self.policy.optimizer_kwargs:
            self.state.optimizer(name)  # what a user has chosen is tried at once

    def add_variable(
        self, name: str, start: Callable[[Any], Any], argument: str | None = None, requires_grad: bool = False
    ) -> None:
        """
        :param name: attribute that the tensor becomes
        :param start: gives the value that it starts from, of the agent (a copied agent has its own)
        :param argument: hyper-parameter that ``start`` reads; setting that one restarts the variable
        :param requires_grad: whether an optimizer moves it
        """
        setattr(self, name, self.state.add_variable(name, start, argument, requires_grad))

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *self.state.aliases]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        optimizers = [f"{name}_optimizer" for name in self.state.plans]
        return ["policy", *self.state.networks, *optimizers], list(self.state.variables)

    def _seed_generators(self, seed: int) -> None:
        self.generator.manual_seed(seed)
        # Drawn here and not where a buffer is made: a resumed training makes one more buffer than an uninterrupted one
        self._buffer_seed = int(th.randint(2**62, (1,), generator=self.generator, device=self.device))
        self.policy.seed_acting(seed + 1)  # another stream than the training's

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Seed SB3's global generators, this algorithm's, and the policy's.

        :param seed: 0 to 2³² − 1; None leaves all as they are
        :raises UserError: for anything else
        """
        seed = _arguments_of(type(self))["seed"].check(seed)
        super().set_random_seed(seed)
        if seed is not None and hasattr(self, "generator"):
            self._seed_generators(seed)
            self.__dict__["seed"] = seed  # what a copy of this agent starts its generators from

    def set_acting_seed(self, seed: int) -> None:
        """
        Restart the stream of random numbers that :meth:`predict` draws from. After the same seed, the same observations in the
        same order get the same actions; training is not touched.

        :param seed: of the stream
        """
        self.policy.seed_acting(seed)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Actions for observations. Where the policy samples its actions (diffusion: DAC, DQL), ``deterministic=True`` takes the
        best of some samples, so it differs from call to call: call :meth:`set_acting_seed` before to get the same again.

        :param observation: one or a batch of them; vectors, or what the agent's own environment gives (Dict observations, say)
        :param state: passed through, except by policies with a memory: of those what the last call returned
        :param episode_start: (n,) which environments begin an episode, for policies with a memory
        :param deterministic: the best known action, instead of one to explore with
        :return: action or actions, and the state for the next call
        :raises UserError: if the agent has no policy yet, or the observation can't be made a vector
        """
        if not hasattr(self, "policy"):
            raise UserError(self._not_made("policy"))
        dim = int(np.prod(self.observation_space.shape or ()))
        return super().predict(flat_observation(observation, source_space(self.env), dim), state, episode_start, deterministic)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        self.policy.adds_noise = action_noise is None
        try:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        finally:
            self.policy.adds_noise = True

    def set_env(self, env: EnvLike, force_reset: bool = True) -> None:
        """
        :param env: an environment whose spaces fit the agent's (their dtype may differ), or a ``VecEnv`` of any number
        :param force_reset: see SB3
        :raises UserError: naming the space that does not fit
        """
        wrapped = self._wrap_env(as_env(env), self.verbose)  # type: ignore[arg-type]
        if not hasattr(self, "observation_space"):
            self._take_spaces(wrapped)
        check_agent_spaces((self.observation_space, self.action_space), (wrapped.observation_space, wrapped.action_space))
        # SB3 compares the dtypes and the number of environments too, neither of which matters here
        self.observation_space, self.action_space = wrapped.observation_space, wrapped.action_space
        self.n_envs = wrapped.num_envs
        super().set_env(wrapped, force_reset)
