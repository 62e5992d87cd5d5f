"""Callbacks of the training command."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_genoffline.common.callbacks import OfflineEvalCallback
from sb3_genoffline.common.fitting import Fit, FitListener

from .stopping import Stopped, StopSignals


class _Unfinished(Exception):
    """An evaluation was broken off."""


class ResumableEvalCallback(OfflineEvalCallback):
    """
    An evaluation that a resumed run goes on with: at the same updates, behind the same rows of ``evaluations.npz``, and with
    the best score so far. A signal breaks it off; it is made when the run goes on. Counts its time.

    :param args: see :class:`~sb3_genoffline.common.callbacks.OfflineEvalCallback`
    :param stop: the signals
    :param kwargs: see there
    """

    def __init__(self, *args: Any, stop: StopSignals, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stop = stop
        self.seconds = 0.0

    def resume(self, evaluations: Path, done: int) -> None:
        """
        :param evaluations: ``evaluations.npz`` of the run; need not exist
        :param done: updates done; later rows are dropped, since they will be made again
        """
        self.n_calls = done
        if done == 0 or not evaluations.is_file():
            return
        with np.load(evaluations) as file:
            kept = file["timesteps"] <= done
            self.evaluations_timesteps = file["timesteps"][kept].tolist()
            self.evaluations_results = file["results"][kept].tolist()
            self.evaluations_length = file["ep_lengths"][kept].tolist()
            if "successes" in file:
                self.evaluations_successes = file["successes"][kept].tolist()
            self.n_eval_episodes = file["results"].shape[1]  # rows of another length could not be stored beside these
        if self.evaluations_results:
            self.best_mean_reward = float(np.mean(self.evaluations_results, axis=1).max())

    def _on_training_start(self) -> None:
        if self.n_calls and self.n_calls not in self.evaluations_timesteps and not self._on_step():
            assert self.stop.number is not None
            raise Stopped(self.stop.number)

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq:
            return True
        started = time.perf_counter()
        try:
            return super()._on_step()
        except _Unfinished:
            return False
        finally:
            self.seconds += time.perf_counter() - started

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        if self.stop.number is not None:
            raise _Unfinished
        super()._log_success_callback(locals_, globals_)


class StopWhenAsked(BaseCallback, FitListener):
    """
    Ends training after the update, or the step of a fit, in which a signal came, so that what is saved can be resumed exactly.

    :param stop: the signals
    """

    def __init__(self, stop: StopSignals) -> None:
        super().__init__()
        self.stop = stop

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        """End the fit where it is."""
        return self.stop.number is None

    def _on_step(self) -> bool:
        return self.stop.number is None


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
