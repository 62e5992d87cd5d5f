"""A training of DAC at the paper's setting as long as time allows, to be evaluated elsewhere."""

import time
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_genoffline import DAC, load_dataset
from sb3_genoffline.testing import point_dataset

from ..runs.writing import write_text
from ..speed.agents import setting_arguments

POINT_ROWS = 100_000


class _UntilTime(BaseCallback):
    """Ends a training at a time, notes its means now and then, and keeps the agent that there is."""

    def __init__(self, until: float, every: int, keep_every: float, folder: Path) -> None:
        super().__init__()
        self.until, self.every, self.keep_every, self.folder = until, every, keep_every, folder
        self.rows: list[dict[str, float]] = []
        self._begun = self._kept = time.monotonic()

    def _on_step(self) -> bool:
        now = time.monotonic()
        if self.num_timesteps % self.every == 0:
            model: Any = self.model
            model._flush_metrics()
            self.rows.append({"update": self.num_timesteps, "seconds": round(now - self._begun, 2), **model.last_metrics})
        if now - self._kept > self.keep_every:
            self.write()
            self._kept = time.monotonic()
        return now < self.until

    def write(self) -> None:
        """The agent, whole and to act only, and the curve of losses."""
        self.model.save(self.folder / "dac.zip")
        self.model.save(self.folder / "dac_acting.zip", exclude=["training"])
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [",".join(names), *(",".join(f"{row.get(name, '')}" for name in names) for row in self.rows)]
        write_text(self.folder / "losses.csv", "\n".join(lines) + "\n")


def train_dac(
    folder: str, seconds: float, device: str, dataset: str | None, setting: str, every: int, at_most: int | None
) -> dict[str, Any]:
    """
    :param folder: takes the agent and the curve of losses
    :param seconds: how long, files included
    :param device: of the agent
    :param dataset: whatever :func:`~sb3_genoffline.data.load_dataset` takes; None: random walks of a point
    :param setting: of the agent
    :param every: updates between two points of the curve
    :param at_most: updates; None: the paper's
    """
    begun = time.monotonic()
    data = point_dataset(0, POINT_ROWS if setting == "paper" else 100) if dataset is None else load_dataset(dataset)
    model = DAC("DiffusionPolicy", data, seed=0, device=device, **setting_arguments("dac", setting))
    until = _UntilTime(begun + 0.93 * seconds, every, max(seconds / 4, 20.0), Path(folder))
    model.learn_offline(data, at_most, callback=until, log_interval=None)
    until.write()
    taken = time.monotonic() - begun
    return {
        "passed": model._n_updates > 0,
        "updates": model._n_updates,
        "updates_per_second": model._n_updates / taken,
        "graphs": model.stepper.n_graphs,
        "not_recorded": model.stepper.failure,
        "dataset": data.id,
        "files": ["dac.zip", "dac_acting.zip", "losses.csv"],
        "last": model.last_metrics,
    }
