"""The records of a benchmark as scores and curves by algorithm and dataset."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.registry import ALGOS

from ..runs.evaluations import LATE
from ..runs.reading import read_yaml
from .records import Cell

_KIND = re.compile(r"(?:genoffline/|mujoco/|)(halfcheetah|hopper|walker2d)[/-](medium(?:-replay|-expert)?)-v\d+")


@dataclass(frozen=True, eq=False)
class Curve:
    """
    Evaluations on the way, averaged over the seeds that were evaluated at the same updates.

    :param timesteps: (E,) gradient updates
    :param seconds: (E,) wall seconds, fits and evaluations included, mean over the seeds
    :param mean: (E,) score
    :param std: (E,) over the seeds; None if there is one
    :param seeds: their number
    """

    timesteps: np.ndarray
    seconds: np.ndarray
    mean: np.ndarray
    std: np.ndarray | None
    seeds: int


class Results:
    """
    :param algorithms: names, in the order of the report
    :param datasets: ids, in the order of the report
    :param cells: of :func:`zoo.benchmark.records.read_cells`
    """

    def __init__(self, algorithms: list[str], datasets: list[str], cells: list[Cell]) -> None:
        self.algorithms, self.datasets, self.cells = algorithms, datasets, cells

    def at(self, name: str, dataset: str) -> list[Cell]:
        """The cells of an algorithm on a dataset, a seed each."""
        return [cell for cell in self.cells if (cell.name, cell.dataset) == (name, dataset)]

    def records(self, name: str | None = None, dataset: str | None = None) -> list[dict[str, Any]]:
        """Records that have a result."""
        return [
            cell.record
            for cell in self.cells
            if cell.record is not None and not cell.reason and name in (None, cell.name) and dataset in (None, cell.dataset)
        ]

    def scores(self, name: str, dataset: str, which: str = "final") -> np.ndarray:
        """(seeds,) final scores, or those of the checkpoint ``"last"`` or ``"best"``; returns where the scale is not known."""
        read = final_score if which == "final" else lambda record: score(record[which])
        return np.array([read(record) for record in self.records(name, dataset)])

    def data(self, dataset: str) -> dict[str, Any] | None:
        """What is known of a dataset: the same for all its runs, or :meth:`warnings` says so."""
        records = self.records(dataset=dataset)
        return records[0]["data"] if records else None

    def normalized(self, dataset: str) -> bool:
        """Whether results on a dataset are on D4RL's scale (or success rates), so that they can be averaged with others."""
        records = self.records(dataset=dataset)
        return bool(records) and all(record["last"]["normalized_score"] is not None for record in records)

    @cached_property
    def compared(self) -> tuple[list[str], list[str]]:
        """The algorithms that have results where most have some, and the datasets on which all of those have some."""
        having = {d: [name for name in self.algorithms if self.records(name, d)] for d in self.datasets if self.normalized(d)}
        names = max(having.values(), key=len, default=[])
        if len(names) < 2:
            return [name for name in self.algorithms if self.records(name)], []
        return names, [d for d, found in having.items() if {*names} <= {*found}]

    def strata(self, name: str) -> dict[str, np.ndarray]:
        """Final scores of an algorithm by dataset, on those that all have."""
        return {dataset: self.scores(name, dataset) for dataset in self.compared[1]}

    def curve(self, name: str, dataset: str) -> Curve | None:
        """The learning curve of an algorithm."""
        curves = [record["curve"] for record in self.records(name, dataset) if record.get("curve")]
        common = sorted(set.intersection(*(set(curve["timesteps"]) for curve in curves))) if curves else []
        if not common:
            return None

        def rows(key: str) -> np.ndarray:
            return np.array([np.array(curve[key])[np.isin(curve["timesteps"], common)] for curve in curves])

        means = rows("mean")
        std = means.std(axis=0, ddof=1) if len(means) > 1 else None
        return Curve(np.array(common), rows("seconds").mean(axis=0), means.mean(axis=0), std, len(means))

    def course(self, name: str, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """
        How an algorithm's score grows with processor time, averaged over the seeds and then over the datasets that all have.

        :param shares: (E,) of a run's updates
        :return: (E,) processor minutes and (E,) scores; None where a run has no curve or no processor time
        """
        minutes, scores = [], []
        for dataset in self.compared[1]:
            records = self.records(name, dataset)
            if not all(record.get("curve") and record["seconds"].get("cpu") for record in records):
                return None
            at = [np.array(record["curve"]["timesteps"]) / record["updates"] for record in records]
            curves = list(zip(at, records, strict=True))
            scores.append(np.mean([np.interp(shares, x, record["curve"]["mean"]) for x, record in curves], axis=0))
            spent = [
                np.interp(shares, x, record["curve"]["seconds"]) * record["seconds"]["cpu"] / record["seconds"]["total"]
                for x, record in curves
            ]
            minutes.append(np.mean(spent, axis=0) / 60)
        return (np.mean(minutes, axis=0), np.mean(scores, axis=0)) if scores else None

    def warnings(self) -> list[str]:
        """What makes a comparison less than fair."""
        found = []
        checks: dict[str, Callable[[dict[str, Any]], Any]] = {
            "different data": lambda record: record["data"]["fingerprint"],
            "different evaluation protocols": lambda record: (
                len((record.get("final") or {}).get("checkpoints", ())),
                *(record["last"][name] for name in ("eval_seed", "n_eval_envs", "env_id")),
            ),
        }
        for dataset in self.datasets:
            for what, read in checks.items():
                if len({read(record) for record in self.records(dataset=dataset)}) > 1:
                    found.append(f"Runs on {dataset} had {what}: they cannot be compared.")
        outdated = sorted({title(cell.name) for cell in self.cells if cell.outdated and not cell.reason})
        if outdated:
            found.append(f"Some runs of {', '.join(outdated)} were made with other settings than the plan has now (†).")
        return found


def score(result: Mapping[str, Any]) -> float:
    """A result's score: D4RL's scale or the success rate, else the mean return."""
    return result["mean_reward"] if result["normalized_score"] is None else result["normalized_score"]


def final_score(record: Mapping[str, Any]) -> float:
    """
    The mean of a run's last checkpoints, :data:`~zoo.runs.evaluations.LATE` of them; of records from before they were measured
    again, the mean of as many evaluations on the way.
    """
    if record.get("final"):
        return float(record["final"]["mean"])
    return float(np.mean(record["curve"]["mean"][-LATE:])) if record.get("curve") else score(record["last"])


def wobble(record: Mapping[str, Any]) -> float | None:
    """Sample standard deviation of a run's last checkpoints; None of records from before they were measured again."""
    scores = (record.get("final") or {}).get("scores") or ()
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else None


def title(name: str) -> str:
    """What an algorithm of a plan is called in the report: ``dac_held`` is DAC (held)."""
    if name in ALGOS:
        return ALGOS[name].__name__
    words = name.split("_")
    known = [n for n in range(1, len(words)) if "_".join(words[:n]) in ALGOS]
    if not known:
        return name
    return f"{ALGOS['_'.join(words[: known[-1]])].__name__} ({' '.join(words[known[-1] :])})"


def spread(values: np.ndarray) -> float | None:
    """Sample standard deviation over seeds; None if there is one."""
    return float(values.std(ddof=1)) if len(values) > 1 else None


class Published:
    """What papers report, on D4RL's v2 datasets."""

    def __init__(self) -> None:
        content = read_yaml(Path(__file__).parent / "published.yml", "table of published scores")
        self._table = {
            name: dict(zip(content["datasets"], entry["scores"], strict=True)) for name, entry in content["algorithms"].items()
        }
        self.sources = {name: entry["source"] for name, entry in content["algorithms"].items()}

    def score(self, name: str, dataset: str) -> float | None:
        """The published score of an algorithm on D4RL's dataset of the same kind, if there is one."""
        match = _KIND.fullmatch(dataset)
        return None if match is None else self._table.get(name, {}).get(f"{match[1]}-{match[2]}")
