"""Training metrics: running means that stay on the device until they are read, the logger, and what is noticed in them."""

import sys
import time
import warnings
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import Tensor

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
        for key, value in metrics.items():
            self._sums[key] = self._sums[key] + value if key in self._sums else value
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


class MetricsMixin(OffPolicyAlgorithm):
    """Logging of :class:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm`."""

    dataset_info: dict[str, Any]
    last_metrics: dict[str, float]
    _means: RunningMeans
    _offline_phase: bool
    _warned: set[str]

    def _record_metrics(self, metrics: dict[str, Tensor]) -> None:
        """Add one update's scalars to the running means, without reading them from the device."""
        self._means.add(metrics)
        if self._means.count >= METRICS_EVERY:
            self._flush_metrics()

    def _flush_metrics(self) -> None:
        """Read the running means and hand them to the logger; notice divergence."""
        metrics = self._means.read()
        if not metrics:
            return
        bound = self.dataset_info.get("q_bound")
        if "q_mean" in metrics and bound:
            metrics["q_over_bound"] = metrics["q_mean"] / bound
        self.last_metrics |= metrics
        for key, value in metrics.items():
            self.logger.record(f"train/{key}", value)
            if not np.isfinite(value):
                raise FloatingPointError(
                    f"train/{key} became {value} within the last {METRICS_EVERY} updates before update {self._n_updates}: "
                    "training diverged. Lower learning_rate, or restart from an earlier checkpoint."
                )
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if abs(metrics.get("q_over_bound", 0.0)) > 1.0 and "q_over_bound" not in self._warned:
            self._warned.add("q_over_bound")
            warnings.warn(
                f"At update {self._n_updates} the mean Q is {metrics['q_mean']:.4g}, beyond the largest attainable discounted "
                f"return {bound:.4g} (max |r| / (1 − gamma)): the critics over-estimate. {self._overestimation_hint()}",
                stacklevel=2,
            )
        self._watch(metrics)

    def _watch(self, metrics: dict[str, float]) -> None:
        """Look at the metrics' means, just read: warn, or log more."""

    def _overestimation_hint(self) -> str:
        """The knobs that help against over-estimation."""
        return "A lower learning rate or more data may help."

    def dump_logs(self) -> None:
        """Write the logger's data (SB3's keys; ``time/fps`` counts gradient steps in :meth:`learn_offline`)."""
        self._flush_metrics()
        if not self._offline_phase:
            super().dump_logs()
            return
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)
