"""Training metrics: running means that stay on the device until they are read, and what is noticed in them."""

import warnings

import numpy as np
import torch as th
from stable_baselines3.common.logger import Logger
from torch import Tensor

from sb3_genoffline.errors import DivergedError

# Metrics are read, all at once, this often even when nothing is logged: divergence must be noticed.
METRICS_EVERY = 1000


class RunningMeans:
    """
    Means of scalars over updates, kept on the device: adding one reads nothing back from it. A scalar that some updates do not
    have is averaged over those that do.

    :param device: of the scalars
    """

    def __init__(self, device: th.device) -> None:
        self.device = device
        self.count = 0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, metrics: dict[str, Tensor]) -> None:
        """:param metrics: scalars of one update by name"""
        known = [key for key in metrics if key in self._sums]
        if known:
            th._foreach_add_([self._sums[key] for key in known], [metrics[key] for key in known])
        for key, value in metrics.items():
            if key not in self._sums:
                self._sums[key] = value.clone()  # a graph writes its next one to the same place
            self._counts[key] = self._counts.get(key, 0) + 1
        self.count += 1

    def read(self) -> dict[str, float]:
        """The means since the last call, read from the device all at once; nothing if there was no update."""
        if not self._sums:
            return {}
        sums = th.stack([value.to(self.device) for value in self._sums.values()]).tolist()
        result = {key: total / self._counts[key] for key, total in zip(self._sums, sums, strict=True)}
        self._sums, self._counts, self.count = {}, {}, 0
        return result


class TrainingMonitor:
    """
    What the metrics of a training say: their latest means, whether it has diverged, and warnings, each given once.

    :param device: of the scalars
    """

    def __init__(self, device: th.device) -> None:
        self.means = RunningMeans(device)
        self.latest: dict[str, float] = {}
        """The latest means by name, those of fits and evaluations too."""
        self._warned: set[str] = set()

    def warn_once(self, about: str, message: str) -> None:
        """
        :param about: name of the warning; a second one of this name is not shown
        :param message: what was noticed and what helps
        """
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(message, stacklevel=3)

    def flush(self, logger: Logger, n_updates: int, q_bound: float | None) -> dict[str, float]:
        """
        Read the running means and hand them to the logger.

        :param logger: takes them below ``train/``
        :param n_updates: updates done
        :param q_bound: the largest attainable |Q|, if it is known: adds ``q_over_bound`` to the metrics
        :return: the means by name; nothing if there was no update
        :raises DivergedError: when a mean is not finite any more
        """
        metrics = self.means.read()
        if not metrics:
            return {}
        if "q_mean" in metrics and q_bound:
            metrics["q_over_bound"] = metrics["q_mean"] / q_bound
        self.latest |= metrics
        for key, value in metrics.items():
            logger.record(f"train/{key}", value)
            if not np.isfinite(value):
                raise DivergedError(
                    f"train/{key} became {value} within the last {METRICS_EVERY} updates before update {n_updates}: "
                    "training diverged. Lower the learning rates (all arguments of that name), scale large rewards or "
                    "observations down (reward_transform, normalize_observations), or restart from an earlier checkpoint."
                )
        logger.record("train/n_updates", n_updates, exclude="tensorboard")
        return metrics
