"""What is trained before the policy: generative models that an algorithm fits first, leaves alone, and may share by file."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from sb3_genoffline.common.metrics import METRICS_EVERY, RunningMeans, TrainingMonitor
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

    :param n_steps: steps in all
    :param modules: everything whose tensors change, or were made by an earlier fit, and that the agent does not save by
        itself, by name
    :param optimizers: likewise
    """

    name: ClassVar[str]
    """Prefix of the log keys, and what the progress bar shows."""

    def __init__(
        self,
        n_steps: int,
        modules: Mapping[str, nn.Module] | None = None,
        optimizers: Mapping[str, th.optim.Optimizer] | None = None,
    ) -> None:
        self.n_steps = n_steps
        self.modules, self.optimizers = dict(modules or {}), dict(optimizers or {})
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
        raise NotImplementedError

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
            optimizer.load_state_dict(state["optimizers"][name])


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


def fit_listeners(callback: BaseCallback | None) -> Iterator[FitListener]:
    """The callbacks that follow the fits, inside lists and parents too."""
    if isinstance(callback, FitListener):
        yield callback
    if isinstance(callback, CallbackList):
        for child in callback.callbacks:
            yield from fit_listeners(child)
    elif isinstance(callback, EventCallback):
        yield from fit_listeners(callback.callback)


class SharedModel:
    """
    A fitted model as agents share it: its weights, what shapes it, and what it was fitted on.

    :param kind: class of the model
    :param settings: what shapes it, plain data
    :param weights: its state
    :param facts: what it was fitted on: ``id`` and ``fingerprint`` of the dataset, and whatever else must agree; empty where
        that is not known
    """

    def __init__(self, kind: str, settings: dict[str, Any], weights: Mapping[str, Tensor], facts: dict[str, Any]) -> None:
        self.kind, self.settings, self.weights, self.facts = kind, settings, weights, facts

    @classmethod
    def of(cls, model: Any, facts: dict[str, Any]) -> "SharedModel":
        """:param model: with ``kind``, ``settings`` and a state"""
        return cls(model.kind, model.settings, model.state_dict(), facts)

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

    def hand_to(self, model: Any, name: str, how: str) -> None:
        """
        Put the weights into an agent's own model; nothing is half taken over.

        :param model: of the agent
        :param name: what the agent calls it, for errors
        :param how: which arguments give an agent a model of the same shape, for errors
        :raises UserError: if the shapes differ
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
        model.load_state_dict(trial.state_dict())


class Fits:
    """
    The fits that are still to be run, in order, and what a saved agent said about the one that was interrupted.

    :ivar left: None before they are made
    """

    def __init__(self) -> None:
        self.left: list[Fit] | None = None
        self._resumed: dict[str, Any] | None = None
        self._shared: SharedModel | None = None

    @property
    def current(self) -> tuple[str, int] | None:
        """Name and steps done of the fit at hand; None if none is."""
        if self.left:
            return self.left[0].name, self.left[0].step
        return None if self._resumed is None else (self._resumed["name"], self._resumed["step"])

    def forget(self) -> None:
        """Start anew: other data, or a model that was handed over."""
        self.left, self._resumed = None, None

    def take(self, shared: SharedModel) -> None:
        """A fitted model was handed over: nothing is left to fit, and the data it meets are compared with its own."""
        self.left, self._resumed, self._shared = None, None, shared

    def compare(self, name: str, facts: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
        """
        Compare what a model that was handed over was fitted on with the data it is used with; once.

        :param name: of the model
        :param facts: what must agree, as it is now
        :param dataset: id and fingerprint of the data
        :raises UserError: if a fact differs
        """
        shared = self._shared
        if shared is None or not shared.facts or not dataset:
            return
        for key, ours in facts.items():
            theirs = shared.facts.get(key)
            if theirs is None or not _close(theirs, ours):
                raise UserError(
                    f"The given {name} was fitted with {key}={short(theirs)} and is used with {short(ours)}: what it says is "
                    f"in other units. Use the same data and settings, or leave {name} out."
                )
        self._shared = None
        if shared.facts.get("fingerprint") != dataset["fingerprint"]:
            warnings.warn(
                f"The given {name} was fitted on {shared.facts.get('id') or 'another dataset'} and is used with "
                f"{dataset['id'] or 'a different one'}.",
                stacklevel=4,
            )

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
        while self.left:
            proceed = _run(self.left[0], list(fit_listeners(callback)), log_interval, logger, monitor)
            if self.left[0].done:
                self.left.pop(0)
            if not proceed:
                return False
        return True


def _close(first: Any, second: Any) -> bool:
    """Whether two numbers or tensors agree but for rounding."""
    a, b = (th.as_tensor(value, dtype=th.float64).cpu() for value in (first, second))
    return a.shape == b.shape and th.allclose(a, b, rtol=1e-4, atol=1e-6)


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
                for key, value in latest.items():
                    logger.record(key, value)
                logger.record(f"{fit.name}/n_steps", fit.step, exclude="tensorboard")
                logger.dump(fit.step)
            for listener in listeners:
                proceed = listener.on_fit_step(fit, latest) and proceed
    finally:
        for listener in listeners:
            listener.on_fit_end(fit)
    if fit.done:
        fit.finish()
    return proceed


def _check_finite(metrics: dict[str, float], fit: Fit) -> None:
    for key, value in metrics.items():
        if not np.isfinite(value):
            raise DivergedError(
                f"{key} became {value} before step {fit.step} of {fit.n_steps}: fitting diverged. Lower its learning rate."
            )
