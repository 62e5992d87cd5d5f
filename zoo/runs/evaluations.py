"""The evaluations that a run was accompanied by, and how well it did in the end."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sb3_genoffline.errors import NotFoundError

from .folders import Run
from .reading import read_evaluations
from .scoring import recorded_scale

LATE = 5
"""Evaluations at the end of a training that its final score is the mean of: one checkpoint may be a lucky one."""
FINAL_ERROR = 2.0
"""Standard error, in points of the normalised score, that the episodes of a final score may leave."""
FEWEST_EPISODES, MOST_EPISODES = 10, 100


def read_run(run: Run) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """
    :return: the run's config, timesteps (E,), and returns (E, episodes); in a maze 1 for each success in their place
    :raises NotFoundError: if it was never evaluated
    """
    if not run.evaluations_path.is_file():
        raise NotFoundError(f"{run.folder} has no evaluations.npz: it was trained without evaluation.")
    config = run.config()
    found = read_evaluations(run.evaluations_path)
    by_success = config["dataset"].get("success_rate") is not None and "successes" in found
    return config, found["timesteps"], found["successes"].astype(float) if by_success else found["results"]


def scores_of(run: Run) -> tuple[str, np.ndarray, np.ndarray]:
    """``"normalized_score"`` or ``"return"``, timesteps (E,), and what each episode scored, (E, episodes)."""
    config, timesteps, values = read_run(run)
    scale = recorded_scale(config["dataset"])
    return ("return", timesteps, values) if scale is None else ("normalized_score", timesteps, scale.of(values, values))


def late_evaluations(run: Run) -> dict[str, Any] | None:
    """
    The last evaluations on the way, :data:`LATE` of them, and their mean; None if there were none, or it is no number.

    :param run: of a training
    """
    if not run.evaluations_path.is_file():
        return None
    unit, timesteps, scores = scores_of(run)
    each = scores.mean(axis=1)[-LATE:]
    if not np.isfinite(each).all():
        return None
    return {"unit": unit, "mean": float(each.mean()), "each": each.tolist(), "timesteps": timesteps[-LATE:].tolist()}


def late_checkpoints(total: int, every: int) -> list[int]:
    """
    The updates whose agents make up a final score: those of the last evaluations, the last of them being the end.

    :param total: updates of the training
    :param every: updates between evaluations
    """
    return [*[*range(every, total + 1, every)][-LATE:-1], total]


def episodes_needed(curve: Mapping[str, Any], episodes: int, error: float = FINAL_ERROR) -> float:
    """
    Episodes of each checkpoint after which those of all leave a standard error of ``error`` in their mean, as far as the
    spread of the last evaluations on the way tells, which are other episodes, and if all are independent. They are not
    quite: the checkpoints start their episodes alike.

    :param curve: ``unit``, and the standard deviation ``std`` of each evaluation's episodes, their number as divisor
    :param episodes: of each evaluation on the way
    :param error: in points of the normalised score
    :return: a whole number; 0 without a normalised score, infinity if each evaluation was one episode, which has no spread
    """
    if curve["unit"] != "normalized_score":
        return 0.0
    if episodes < 2:
        return np.inf
    variances = np.square(curve["std"][-LATE:]) * episodes / (episodes - 1)
    return float(np.ceil(variances.mean() / (len(variances) * error**2)))


def final_episodes(curve: Mapping[str, Any], episodes: int, error: float = FINAL_ERROR) -> int:
    """As many as :func:`episodes_needed` says, but at least :data:`FEWEST_EPISODES` and at most :data:`MOST_EPISODES`."""
    return int(np.clip(episodes_needed(curve, episodes, error), FEWEST_EPISODES, MOST_EPISODES))
