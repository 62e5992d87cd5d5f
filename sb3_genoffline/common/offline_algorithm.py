"""The base class of all offline algorithms and the only training loop."""

import inspect
import time
import warnings
from collections import deque
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common import utils
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from torch import Tensor

from sb3_genoffline.common.callbacks import OfflineProgressBarCallback
from sb3_genoffline.common.checkpoints import CheckpointMixin
from sb3_genoffline.common.envs import EnvLike, as_env, check_agent_spaces, has_simulator
from sb3_genoffline.common.metrics import MetricsMixin, RunningMeans
from sb3_genoffline.common.policies import OfflinePolicy
from sb3_genoffline.common.pretrained import PretrainedMixin
from sb3_genoffline.common.pretraining import Phase, PretrainingMixin
from sb3_genoffline.common.schedules import cosine_decay
from sb3_genoffline.data import REWARD_TRANSFORMS, OfflineDataset, check_compatible, load_dataset, reward_affine
from sb3_genoffline.data.buffers import OfflineBuffer, TransitionBatch

SelfOfflineAlgorithm = TypeVar("SelfOfflineAlgorithm", bound="OfflineAlgorithm")

# Not part of an agent: what it is made from, and what belongs to one machine
_NO_HYPERPARAMETERS = {"self", "policy", "env", "device", "kwargs", "_init_setup_model", "tensorboard_log"}


def check_positive(**counts: int) -> None:
    """:raises ValueError: naming the first that is not at least 1"""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")


