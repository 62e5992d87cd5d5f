"""Callbacks that know about datasets: evaluation with the normalised score, and a progress bar with losses and score."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_genoffline.common.evaluation import tell_reward
from sb3_genoffline.common.fitting import Fit, FitListener
from sb3_genoffline.data.scores import ScoreScale
from sb3_genoffline.files.writing import replace_file


class OfflineProgressBarCallback(BaseCallback, FitListener):
    """
    One line for each fit and one for the policy's training: steps, steps/s, the latest losses and the latest score. Where
    the output is no terminal, a line a minute instead of a flood.

    :param every: gradient steps between two refreshes of the numbers
    """

    def __init__(self, every: int = 200) -> None:
        super().__init__()
        self.every = every
        self.bar: Any = None

    def _open(self, total: int, done: int = 0, description: str | None = None) -> None:
        try:
            from tqdm import tqdm
        except ImportError as error:
            raise ImportError("The progress bar needs tqdm: pip install tqdm, or leave progress_bar=False.") from error
        terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=total,
            initial=done,
            desc=description,
            unit="update",
            mininterval=0.2 if terminal else 60.0,
            maxinterval=1.0 if terminal else 60.0,
            dynamic_ncols=terminal,
        )

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def on_fit_start(self, fit: Fit) -> None:
        """Open the fit's bar."""
        self._open(fit.n_steps, fit.step, fit.name)

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        """Move it."""
        self.bar.update(1)
        if fit.step % self.every == 0:
            self.bar.set_postfix({key.rpartition("/")[2]: f"{value:.3g}" for key, value in metrics.items()}, refresh=False)
        return True

    def on_fit_end(self, fit: Fit) -> None:
        """Close it."""
        self._close()

    def _on_step(self) -> bool:
        if self.bar is None:
            self._open(self.locals["total_timesteps"] - self.model._num_timesteps_at_start)
        self.bar.update(1)
        if self.n_calls % self.every == 0:
            latest = self.model.last_metrics  # type: ignore[attr-defined]
            shown = {key: f"{value:.3g}" for key, value in latest.items() if key.endswith(("_loss", "score"))}
            self.bar.set_postfix(shown, refresh=False)
        return True

    def _on_training_end(self) -> None:
        self._close()


class OfflineEvalCallback(EvalCallback):
    """
    SB3's ``EvalCallback`` (same files: ``evaluations.npz``, ``best_model.zip``) that starts every evaluation from the same
    environment seeds, tells the policy its rewards if it acts by them, and adds ``eval/normalized_score``, on D4RL's scale
    where 0 is random and 100 expert.

    :param eval_env: environment(s) to evaluate on; a ``VecEnv`` of n steps n episodes at once with batched sampling
    :param score_range: reference (min, max) returns; None: no normalised score
    :param score_scale: the same for any scale, as ``dataset.score_scale``: by success, the score is the success rate
    :param eval_seed: seed of the evaluation episodes
    :param kwargs: SB3's arguments (``n_eval_episodes``, ``eval_freq`` in gradient steps, ``log_path`` ...)
    """

    def __init__(
        self,
        eval_env: gym.Env | VecEnv,
        *,
        score_range: tuple[float, float] | None = None,
        score_scale: ScoreScale | None = None,
        eval_seed: int = 1_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(eval_env, **kwargs)
        self.score_scale = score_scale if score_range is None else ScoreScale("return", *score_range)
        self.eval_seed = eval_seed
        self.last_normalized_score: float | None = None

    def _on_step(self) -> bool:
        due = self.eval_freq > 0 and self.n_calls % self.eval_freq == 0
        if not due:
            return True
        self.eval_env.seed(self.eval_seed)
        with self._whole_file():
            proceed = super()._on_step()
        self.last_normalized_score = self.normalized_score()
        if self.last_normalized_score is not None:
            self.logger.record("eval/normalized_score", self.last_normalized_score)
            self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
            self.logger.dump(self.num_timesteps)  # SB3 has dumped already: later, the score would count for a later step
            self.model.last_metrics["normalized_score"] = self.last_normalized_score  # type: ignore[attr-defined]
        return proceed

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        tell_reward(self.model, locals_)
        super()._log_success_callback(locals_, globals_)

    @contextmanager
    def _whole_file(self) -> Iterator[None]:
        """SB3 writes ``evaluations.npz`` in place; here there is the old one or the new one, whatever happens."""
        path, file = self.log_path, io.BytesIO()
        if path is not None:
            self.log_path = file  # type: ignore[assignment]
        try:
            yield
        finally:
            self.log_path = path
            if path is not None and file.tell():
                replace_file(Path(f"{path}.npz"), file.getvalue())

    def normalized_score(self) -> float | None:
        """Score of the evaluation just made, if it can be told."""
        scale = self.score_scale
        if scale is None or (scale.kind == "success" and not self._is_success_buffer):
            return None
        successes = np.mean(self._is_success_buffer) if self._is_success_buffer else None
        return float(scale.of(self.last_mean_reward, successes))
