"""What is trained before the policy: generative models that an algorithm fits first, leaves alone, and may share by file."""

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from sb3_genoffline.common.frozen import frozen
from sb3_genoffline.common.metrics import METRICS_EVERY, RunningMeans, TrainingMonitor
from sb3_genoffline.common.optimizers import load_optimizer
from sb3_genoffline.common.stepping import Stepper
from sb3_genoffline.errors import DivergedError, UserError
from sb3_genoffline.files.archive import (
    CheckpointError,
    PathOrFile,
    read_archive,
    tree_from_members,
    tree_to_members,
    write_archive,
)
from sb3_genoffline.files.untrusted import short


class Fit:
    """
    One model to be fitted: modules, optimizers, and a number of steps. Its state is saved with the agent while it runs, so
    that an interrupted fit goes on exactly.

    What it draws with is the agent's generator or a bound method of the agent: a function that remembers one would go on
    drawing from the original in a copy.

    A subclass says in :meth:`draw` what a step learns from and in :meth:`step_on` what it does, which on CUDA is recorded as a
    graph; :meth:`look` is for what the host decides. One that can't be cut so overrides :meth:`update`.

    :param n_steps: steps in all
    :param modules: everything whose tensors change, or were made by an earlier fit, and that the agent does not save by
        itself, by name
    :param optimizers: likewise
    :param generator: of the random numbers that :meth:`step_on` draws; None if it draws none
    """

    name: ClassVar[str]
    """Prefix of the log keys, and what the progress bar shows."""
    graph: bool = True
    """Whether steps run as CUDA graphs where there is CUDA."""

    def __init__(
        self,
        n_steps: int,
        modules: Mapping[str, nn.Module] | None = None,
        optimizers: Mapping[str, th.optim.Optimizer] | None = None,
        generator: th.Generator | None = None,
    ) -> None:
        self.n_steps = n_steps
        self.modules, self.optimizers = dict(modules or {}), dict(optimizers or {})
        self.generator = generator
        self.stepper = Stepper(self, self.step_on)
        self.step = 0

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do; a fit that stops early says so here."""
        return self.step >= self.n_steps

    def begin(self) -> None:
        """Called before the first step, when the earlier fits are done."""

    def update(self) -> dict[str, Tensor]:
        """
        One step.

        :return: scalars to log, on the device
        """
        return self.stepper(self.draw()) | self.look()

    def draw(self) -> tuple[Tensor, ...]:
        """What the coming step learns from, on the device."""
        raise NotImplementedError

    def step_on(self, batch: Any) -> dict[str, Tensor]:
        """
        The step on what was drawn. What it decides by ``self.step``, it asks :meth:`phase`; numbers that change from step to
        step, :meth:`number_now`.

        :param batch: of :meth:`draw`
        :return: scalars to log, on the device
        """
        raise NotImplementedError

    def look(self) -> dict[str, Tensor]:
        """
        What the host does after a step, before it is counted.

        :return: further scalars to log, on the device
        """
        return {}

    def phase(self) -> Hashable:
        """Which parts of the coming step run: each phase is recorded as a CUDA graph of its own."""
        return None

    def number_now(self, of: Callable[[], float]) -> float | Tensor:
        """See :meth:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm.number_now`."""
        return self.stepper.number(of)

    def finish(self) -> None:
        """Called after the last step."""

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs."""
        return {
            "name": self.name,
            "step": self.step,
            "modules": {name: dict(module.state_dict()) for name, module in self.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.step = state["step"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in self.optimizers.items():
            load_optimizer(optimizer, state["optimizers"][name])


class FitListener:
    """What a callback inherits, beside SB3's ``BaseCallback``, to follow the fits (``_on_step`` is the policy's)."""

    def on_fit_start(self, fit: Fit) -> None:
        """Before a fit's first step in this run."""

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        """
        After each step.

        :param fit: how far it is
        :param metrics: the latest means that were read
        :return: False ends the training here
        """
        return True

    def on_fit_end(self, fit: Fit) -> None:
        """When this run leaves the fit, done or not."""


def each_callback(callback: BaseCallback | None) -> Iterator[BaseCallback]:
    """A callback, and those inside it where it is a list or a parent."""
    if callback is not None:
        yield callback
    if isinstance(callback, CallbackList):
        for child in callback.callbacks:
            yield from each_callback(child)
    elif isinstance(callback, EventCallback):
        yield from each_callback(callback.callback)


def fit_listeners(callback: BaseCallback | None) -> Iterator[FitListener]:
    """The callbacks that follow the fits, inside lists and parents too."""
    return (each for each in each_callback(callback) if isinstance(each, FitListener))


class SharedModel:
    """
    A fitted model as agents share it: its weights, what shapes it, and what it was fitted on.

    :param kind: class of the model
    :param settings: what shapes it, plain data
    :param weights: its state
    :param facts: what it was fitted with, by name, as
        :class:`~sb3_genoffline.common.fitting_learner.FittingLearner` gathers it; empty where that is not known
    """

    def __init__(self, kind: str, settings: dict[str, Any], weights: Mapping[str, Tensor], facts: dict[str, Any]) -> None:
        self.kind, self.settings, self.weights, self.facts = kind, settings, weights, facts

    @classmethod
    def of(cls, model: Any) -> "SharedModel":
        """:param model: with ``kind``, ``settings`` and a state, and ``fitted_with`` where that is known"""
        return cls(model.kind, model.settings, model.state_dict(), dict(getattr(model, "fitted_with", {})))

    def write(self, path: PathOrFile) -> None:
        """:param path: file name (``.zip`` is added) or open binary file"""
        write_archive(path, tree_to_members(vars(self), "fitted"))

    @classmethod
    def read(cls, path: PathOrFile, kind: str) -> "SharedModel":
        """
        Read what :meth:`write` wrote.

        :param path: file name or open binary file
        :param kind: the class that is wanted
        :raises CheckpointError: if the file holds something else
        """
        members = read_archive(path)
        tree = tree_from_members(members, "fitted") if "fitted.json" in members else {}
        if not isinstance(tree, dict) or tree.get("kind") != kind:
            found = tree.get("kind", "an agent or something else") if isinstance(tree, dict) else "something else"
            raise CheckpointError(f"{path} holds {found}, not a fitted {kind}.")
        wrong = next((n for n in ("settings", "weights", "facts") if not isinstance(tree.get(n), dict)), None)
        if wrong is not None:
            raise CheckpointError(f"{path} has no {wrong}: it is damaged or older than this version; fit the model again.")
        return cls(kind, tree["settings"], tree["weights"], tree["facts"])

    def hand_to(self, model: Any, name: str, how: str, facts: Mapping[str, Any]) -> None:
        """
        Put the weights into an agent's own model; nothing is half taken over.

        :param model: of the agent
        :param name: what the agent calls it, for errors
        :param how: which arguments give an agent a model of the same shape, for errors
        :param facts: of the agent, that must agree with those of the model
        :raises UserError: if the shapes differ, or a fact
        """
        for key, value in model.settings.items():
            if self.settings.get(key) != value:
                raise UserError(
                    f"The given {name} has {key}={self.settings.get(key)!r} and the policy's {value!r}: make the agent with "
                    f"{how} of the given one."
                )
        trial = copy.deepcopy(model)
        try:
            trial.load_state_dict(self.weights)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise UserError(f"The given {name} does not fit this agent: {error}") from error
        check_facts(name, self.facts, facts)
        model.load_state_dict(trial.state_dict())
        model.fitted_with = frozen(self.facts)


def check_facts(name: str, fitted_with: Mapping[str, Any], facts: Mapping[str, Any], tolerance: float = 1e-6) -> None:
    """
    Compare what a model was fitted with and what it is used with. What either side does not know is not compared.

    :param name: of the model, for the error
    :param fitted_with: by name
    :param facts: by name, as they are now
    :param tolerance: relative, of numbers
    :raises UserError: naming the first that differs
    """
    for key, ours in facts.items():
        if key in fitted_with and not _agree(fitted_with[key], ours, tolerance):
            raise UserError(
                f"The {name} was fitted with {key}={short(fitted_with[key])} and is used with {short(ours)}: what it says is "
                "in other units. Use the same data and settings, or a new agent that fits its own."
            )


class Fits:
    """
    The fits that are still to be run, in order, and what a saved agent said about the one that was interrupted.

    :ivar left: None before they are made
    :ivar running: whether one is running now
    :ivar met: fingerprint of the data that the fitted model was fitted on or has met last; None if there are none yet
    """

    def __init__(self) -> None:
        self.left: list[Fit] | None = None
        self.running = False
        self.met: str | None = None
        self._resumed: dict[str, Any] | None = None

    @property
    def current(self) -> tuple[str, int] | None:
        """Name and steps done of the fit at hand; None if none is."""
        if self.left:
            return self.left[0].name, self.left[0].step
        return None if self._resumed is None else (self._resumed["name"], self._resumed["step"])

    def check_at_rest(self) -> None:
        """:raises UserError: while a fit is running: what it learns from can't be changed by its own callbacks"""
        if self.running and self.left:
            raise UserError(
                f"The fit of {self.left[0].name} is running: its callbacks can't change data, weights or the fitted model. "
                "End it (a callback's _on_step returns False), change them, and call learn_offline again."
            )

    def forget(self) -> None:
        """Start over: the data changed, or a fitted model was handed over."""
        self.left, self._resumed = None, None

    def state_dict(self) -> dict[str, Any] | None:
        """Of the fit at hand."""
        return self.left[0].state_dict() if self.left else self._resumed

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Inverse of :meth:`state_dict`; the fits themselves are made when the data are there. The state is not trusted."""
        if state is not None and not (isinstance(state.get("name"), str) and type(state.get("step")) is int):
            raise UserError(f"its fit is {short(state)}, which has no name and step")
        self.left, self._resumed = None, state

    def begin(self, fits: list[Fit]) -> None:
        """
        Take the fits to be run; the one that a saved agent was in goes on where it stood, and those before it are left out.

        :param fits: all of them, new
        """
        names = [fit.name for fit in fits]
        if self._resumed is not None and self._resumed["name"] in names:
            fits = fits[names.index(self._resumed["name"]) :]
            fits[0].load_state_dict(self._resumed)
        self.left, self._resumed = fits, None

    def run(self, callback: BaseCallback | None, log_interval: int | None, logger: Logger, monitor: TrainingMonitor) -> bool:
        """
        Run what is left.

        :param callback: the training's callbacks
        :param log_interval: steps between two dumps of the logger (None or not positive: never)
        :param logger: of the training
        :param monitor: of the training
        :return: whether to go on (False: a callback ended the training)
        :raises DivergedError: when a metric is not finite any more
        """
        self.running = True
        try:
            while self.left:
                proceed = _run(self.left[0], list(fit_listeners(callback)), log_interval, logger, monitor)
                if self.left[0].done:
                    self.left.pop(0)
                if not proceed:
                    return False
            return True
        finally:
            self.running = False


def _agree(first: Any, second: Any, tolerance: float) -> bool:
    """Whether two facts are the same, numbers but for rounding. The first is not trusted."""
    try:
        a, b = (th.as_tensor(value, dtype=th.float64).cpu() for value in (first, second))
    except (TypeError, ValueError, RuntimeError):  # words, None
        return bool(first == second)
    return a.shape == b.shape and th.allclose(a, b, rtol=tolerance, atol=1e-6)


def _run(fit: Fit, listeners: list[FitListener], log_interval: int | None, logger: Logger, monitor: TrainingMonitor) -> bool:
    """Run what is left of one fit; False if a callback ended the training (the fit may be done all the same)."""
    means, latest = RunningMeans(monitor.means.device), dict[str, float]()
    log_interval = log_interval if log_interval and log_interval > 0 else None
    if fit.step == 0:
        fit.begin()
    for listener in listeners:
        listener.on_fit_start(fit)
    proceed = True
    try:
        while proceed and not fit.done:
            means.add(fit.update())
            fit.step += 1
            due = log_interval is not None and (fit.step % log_interval == 0 or fit.done)
            if due or fit.done or means.count >= METRICS_EVERY:
                latest = {f"{fit.name}/{key}": value for key, value in means.read().items()}
                _check_finite(latest, fit)
                monitor.latest |= latest
            if due:
                _dump(latest, fit, logger)
            for listener in listeners:
                proceed = listener.on_fit_step(fit, latest) and proceed
        if log_interval is not None and means.count > 0:  # a listener ended it between two dumps
            latest = {f"{fit.name}/{key}": value for key, value in means.read().items()}
            monitor.latest |= latest
            _dump(latest, fit, logger)
    finally:
        for listener in listeners:
            listener.on_fit_end(fit)
    if fit.done:
        fit.finish()
    return proceed


def _dump(metrics: dict[str, float], fit: Fit, logger: Logger) -> None:
    for key, value in metrics.items():
        logger.record(key, value)
    logger.record(f"{fit.name}/n_steps", fit.step, exclude="tensorboard")
    logger.dump(fit.step)


def _check_finite(metrics: dict[str, float], fit: Fit) -> None:
    for key, value in metrics.items():
        if not np.isfinite(value):
            raise DivergedError(
                f"{key} became {value} before step {fit.step} of {fit.n_steps}: fitting diverged. Lower its learning "
                "rate, or scale large rewards or observations down (reward_transform, normalize_observations)."
            )
