"""What is trained before the policy: the generative models that an algorithm fits first and then leaves alone."""

from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import Tensor, nn

from sb3_genoffline.common.metrics import METRICS_EVERY, RunningMeans
from sb3_genoffline.files.archive import (
    CheckpointError,
    PathOrFile,
    read_archive,
    tree_from_members,
    tree_to_members,
    write_archive,
)

SelfPretraining = TypeVar("SelfPretraining", bound="PretrainingMixin")


class Phase:
    """
    One stage of training before the policy's: modules, an optimizer, and a number of steps. Its state is saved with the agent
    while it runs, so that an interrupted phase goes on exactly.

    :param n_steps: steps in all
    :param modules: everything whose tensors change or were made by an earlier phase, by name
    :param optimizer: of the trained parameters
    """

    name: ClassVar[str]
    """Prefix of the log keys, and what the progress bar shows."""

    def __init__(self, n_steps: int, modules: dict[str, nn.Module], optimizer: th.optim.Optimizer) -> None:
        self.n_steps = n_steps
        self.modules = modules
        self.optimizer = optimizer
        self.step = 0

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do; a phase that stops early says so here."""
        return self.step >= self.n_steps

    def begin(self) -> None:
        """Called before the first step, when the earlier phases are done."""

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
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.step = state["step"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state_dict(state["optimizer"])


class PhaseListener:
    """What a callback inherits, beside SB3's ``BaseCallback``, to follow the phases (``_on_step`` is the policy's)."""

    def on_phase_start(self, phase: Phase) -> None:
        """Before a phase's first step in this run."""

    def on_phase_step(self, phase: Phase, metrics: dict[str, float]) -> bool:
        """
        After each step.

        :param phase: how far it is
        :param metrics: the latest means that were read
        :return: False ends the training here
        """
        return True

    def on_phase_end(self, phase: Phase) -> None:
        """When this run leaves the phase, done or not."""


def phase_listeners(callback: BaseCallback | None) -> Iterator[PhaseListener]:
    """The callbacks that follow the phases, inside lists and parents too."""
    if isinstance(callback, PhaseListener):
        yield callback
    if isinstance(callback, CallbackList):
        for child in callback.callbacks:
            yield from phase_listeners(child)
    elif isinstance(callback, EventCallback):
        yield from phase_listeners(callback.callback)


def run_phase(algorithm: Any, phase: Phase, callback: BaseCallback | None, log_interval: int | None) -> bool:
    """
    Run what is left of a phase.

    :param algorithm: whose logger is used
    :param phase: trained in place
    :param callback: the training's callbacks
    :param log_interval: steps between two dumps of the logger (None or not positive: never)
    :return: whether to go on (False: a callback ended the training; the phase may be done all the same)
    :raises FloatingPointError: when a metric is no finite number any more
    """
    means, listeners, latest = RunningMeans(algorithm.device), list(phase_listeners(callback)), {}
    log_interval = log_interval if log_interval and log_interval > 0 else None
    if phase.step == 0:
        phase.begin()
    for listener in listeners:
        listener.on_phase_start(phase)
    proceed = True
    try:
        while proceed and not phase.done:
            means.add(phase.update())
            phase.step += 1
            due = log_interval is not None and (phase.step % log_interval == 0 or phase.done)
            if due or phase.done or means.count >= METRICS_EVERY:
                latest = {f"{phase.name}/{key}": value for key, value in means.read().items()}
                _check_finite(latest, phase)
                algorithm.last_metrics |= latest
            if due:
                for key, value in latest.items():
                    algorithm.logger.record(key, value)
                algorithm.logger.record(f"{phase.name}/n_steps", phase.step, exclude="tensorboard")
                algorithm.logger.dump(phase.step)
            for listener in listeners:
                proceed = listener.on_phase_step(phase, latest) and proceed
    finally:
        for listener in listeners:
            listener.on_phase_end(phase)
    if phase.done:
        phase.finish()
    return proceed


def _check_finite(metrics: dict[str, float], phase: Phase) -> None:
    for key, value in metrics.items():
        if not np.isfinite(value):
            raise FloatingPointError(
                f"{key} became {value} before step {phase.step} of {phase.n_steps}: fitting diverged. Lower its learning rate."
            )


def save_fitted(path: PathOrFile, kind: str, module: nn.Module, description: dict[str, Any]) -> None:
    """
    Write a fitted generative model to a file of its own, to be shared by agents.

    :param path: file name (``.zip`` is added) or open binary file
    :param kind: name of the kind of model
    :param module: its weights and buffers are written
    :param description: plain data and tensors: what it was made with and fitted on
    """
    write_archive(path, tree_to_members({**description, "kind": kind, "weights": dict(module.state_dict())}, "fitted"))


def load_fitted(path: PathOrFile, kind: str) -> dict[str, Any]:
    """
    Read what :func:`save_fitted` wrote.

    :param path: file name or open binary file
    :param kind: the kind that is wanted
    :return: the description, and ``weights`` by name
    :raises CheckpointError: if the file holds something else
    """
    members = read_archive(path)
    tree = tree_from_members(members, "fitted") if "fitted.json" in members else {}
    if tree.get("kind") != kind:
        raise CheckpointError(f"{path} holds {tree.get('kind', 'an agent or something else')}, not a fitted {kind}.")
    return tree


class PretrainingMixin:
    """Running the phases of an :class:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm`."""

    _phases: list[Phase]
    _pending_phase_state: dict[str, Any] | None

    def pretrain(
        self: SelfPretraining,
        dataset: Any,
        callback: MaybeCallback = None,
        log_interval: int | None = 1000,
        tb_log_name: str | None = None,
        progress_bar: bool = False,
    ) -> SelfPretraining:
        """
        Fit the generative models only; the policy is left alone. ``learn_offline`` does this by itself.

        :param dataset: whatever :func:`~sb3_genoffline.data.load_dataset` takes
        :param callback: those that are a :class:`PhaseListener` are told
        :param log_interval: steps between two dumps of the logger (None or not positive: never)
        :param tb_log_name: name of the run for tensorboard (None: the class name)
        :param progress_bar: show one for each phase
        :return: self
        """
        algorithm: Any = self
        algorithm.set_dataset(dataset)
        name = tb_log_name or type(self).__name__
        _, callbacks = algorithm._setup_learn_offline(0, callback, False, name, progress_bar)
        callbacks.on_training_start(locals(), globals())
        self._run_phases(callbacks, log_interval)
        callbacks.on_training_end()
        return self

    def _make_phases(self) -> list[Phase]:
        """The phases that are still to be run, on the buffer's offline rows, in order."""
        return []

    def _run_phases(self, callback: BaseCallback | None, log_interval: int | None) -> bool:
        """Run the phases, or what is left of them; False if a callback ended the training."""
        if not self._phases:
            self._phases = self._make_phases()
            names = [phase.name for phase in self._phases]
            if self._pending_phase_state is not None and self._pending_phase_state["name"] in names:
                self._phases = self._phases[names.index(self._pending_phase_state["name"]) :]
                self._phases[0].load_state_dict(self._pending_phase_state)
            self._pending_phase_state = None
        while self._phases:
            proceed = run_phase(self, self._phases[0], callback, log_interval)
            if self._phases[0].done:
                self._phases.pop(0)
            if not proceed:
                return False
        return True
