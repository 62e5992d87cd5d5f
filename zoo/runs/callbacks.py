"""Callbacks of the training command."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_genoffline.common.callbacks import OfflineEvalCallback
from sb3_genoffline.common.fitting import Fit, FitListener

from .reading import read_evaluations


class ResumableEvalCallback(OfflineEvalCallback):
    """
    An evaluation that a resumed run goes on with: at the same updates, behind the same rows of ``evaluations.npz``, and with
    the best score so far. Counts its time.

    :param args: see :class:`~sb3_genoffline.common.callbacks.OfflineEvalCallback`
    :param kwargs: see there
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seconds = 0.0

    def resume(self, evaluations: Path, done: int) -> None:
        """
        :param evaluations: ``evaluations.npz`` of the run; need not exist
        :param done: updates done; later rows are dropped, since they will be made again
        """
        self.n_calls = done
        if done == 0 or not evaluations.is_file():
            return
        found = read_evaluations(evaluations)
        kept = found["timesteps"] <= done
        self.evaluations_timesteps = found["timesteps"][kept].tolist()
        self.evaluations_results = found["results"][kept].tolist()
        self.evaluations_length = found["ep_lengths"][kept].tolist()
        if "successes" in found:
            self.evaluations_successes = found["successes"][kept].tolist()
        self.n_eval_episodes = found["results"].shape[1]  # rows of another length could not be stored beside these
        if self.evaluations_results:
            self.best_mean_reward = float(np.mean(self.evaluations_results, axis=1).max())

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq:
            return True
        started = time.perf_counter()
        try:
            return super()._on_step()
        finally:
            self.seconds += time.perf_counter() - started


class StopOnInterrupt(BaseCallback, FitListener):
    """The first Ctrl-C ends training after the update it falls in, so that what is saved can be resumed exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = False
        self._before: Any = None

    def _on_training_start(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, number: int, frame: Any) -> None:
        self.stopped = True
        signal.signal(signal.SIGINT, self._before)  # the second one ends the program

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        """End the fit where it is."""
        return not self.stopped

    def _on_step(self) -> bool:
        return not self.stopped

    def _on_training_end(self) -> None:
        self.restore()

    def restore(self) -> None:
        """Give Ctrl-C its usual meaning back. (A training that fails does not get to ``_on_training_end``.)"""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


class FitClock(BaseCallback, FitListener):
    """Counts the seconds from the start of training to the end of its last fit: all that comes before the updates."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._started = 0.0

    def _on_training_start(self) -> None:
        self._started = time.perf_counter()

    def on_fit_end(self, fit: Fit) -> None:
        """Read the clock."""
        self.seconds = time.perf_counter() - self._started

    def _on_step(self) -> bool:
        return True


class SaveLast(BaseCallback, FitListener):
    """
    Renew the run's last checkpoint now and then, and at the end of each fit, so that a killed training can go on from there.

    :param path: of the checkpoint, written atomically
    :param every: updates, or steps of a fit, between two saves
    """

    def __init__(self, path: Path, every: int) -> None:
        super().__init__()
        self.path, self.every = path, every

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        """Save a fit that is under way, or done."""
        if fit.step % self.every == 0 or fit.done:
            self.model.save(self.path)
        return True

    def _on_step(self) -> bool:
        if self.model.num_timesteps % self.every == 0:
            self.model.save(self.path)
        return True
