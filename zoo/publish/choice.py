"""Which runs are published: never chosen by their scores."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.program import PROGRAM
from sb3_genoffline.registry import ALGOS

from ..plot.curves import baseline_of
from ..runs.folders import Run, find_run, list_runs

_FOLDER = re.compile(r"_\d+(_[0-9a-f-]{36})?")


@dataclass(frozen=True)
class Trained:
    """
    A run that has a checkpoint.

    :param run: its files
    :param config: what its ``config.yml`` holds
    :param finished: whether it did all the updates that its settings ask for
    """

    run: Run
    config: dict[str, Any]
    finished: bool

    @property
    def algo(self) -> str:
        """Name in ``ALGOS``."""
        return self.config["algo"]

    @property
    def dataset(self) -> str:
        """The dataset's id; the run's name where the data have none."""
        return str(self.config["dataset"]["id"] or self.run.name)

    @property
    def seed(self) -> int:
        """Of the training."""
        return self.config["seed"]

    @property
    def baseline(self) -> str:
        """What the run is called if the algorithm's idea is switched off in it, else empty."""
        return baseline_of(self.config["algo"], self.config["hyperparameters"])

    @cached_property
    def settings(self) -> str:
        """All that runs which differ only in their seed have in common."""
        data = self.config["dataset"]["fingerprint"]
        return json.dumps([self.algo, data, self.config["environment"], self.config["hyperparameters"]], sort_keys=True)

    @cached_property
    def time(self) -> float:
        """When its last checkpoint was written, seconds since the epoch."""
        return self.run.model_path.stat().st_mtime


@dataclass(frozen=True)
class Candidate:
    """
    An agent to publish.

    :param chosen: its run
    :param seeds: finished runs of the same settings, one per seed in their order; the chosen one is among them if finished
    :param notes: how it was chosen, and what was left out
    """

    chosen: Trained
    seeds: tuple[Trained, ...]
    notes: tuple[str, ...] = field(default=())


def choose(log_folder: str | Path, algo: str, dataset: Any, exp_id: int = 0) -> Candidate:
    """
    One run, with the runs beside it that differ from it in the seed only.

    :param log_folder: root of the logs
    :param algo: name in ``ALGOS``
    :param dataset: id or file
    :param exp_id: number of the run (0: the latest)
    :raises NotFoundError: if there is no such run, or no checkpoint in it
    """
    run = find_run(log_folder, algo, dataset, exp_id)
    run.checkpoint("last")
    chosen, runs = _trained(run), list_runs(log_folder, algo, dataset)
    notes = []
    if exp_id == 0 and len(runs) > 1:
        notes.append(f"{len(runs)} runs of {algo} on {dataset}: the latest, {run.folder.name}; --exp-id takes another")
    if not chosen.finished:
        notes.append(f"{run.folder.name} did not do all its {chosen.config['hyperparameters']['n_timesteps']:,} updates")
    if chosen.baseline:
        notes.append(f"{run.folder.name} is the baseline '{chosen.baseline}': it should have a -name of its own")
    others = [_trained(other) for other in runs if other.model_path.is_file()]
    return _candidate(chosen, [other for other in others if other.settings == chosen.settings], notes)


def choose_all(log_folder: str | Path) -> tuple[list[Candidate], list[str]]:
    """
    One agent per algorithm and dataset of a whole tree of logs.

    Of several settings, one is taken in which the algorithm's idea is at work, that has the most seeds, and is the newest;
    of its seeds, that of the lowest number.

    :param log_folder: folder with runs anywhere below it
    :return: agents in the order of their names, and a line for each run that was passed over
    :raises NotFoundError: if there is no finished run
    """
    groups: dict[tuple[str, str], dict[str, list[Trained]]] = {}
    passed = []
    for trained in find_all(log_folder):
        if trained.finished:
            groups.setdefault((trained.algo, trained.dataset), {}).setdefault(trained.settings, []).append(trained)
        else:
            passed.append(f"{trained.run.folder}: not finished")
    if not groups:
        raise NotFoundError(f"There is no finished run below {log_folder}: train one with `{PROGRAM} train`.")
    candidates = []
    for (algo, dataset), settings in sorted(groups.items()):
        ranked = sorted(settings.values(), key=_rank, reverse=True)
        runs = ranked[0]
        lowest = min(trained.seed for trained in runs)
        chosen = max((trained for trained in runs if trained.seed == lowest), key=lambda trained: trained.time)
        seeds = sorted({trained.seed for trained in runs})
        notes = [f"seed {lowest} of {', '.join(map(str, seeds))}: the lowest, not the best"] if len(seeds) > 1 else []
        if len(ranked) > 1:
            notes.append(f"{len(ranked)} settings of {algo} on {dataset}: the one with the most seeds, then the newest")
        passed += [f"{other.run.folder}: {_why(other)}" for group in ranked[1:] for other in group]
        candidates.append(_candidate(chosen, runs, notes))
    return candidates, passed


def find_all(log_folder: str | Path) -> Iterator[Trained]:
    """
    :param log_folder: folder with runs anywhere below it
    :return: those that have a checkpoint, in the order of their paths
    """
    for path in sorted(Path(log_folder).rglob("config.yml")):
        run = Run(path.parent.parent, path.parent.name)
        if not _FOLDER.fullmatch(run.folder.name.removeprefix(run.name)) or not run.model_path.is_file():
            continue
        try:
            config = run.config()
        except UserError:
            continue
        if config["algo"] in list(ALGOS) and config["algo"] == run.folder.parent.name:
            yield _trained(run, config)


def _trained(run: Run, config: dict[str, Any] | None = None) -> Trained:
    config = run.config() if config is None else config
    done = run.summary()
    wanted = config["hyperparameters"].get("n_timesteps")
    return Trained(run, config, bool(done.get("finished")) and done.get("num_timesteps") == wanted)


def _candidate(chosen: Trained, same: Iterable[Trained], notes: Sequence[str]) -> Candidate:
    seeds: dict[int, Trained] = {}
    repeated = set()
    for trained in sorted((run for run in same if run.finished), key=lambda run: run.time):
        repeated |= {trained.seed} & set(seeds)
        seeds[trained.seed] = trained
    if chosen.finished:
        seeds[chosen.seed] = chosen
    if repeated:
        notes = [*notes, f"of several finished runs of seed {', '.join(map(str, sorted(repeated)))}, the latest counts"]
    return Candidate(chosen, tuple(seeds[seed] for seed in sorted(seeds)), tuple(notes))


def _rank(runs: Sequence[Trained]) -> tuple[bool, int, float]:
    return not runs[0].baseline, len({trained.seed for trained in runs}), max(trained.time for trained in runs)


def _why(trained: Trained) -> str:
    return f"baseline, {trained.baseline}" if trained.baseline else "other settings"
