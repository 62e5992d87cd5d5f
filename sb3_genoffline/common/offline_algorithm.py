"""The base class of all offline algorithms and the only training loop."""

import inspect
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, Never, Self, TypeVar, cast

import numpy as np
import torch as th
from stable_baselines3.common import utils
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.logger import TensorBoardOutputFormat
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import Tensor

from sb3_genoffline.common.arguments import Argument, Count, Rate, nearest
from sb3_genoffline.common.callbacks import OfflineProgressBarCallback
from sb3_genoffline.common.envs import as_env, has_simulator
from sb3_genoffline.common.fitting import each_callback
from sb3_genoffline.common.fitting_learner import FittingLearner
from sb3_genoffline.common.metrics import METRICS_EVERY
from sb3_genoffline.common.schedules import cosine_decay
from sb3_genoffline.data import OfflineDataset, check_compatible, load_dataset, reward_affine
from sb3_genoffline.data.ahead import gathered_ahead
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.sampling import Sampler
from sb3_genoffline.errors import UnknownArgumentError, UserError, printable

BatchT = TypeVar("BatchT")
NoiseT = TypeVar("NoiseT")


class OfflineAlgorithm(FittingLearner, Generic[BatchT, NoiseT]):
    """
    An SB3 off-policy algorithm that learns from a dataset (:meth:`learn_offline`) and can continue online (:meth:`learn`).

    A subclass writes its paper into :meth:`update` and declares in :meth:`declare_state` what it learns. The arguments are
    those of :class:`~sb3_genoffline.common.learner.Learner`.
    """

    default_gradient_steps: ClassVar[int] = 1_000_000
    """The paper's gradient steps."""
    goes_online: ClassVar[bool] = True
    """Whether :meth:`learn` can continue in an environment."""
    why_not_online: ClassVar[str] = "it learns from whole episodes of a dataset"
    """What :meth:`learn` says where it can't."""
    baselines: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """What runs are called whose hyper-parameters leave the algorithm's idea out, and those hyper-parameters."""
    gather_ahead: bool | None = None
    """
    Whether a thread gathers the batches of :meth:`learn_offline` before they are asked for. None: where the rows are
    memory-mapped, or lie on the CPU while the agent is on a GPU. It changes no batch and no result, and is not saved.
    """
    batches: Sampler[BatchT]
    """Draws the batches from the buffer; there is none before the buffer."""
    _learns_offline = True

    # ------------------------------------------------------------------ data

    def set_dataset(self, dataset: Any) -> OfflineDataset:
        """
        Fill the buffer with a dataset's rows. :meth:`learn_offline` calls this; call it yourself to give a loaded agent its
        offline rows back before ``learn``.

        :param dataset: whatever :func:`~sb3_genoffline.data.load_dataset` takes
        :return: the dataset
        :raises UserError: if its spaces are not the agent's
        """
        data: OfflineDataset = load_dataset(dataset)
        if not hasattr(self, "observation_space"):
            self._take_spaces(self._wrap_env(as_env(data), 0))  # type: ignore[arg-type]
        elif not self._is_set_up:
            self._setup_model()
        check_compatible(data, self.observation_space, self.action_space)
        previous = self.replay_buffer if isinstance(self.replay_buffer, OfflineBuffer) else None
        scale, shift = reward_affine(data, self.reward_transform)
        if previous is not None and previous.holds(data, scale, shift):
            return data
        self.fits.check_at_rest()
        extremes = scale * np.array([data.rewards.min(), data.rewards.max()], dtype=np.float64) + shift
        info = data.summary() | {
            "reward_scale": scale,
            "reward_shift": shift,
            "min_reward": float(extremes.min()),
            "max_abs_reward": float(np.abs(extremes).max()),
        }
        buffer = self._make_buffer(data, scale, shift)
        before = self.policy.obs_mean.clone(), self.policy.obs_std.clone()
        if self.normalize_observations and "fingerprint" not in self.dataset_info:
            self.policy.set_observation_statistics(*buffer.observation_statistics())
        try:
            self.check_fitted_model((scale, shift))
            self.take_buffer(buffer)  # raises too, where no batch can be drawn
        except UserError:
            self.policy.set_observation_statistics(*before)
            raise
        resumed, self._resumed_sampler = self._resumed_sampler, None
        if previous is not None:
            buffer.adopt_online_rows(previous)
            self.fits.forget()
        elif resumed is not None and self.dataset_info.get("fingerprint") == info["fingerprint"]:
            self.batches.load_state_dict(resumed)
        elif resumed is not None:
            self.fits.forget()
            warnings.warn(
                f"The agent was trained on {printable(self.dataset_info.get('id') or 'another dataset')} and continues with "
                f"{printable(data.id or 'a different one')}: sampling starts over, so this is not an exact resume.",
                stacklevel=3,
            )
        self.dataset_info = info
        return data

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

    def take_buffer(self, buffer: OfflineBuffer) -> None:
        """See :meth:`~sb3_genoffline.common.stored_learner.StoredLearner.take_buffer`."""
        batches = self.make_sampler(buffer)  # raises, before anything has changed
        self.replay_buffer, self.batches = buffer, batches

    def make_sampler(self, buffer: OfflineBuffer) -> Sampler[BatchT]:
        """
        What draws the batches; an algorithm that learns from windows of episodes has a
        :class:`~sb3_genoffline.data.sequences.SequenceSampler`.

        :param buffer: the rows
        """
        return cast(Sampler[BatchT], buffer.sampler)

    def empty_buffer(self) -> OfflineBuffer:
        """A buffer for online rows alone, their rewards on the scale of the data that the agent was trained on."""
        scale, shift = self.dataset_info.get("reward_scale", 1.0), self.dataset_info.get("reward_shift", 0.0)
        return self._make_buffer(None, scale, shift)

    # ------------------------------------------------------------------ training

    def pretrain(
        self,
        dataset: Any,
        callback: MaybeCallback = None,
        log_interval: int | None = 1000,
        tb_log_name: str | None = None,
        progress_bar: bool = False,
        **unknown: Never,
    ) -> Self:
        """
        Fit only the generative models and leave the policy alone. :meth:`learn_offline` does this by itself.

        :param dataset: whatever :func:`~sb3_genoffline.data.load_dataset` takes
        :param callback: those that are a :class:`~sb3_genoffline.common.fitting.FitListener` are told
        :param log_interval: steps between two dumps of the logger (None or not positive: never)
        :param tb_log_name: name of the run for tensorboard (None: the class name)
        :param progress_bar: show one for each fit
        :param unknown: none
        :return: self
        """
        _refuse_unknown("pretrain", unknown)
        log_interval = _LOG_INTERVAL.check(log_interval)
        self.set_dataset(dataset)
        name = tb_log_name or type(self).__name__
        _, callbacks = self._setup_learn_offline(0, callback, False, name, progress_bar)
        with self._closing_logs():
            callbacks.on_training_start(locals(), globals())
            self.run_fits(callbacks, log_interval)
            callbacks.on_training_end()
        return self

    def learn_offline(
        self,
        dataset: Any,
        gradient_steps: int | None = None,
        callback: MaybeCallback = None,
        log_interval: int | None = 1000,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        **unknown: Never,
    ) -> Self:
        """
        Train on a dataset. ``num_timesteps`` counts gradient steps, and callbacks fire after each. An algorithm that needs a
        generative model fits it first (:meth:`pretrain`), unless it has one.

        :param dataset: whatever :func:`~sb3_genoffline.data.load_dataset` takes: a Minari id, a D4RL file, an ``.npz``, an SB3
            replay buffer, a dict of arrays, an ``OfflineDataset``
        :param gradient_steps: number of updates (None: the paper's, :meth:`usual_gradient_steps`)
        :param callback: SB3 callback(s)
        :param log_interval: gradient steps between two dumps of the logger, which dumps what is left at the end, too (None or
            not positive: never)
        :param tb_log_name: name of the run for tensorboard (None: the class name)
        :param reset_num_timesteps: False goes on counting where the last training stopped
        :param progress_bar: show one
        :param unknown: none; SB3's ``total_timesteps`` is ``gradient_steps`` here
        :return: self
        """
        _refuse_unknown("learn_offline", unknown)
        steps = self.usual_gradient_steps() if gradient_steps is None else _GRADIENT_STEPS.check(gradient_steps)
        log_interval = _LOG_INTERVAL.check(log_interval)
        self.set_dataset(dataset)
        total_timesteps, callback = self._setup_learn_offline(
            steps, callback, reset_num_timesteps, tb_log_name or type(self).__name__, progress_bar
        )
        with self._closing_logs():
            callback.on_training_start(locals(), globals())
            proceed = self.num_timesteps < total_timesteps and self.run_fits(callback, log_interval)
            self.start_time = time.time_ns()  # time/fps is the policy's training
            with gathered_ahead(self.batches, self._gathers_ahead()):
                while proceed and self.num_timesteps < total_timesteps:
                    self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                    self.train(gradient_steps=1, batch_size=self.batch_size)
                    self.num_timesteps += 1
                    callback.update_locals(locals())
                    proceed = callback.on_step()
                    if proceed and log_interval and log_interval > 0 and self.num_timesteps % log_interval == 0:
                        self.dump_logs()
            self._dump_the_rest(log_interval)
            callback.on_training_end()
        return self

    def _gathers_ahead(self) -> bool:
        buffer = self.replay_buffer
        return self.gather_ahead if self.gather_ahead is not None else buffer is not None and buffer.gathers_slowly

    def usual_gradient_steps(self) -> int:
        """Gradient steps of :meth:`learn_offline` when the caller names none."""
        return self.default_gradient_steps

    def _setup_learn_offline(
        self, gradient_steps: int, callback: MaybeCallback, reset_num_timesteps: bool, tb_log_name: str, progress_bar: bool
    ) -> tuple[int, BaseCallback]:
        """SB3's ``_setup_learn`` without touching the environment."""
        self._learns_offline = True
        self.stepper.forget()
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
        callback = self._init_callback(callback, progress_bar=False)
        if any(isinstance(each, StopTrainingOnMaxEpisodes) for each in each_callback(callback)):
            raise UserError(
                "StopTrainingOnMaxEpisodes counts the episodes that learn() plays, and training offline plays none: leave it "
                "out, and say how long to train with gradient_steps."
            )
        return gradient_steps, callback

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 4,
        *args: Any,
        **kwargs: Any,
    ) -> Self:
        """
        Continue online from these weights, as SB3's off-policy algorithms learn: the offline rows stay in the buffer, online
        rows join them, and ``num_timesteps`` counts environment steps.

        :param total_timesteps: number of environment steps
        :param callback: SB3 callback(s)
        :param log_interval: episodes between two dumps of the logger, which dumps what is left at the end, too (None: never)
        :param args: SB3's further arguments, as are ``kwargs``
        :return: self
        :raises UserError: if there is no environment to step, or ``train_freq`` counts episodes of several environments
        """
        total_timesteps = _TOTAL_TIMESTEPS.check(total_timesteps)
        if not self.goes_online:
            raise UserError(f"{type(self).__name__} can't continue online: {self.why_not_online}.")
        if self.env is None or not has_simulator(self.env):
            raise UserError("learn() steps an environment and this agent has none: call `model.set_env(env)` first.")
        self._check_train_freq()
        if not self._is_set_up:
            self._setup_model()
        if self.replay_buffer is None:
            if self.dataset_info:
                warnings.warn(
                    "The offline rows are not part of a checkpoint: learn() starts from an empty buffer. Call "
                    "`model.set_dataset(dataset)` first to keep them.",
                    stacklevel=2,
                )
            self.take_buffer(self.empty_buffer())
        self.run_fits(None, None)
        self._learns_offline = False
        self.stepper.forget()
        with self._closing_logs():
            super().learn(total_timesteps, callback, log_interval, *args, **kwargs)  # type: ignore[arg-type]
            self._dump_the_rest(log_interval)
        return self

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """
        Make gradient steps on batches of the buffer; :meth:`learn_offline` calls it.

        :param gradient_steps: number of updates
        :param batch_size: B
        """
        self.policy.set_training_mode(True)
        with self.products():
            for _ in range(gradient_steps):
                self._count(self.stepper(self.batches.draw(batch_size)))

    def step(self, batch: BatchT, noise: NoiseT) -> dict[str, Tensor]:
        """
        :meth:`update` with given random numbers, counted and logged.

        :param batch: B rows
        :param noise: all random numbers of the step
        :return: what the update returned
        """
        return self._count(self.update(batch, noise))

    def draw_and_update(self, batch: BatchT) -> dict[str, Tensor]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.draw_and_update`."""
        return self.update(batch, self.draw_noise(len(batch[0])))  # type: ignore[index]

    def _count(self, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        """An update that was made, and what it returned."""
        self._n_updates += 1
        self.monitor.means.add(metrics)
        if self.monitor.means.count >= METRICS_EVERY:
            self._flush_metrics()
        return metrics

    def phase(self) -> Hashable:
        """
        What the coming update decides by ``self._n_updates``: which of its parts run. :meth:`update` asks this and decides
        nothing else on the host, as each phase is recorded as a CUDA graph of its own.
        """
        return None

    def number_now(self, of: Callable[[], float]) -> float | Tensor:
        """
        A number that changes from update to update and is reckoned on the host: a scalar on the device where the update is
        recorded as a CUDA graph.

        :param of: gives it for the coming update
        """
        return self.stepper.number(of)

    def draw_noise(self, batch_size: int) -> NoiseT:
        """All random numbers of one update, from this algorithm's generator."""
        raise NotImplementedError

    def update(self, batch: BatchT, noise: NoiseT) -> dict[str, Tensor]:
        """
        One gradient step, in the paper's order. What it decides by the updates done before it, it asks :meth:`phase`.

        :param batch: B rows
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        raise NotImplementedError

    def rate_now(self, rate: Rate, every: int = 1) -> float | Tensor:
        """
        A learning rate at the coming update, with the cosine decay of ``lr_decay_steps``.

        :param rate: a number or a schedule of the remaining progress
        :param every: updates between two that the cosine counts
        """
        return self.number_now(lambda: self._decayed(rate, self._n_updates // every))

    def _decayed(self, rate: Rate, update: int) -> float:
        if self.lr_decay_steps is not None and update >= self.lr_decay_steps:
            self.monitor.warn_once(
                "lr_decay",
                f"After {self._n_updates} updates the learning rate has decayed to 0 (lr_decay_steps={self.lr_decay_steps}): "
                "nothing is learned any more. To continue, set `model.lr_decay_steps = None` or a larger number.",
            )
        return self._of_progress(rate) * cosine_decay(update, self.lr_decay_steps)

    def rate_without_decay(self, rate: Rate) -> float | Tensor:
        """
        A learning rate at the coming update.

        :param rate: a number or a schedule of the remaining progress
        """
        return self.number_now(lambda: self._of_progress(rate))

    def _of_progress(self, rate: Rate) -> float:
        return float(rate(self._current_progress_remaining) if callable(rate) else rate)

    def normal_noise(self, *shape: int) -> Tensor:
        """Standard normal numbers from this algorithm's generator."""
        return th.randn(shape, generator=self.generator, device=self.device, dtype=self.policy.obs_mean.dtype)

    # ------------------------------------------------------------------ logs

    @property
    def last_metrics(self) -> dict[str, float]:
        """The latest means by name: of updates (``critic_loss``), of fits (``vae/loss``), and the latest score."""
        return self.monitor.latest

    def _flush_metrics(self) -> None:
        """Read the running means and hand them to the logger; notice divergence."""
        largest = self.dataset_info.get("max_abs_reward")
        bound = largest / (1.0 - self.gamma) if largest and self.gamma < 1 else None
        metrics = self.monitor.flush(self.logger, self._n_updates, bound)
        if not metrics:
            return
        if abs(metrics.get("q_over_bound", 0.0)) > 1.0:
            self.monitor.warn_once(
                "q_over_bound",
                f"At update {self._n_updates} the mean Q is {metrics['q_mean']:.4g}, beyond the largest attainable discounted "
                f"return {bound:.4g} (max |r| / (1 − gamma)): the critics over-estimate. {self.overestimation_hint()}",
            )
        self.watch(metrics)

    def watch(self, metrics: dict[str, float]) -> None:
        """
        Look at the metrics: warn (``self.monitor.warn_once``), raise ``DivergedError``, or log more.

        :param metrics: means by name, just read
        """

    def overestimation_hint(self) -> str:
        """The arguments that help against over-estimation, as sentences."""
        return "A lower learning rate or more data may help."

    def _dump_the_rest(self, log_interval: int | None) -> None:
        """At the end of a training: what was gathered since the logger was dumped last."""
        self._flush_metrics()
        if log_interval and log_interval > 0 and self.logger.name_to_value:
            self.dump_logs()

    @contextmanager
    def _closing_logs(self) -> Iterator[None]:
        """Close the files of this run's own logger, however the run ends; whoever logs later opens one more of them."""
        try:
            yield
        finally:
            if not self._custom_logger:
                for target in self.logger.output_formats if hasattr(self, "_logger") else ():
                    if isinstance(target, TensorBoardOutputFormat):
                        target.writer.close()

    def dump_logs(self) -> None:
        """Write the logger's data (SB3's keys; ``time/fps`` counts gradient steps in :meth:`learn_offline`)."""
        self._flush_metrics()
        if not self._learns_offline:
            super().dump_logs()
            return
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)


def _refuse_unknown(verb: str, unknown: Mapping[str, Any]) -> None:
    """:raises UnknownArgumentError: naming an argument that the verb does not take"""
    for name in unknown:
        known = inspect.signature(getattr(OfflineAlgorithm, verb)).parameters.keys() - {"self", "unknown"}
        why = "; it counts updates: gradient_steps=..." if name == "total_timesteps" else nearest(name, sorted(known))
        raise UnknownArgumentError(f"{verb} has no argument {name!r}{why}")


AnyAlgorithm = OfflineAlgorithm[Any, Any]
_GRADIENT_STEPS, _LOG_INTERVAL = Argument("gradient_steps", Count, 0), Argument("log_interval", int | None, None)
_TOTAL_TIMESTEPS = Argument("total_timesteps", Count, 0)