class OfflineAlgorithm(CheckpointMixin, PretrainedMixin, PretrainingMixin, MetricsMixin):
    """
    An SB3 off-policy algorithm that learns from a dataset (:meth:`learn_offline`) and can go on online (``learn``).

    A subclass writes its paper into :meth:`update` and says, in :meth:`_setup_training`, which modules and optimizers it has.

    :param policy: policy class or its name
    :param env: environment, id, dataset, or ``(observation_space, action_space)``; None takes the spaces of the dataset
        given to :meth:`learn_offline`. No simulator is needed to train or predict.
    :param learning_rate: a number or an SB3 schedule of the remaining progress
    :param lr_decay_steps: K of the cosine decay to 0 per gradient step, multiplied onto ``learning_rate``; None: no decay
    :param buffer_size: number of online rows kept by ``learn`` (offline rows are never dropped)
    :param learning_starts: random steps before ``learn`` acts by the policy
    :param batch_size: B
    :param tau: soft-update coefficient of the target networks
    :param gamma: discount
    :param train_freq: environment steps between updates in ``learn``
    :param gradient_steps: updates each time in ``learn`` (−1: as many as environment steps)
    :param max_grad_norm: L2 norm that gradients are clipped to (None: no clipping)
    :param reward_transform: name in ``sb3_genoffline.data.REWARD_TRANSFORMS`` or None
    :param replacement: sample batches with replacement
    :param normalize_observations: standardise observations by the dataset's statistics, kept in the policy
    :param policy_kwargs: additional arguments of the policy
    :param stats_window_size: see SB3
    :param tensorboard_log: folder for tensorboard
    :param verbose: 0 silent, 1 info, 2 debug
    :param seed: of all random numbers; the same seed gives the same weights bit for bit on a CPU
    :param device: of networks and data
    """

    policy: OfflinePolicy
    default_gradient_steps: ClassVar[int]
    """Gradient steps of :meth:`learn_offline` when the caller names none: the paper's."""

    def __init__(
        self,
        policy: str | type[OfflinePolicy],
        env: EnvLike | None,
        learning_rate: float | Schedule,
        *,
        lr_decay_steps: int | None = None,
        buffer_size: int = 1_000_000,
        learning_starts: int = 0,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        max_grad_norm: float | None = None,
        reward_transform: str | None = None,
        replacement: bool = False,
        normalize_observations: bool = False,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        check_positive(batch_size=batch_size, buffer_size=buffer_size)
        if reward_transform is not None and reward_transform not in REWARD_TRANSFORMS:
            known = ", ".join(map(repr, REWARD_TRANSFORMS))
            raise ValueError(f"reward_transform={reward_transform!r} is not known; use None or one of {known}.")
        super().__init__(
            policy,
            as_env(env),  # type: ignore[arg-type]
            learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            policy_kwargs=dict(policy_kwargs or {}),
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Box,),
        )
        self.stats_window_size = stats_window_size
        self.lr_decay_steps = lr_decay_steps
        self.max_grad_norm = max_grad_norm
        self.reward_transform = reward_transform
        self.replacement = replacement
        self.normalize_observations = normalize_observations
        self.dataset_info: dict[str, Any] = {}
        self._pending_buffer_state: dict[str, Any] | None = None
        self._phases: list[Phase] = []
        self._pending_phase_state: dict[str, Any] | None = None
        self.last_metrics: dict[str, float] = {}
        self._warned: set[str] = set()
        self._offline_phase = True
        if _init_setup_model and env is not None:
            self._setup_model()

    # ------------------------------------------------------------------ set-up

    def _setup_model(self) -> None:
        """Build the policy; no buffer, which only training needs."""
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        arguments = self._policy_arguments()
        if doubled := arguments.keys() & self.policy_kwargs.keys():
            name = min(doubled)
            raise ValueError(
                f"policy_kwargs has {name!r}, which is an argument of {type(self).__name__}: pass {name}="
                f"{self.policy_kwargs[name]!r} there."
            )
        arguments |= self.policy_kwargs
        policy = self.policy_class(self.observation_space, self.action_space, self.lr_schedule, **arguments)
        self.policy = policy.to(self.device)  # type: ignore[assignment]
        self._convert_train_freq()
        self.generator = th.Generator(self.device)
        self._means = RunningMeans(self.device)
        self._seed_generators(int(th.randint(2**62, (1,))) if self.seed is None else self.seed)
        self._setup_training()

    def _policy_arguments(self) -> dict[str, Any]:
        """Arguments of the policy that are arguments of the algorithm."""
        return {}

    def _setup_training(self) -> None:
        """Name the policy's modules on ``self`` and make the optimizers."""
        raise NotImplementedError

    def _seed_generators(self, seed: int) -> None:
        self.generator.manual_seed(seed)
        # Drawn here and not where a buffer is made: a resumed training makes one more buffer than an uninterrupted one
        self._buffer_seed = int(th.randint(2**62, (1,), generator=self.generator, device=self.device))
        self.policy.seed_acting(seed + 1)  # another stream than the training's

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Seed SB3's global generators, this algorithm's, and the policy's.

        :param seed: None leaves all as they are
        """
        super().set_random_seed(seed)
        if seed is not None and hasattr(self, "generator"):
            self._seed_generators(seed)

    def set_env(self, env: EnvLike, force_reset: bool = True) -> None:  # type: ignore[override]
        """
        :param env: an environment whose spaces fit the agent's (their dtype may differ), or a ``VecEnv`` of any number
        :param force_reset: see SB3
        :raises ValueError: naming the space that does not fit
        """
        wrapped = self._wrap_env(as_env(env), self.verbose)  # type: ignore[arg-type]
        check_agent_spaces((self.observation_space, self.action_space), (wrapped.observation_space, wrapped.action_space))
        # SB3 compares the dtypes and the number of environments too, neither of which matters here
        self.observation_space, self.action_space = wrapped.observation_space, wrapped.action_space
        self.n_envs = wrapped.num_envs
        super().set_env(wrapped, force_reset)

    # ------------------------------------------------------------------ data

    def set_dataset(self, dataset: Any) -> OfflineDataset:
        """
        Fill the buffer with a dataset's rows. :meth:`learn_offline` calls this; call it yourself to give a loaded agent its
        offline rows back before ``learn``.

        :param dataset: whatever :func:`~sb3_genoffline.data.load_dataset` takes
        :return: the dataset
        :raises ValueError: if its spaces are not the agent's
        """
        dataset = load_dataset(dataset)
        if not hasattr(self, "observation_space"):
            env = self._wrap_env(as_env(dataset), 0)  # type: ignore[arg-type]
            self.env, self.n_envs = env, env.num_envs
            self.observation_space, self.action_space = env.observation_space, env.action_space
            self._setup_model()
        check_compatible(dataset, self.observation_space, self.action_space)
        previous = self.replay_buffer if isinstance(self.replay_buffer, OfflineBuffer) else None
        scale, shift = reward_affine(dataset, self.reward_transform)
        if previous is not None and previous.holds(dataset, scale, shift):
            return dataset
        rewards = scale * dataset.rewards.astype(np.float64) + shift
        info = {
            "id": dataset.id,
            "fingerprint": dataset.fingerprint,
            "n_transitions": len(dataset),
            "n_episodes": dataset.n_episodes,
            "mean_return": float(dataset.episode_returns().mean()),
            "ref_min_score": dataset.ref_min_score,
            "ref_max_score": dataset.ref_max_score,
            "reward_scale": scale,
            "reward_shift": shift,
            "min_reward": float(rewards.min()),
            "q_bound": float(np.abs(rewards).max()) / (1.0 - self.gamma) if self.gamma < 1 else None,
        }
        self.replay_buffer = self._make_buffer(dataset, scale, shift)  # type: ignore[assignment]
        buffer: OfflineBuffer = self.replay_buffer  # type: ignore[assignment]
        if previous is not None:
            buffer.adopt_online_rows(previous)
        elif self._pending_buffer_state is not None:
            if self.dataset_info.get("fingerprint") == info["fingerprint"]:
                buffer.load_state_dict(self._pending_buffer_state)
            else:
                self._pending_phase_state = None
                warnings.warn(
                    f"The agent was trained on {self.dataset_info.get('id') or 'another dataset'} and goes on with "
                    f"{dataset.id or 'a different one'}: sampling starts anew, so this is not an exact resume.",
                    stacklevel=3,
                )
        self._pending_buffer_state = None
        self._phases = []
        if self.normalize_observations and "fingerprint" not in self.dataset_info:
            self.policy.set_observation_statistics(*buffer.observation_statistics())
        self.dataset_info = info
        return dataset

    def _make_buffer(self, dataset: OfflineDataset | None, reward_scale: float, reward_shift: float) -> OfflineBuffer:
        return OfflineBuffer(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            self.device,
            self.n_envs,
            dataset=dataset,
            reward_scale=reward_scale,
            reward_shift=reward_shift,
            replacement=self.replacement,
            seed=self._buffer_seed,
        )

    # ------------------------------------------------------------------ training

    def learn_offline(
        self: SelfOfflineAlgorithm,
        dataset: Any,
        gradient_steps: int | None = None,
        callback: MaybeCallback = None,
        log_interval: int | None = 1000,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfOfflineAlgorithm:
        """
        Train on a dataset. ``num_timesteps`` counts gradient steps, and callbacks fire after each. An algorithm that needs a
        generative model fits it first (:meth:`pretrain`), unless it has one.

        :param dataset: whatever :func:`~sb3_genoffline.data.load_dataset` takes: a Minari id, a D4RL file, an ``.npz``, an SB3
            replay buffer, a dict of arrays, an ``OfflineDataset``
        :param gradient_steps: number of updates (None: the paper's, ``default_gradient_steps``)
        :param callback: SB3 callback(s)
        :param log_interval: gradient steps between two dumps of the logger (None or not positive: never)
        :param tb_log_name: name of the run for tensorboard (None: the class name)
        :param reset_num_timesteps: False goes on counting where the last training stopped
        :param progress_bar: show one
        :return: self
        """
        self.set_dataset(dataset)
        total_timesteps, callback = self._setup_learn_offline(
            self.default_gradient_steps if gradient_steps is None else gradient_steps,
            callback,
            reset_num_timesteps,
            tb_log_name or type(self).__name__,
            progress_bar,
        )
        callback.on_training_start(locals(), globals())
        proceed = self.num_timesteps < total_timesteps and self._run_phases(callback, log_interval)
        self.start_time = time.time_ns()  # time/fps is the policy's training
        while proceed and self.num_timesteps < total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self.train(gradient_steps=1, batch_size=self.batch_size)
            self.num_timesteps += 1
            callback.update_locals(locals())
            proceed = callback.on_step()
            if proceed and log_interval and log_interval > 0 and self.num_timesteps % log_interval == 0:
                self.dump_logs()
        self._flush_metrics()
        callback.on_training_end()
        return self

    def _setup_learn_offline(
        self, gradient_steps: int, callback: MaybeCallback, reset_num_timesteps: bool, tb_log_name: str, progress_bar: bool
    ) -> tuple[int, BaseCallback]:
        """SB3's ``_setup_learn`` without touching the environment."""
        if gradient_steps < 0:
            raise ValueError(f"gradient_steps={gradient_steps} must not be negative.")
        self._offline_phase = True
        self.start_time = time.time_ns()
        if self.ep_info_buffer is None or reset_num_timesteps:
            self.ep_info_buffer = deque(maxlen=self._stats_window_size)
            self.ep_success_buffer = deque(maxlen=self._stats_window_size)
        if reset_num_timesteps:
            self.num_timesteps = 0
            self._episode_num = 0
        else:
            gradient_steps += self.num_timesteps
        self._total_timesteps = gradient_steps
        self._num_timesteps_at_start = self.num_timesteps
        if not self._custom_logger:
            self._logger = utils.configure_logger(self.verbose, self.tensorboard_log, tb_log_name, reset_num_timesteps)
        if progress_bar:
            callbacks = callback if isinstance(callback, list) else [] if callback is None else [callback]
            known = [item if isinstance(item, BaseCallback) else ConvertCallback(item) for item in callbacks]
            callback = [*known, OfflineProgressBarCallback()]
        return gradient_steps, self._init_callback(callback, progress_bar=False)

    def learn(self: SelfOfflineAlgorithm, total_timesteps: int, *args: Any, **kwargs: Any) -> SelfOfflineAlgorithm:
        """
        Go on online from the same weights, as SB3's off-policy algorithms learn: the offline rows stay in the buffer, online
        rows join them, and ``num_timesteps`` counts environment steps.

        :param total_timesteps: number of environment steps; the other arguments are SB3's
        :return: self
        :raises ValueError: if there is no environment to step
        """
        if self.env is None or not has_simulator(self.env):
            raise ValueError("learn() steps an environment and this agent has none: call `model.set_env(env)` first.")
        if self.replay_buffer is None:
            if self.dataset_info:
                warnings.warn(
                    "The offline rows are not part of a checkpoint: learn() starts from an empty buffer. Call "
                    "`model.set_dataset(dataset)` first to keep them.",
                    stacklevel=2,
                )
            scale, shift = (
                self.dataset_info.get(key, default) for key, default in (("reward_scale", 1.0), ("reward_shift", 0.0))
            )
            self.replay_buffer = self._make_buffer(None, scale, shift)  # type: ignore[assignment]
        self._run_phases(None, None)
        self._offline_phase = False
        return super().learn(total_timesteps, *args, **kwargs)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """
        :param gradient_steps: number of updates
        :param batch_size: B
        """
        self.policy.set_training_mode(True)
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size)  # type: ignore[union-attr]
            self._record_metrics(self.update(batch, self.draw_noise(len(batch.rewards))))  # type: ignore[arg-type]

    def draw_noise(self, batch_size: int) -> Any:
        """All random numbers of one update, from this algorithm's generator."""
        raise NotImplementedError

    def update(self, batch: TransitionBatch, noise: Any) -> dict[str, Tensor]:
        """
        One gradient step, in the paper's order.

        :param batch: B transitions
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        raise NotImplementedError

    def _learning_rate_now(self, schedule: Schedule, update: int | None = None) -> float:
        """
        Learning rate of the coming update: the schedule's value times the cosine decay.

        :param schedule: of the remaining progress
        :param update: what the cosine counts (None: updates)
        """
        update = self._n_updates if update is None else update
        if self.lr_decay_steps is not None and update >= self.lr_decay_steps and "lr_decay" not in self._warned:
            self._warned.add("lr_decay")
            warnings.warn(
                f"After {self._n_updates} updates the learning rate has decayed to 0 (lr_decay_steps={self.lr_decay_steps}): "
                "nothing is learned any more. To go on, set `model.lr_decay_steps = None` or a larger number.",
                stacklevel=2,
            )
        return schedule(self._current_progress_remaining) * cosine_decay(update, self.lr_decay_steps)

    @classmethod
    def hyperparameter_names(cls) -> list[str]:
        """
        The constructor's arguments that make up the agent; each is an attribute of the same name. Not among them: what
        belongs to one machine, such as the tensorboard folder.
        """
        names: dict[str, None] = {}
        for base in cls.__mro__[: cls.__mro__.index(OfflineAlgorithm) + 1]:
            if "__init__" in base.__dict__:
                names |= dict.fromkeys(inspect.signature(base.__init__).parameters)  # type: ignore[misc]
        return [name for name in names if name not in _NO_HYPERPARAMETERS]
