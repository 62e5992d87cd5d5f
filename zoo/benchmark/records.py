"""What is written down about a job: one JSON file, all that the report needs."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sb3_genoffline
from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.registry import ALGOS

from ..runs.folders import Run, list_runs
from ..runs.hyperparameters import plain_defaults
from ..runs.reading import check_parts, read_json
from ..runs.writing import write_json
from .plan import Job, Plan, key_of

WAITING, RUNNING, INTERRUPTED, DONE, FAILED = "waiting", "running", "interrupted", "done", "failed"
LAST_LINES = 12
_MODULE = re.compile(r"^(\w+\.)+(?=\w+:)")
"""Of an error, as a traceback names it."""
_MAPPING, _Number = Mapping[str, Any], float | None
_RESULT = {"gradient_steps": int, "n_eval_episodes": int, "mean_reward": float, "normalized_score": _Number}
_PARTS: dict[str, Any] = {
    "key": str,
    "state": Literal["waiting", "running", "interrupted", "done", "failed"],
    "config": {"name": str, "algo": str, "dataset": str, "seed": int, "hyperparameters": _MAPPING, "evaluation": _MAPPING},
    "error": str | None,
    "clock": _MAPPING | None,
    "attempt": _Number,
    "ended": str | None,
    "note": str | None,
    "final": _MAPPING | None,
}
_DONE_PARTS: dict[str, Any] = {
    "host": str,
    "data": {"fingerprint": str, "mean_return": _Number, "normalized_score": _Number},
    "versions": {"torch": str},
    "updates": _Number,
    "updates_per_second": _Number,
    "seconds": {"total": float, "fit": float, "training": float, "evaluation": float, "cpu": _Number},
    "last": _MAPPING | None,
    "best": _MAPPING | None,
    "curve": _MAPPING | None,
}
_ONCE_EVALUATED: dict[str, Any] = {
    "last": _RESULT | {"eval_seed": int, "n_eval_envs": int, "env_id": str | None, "returns": list[float] | None},
    "best": _RESULT,
}
_CLOCK: dict[str, Any] = {
    **dict.fromkeys(("total", "fit", "training", "wall", "cpu"), float),
    **{"updates": int, "timesteps": list[int], "seconds": list[float]},
}
_CURVE: dict[str, Any] = {"timesteps": list[int], "seconds": list[float], "mean": list[float], "std": list[float]}
"""What the report and the overview read of a record: a part that is not named here may be anything."""
Reader = Callable[[Path], dict[str, Any]]
"""Reads a record, and refuses one with wrong parts."""


def record_path(folder: str | Path, job: Job) -> Path:
    """Where a job's record is; its log lies beside it."""
    return Path(folder) / "jobs" / f"{job.label}.json"


def read_job(path: Path) -> dict[str, Any]:
    """
    A record without its results, which are not checked.

    :raises UserError: if it is not a record of a job: a part is missing or of another type
    """
    record, where = read_json(path, "record of a benchmark"), f"{path} is not a record of a benchmark: its"
    check_parts(record, _PARTS, where)
    clock = record.get("clock") or {}
    hints: dict[str, Any] = {"clock": {name: hint for name, hint in _CLOCK.items() if name in clock}} if clock else {}
    check_parts(record, hints | ({"error": str} if record["state"] == FAILED else {}), where)
    return record


def read_record(path: Path) -> dict[str, Any]:
    """
    A record, with all that the report and the overview read of it.

    :raises UserError: if it is not a record of a benchmark: a part is missing or of another type
    """
    record, hints = read_job(path), dict[str, Any]()
    if record["state"] == DONE:
        hints = _DONE_PARTS | (_ONCE_EVALUATED if record.get("last") else {})
        hints |= {"curve": _CURVE, "config": {"evaluation": {"episodes": int}}} if record.get("curve") else {}
        final = record.get("final")
        hints |= {"final": {"mean": float} | ({"checkpoints": list[int]} if "checkpoints" in final else {})} if final else {}
    check_parts(record, hints, f"{path} is not a record of a benchmark: its")
    if hints.get("curve") is _CURVE and len({len(record["curve"][name]) for name in _CURVE}) > 1:
        raise UserError(f"{path} is not a record of a benchmark: the lists of its curve have different lengths.")
    return record


def new_record(job: Job) -> dict[str, Any]:
    """The record of a job that nothing has been done of."""
    return {"key": job.key, "state": WAITING, "config": job.config}


def open_record(folder: str | Path, job: Job, read: Reader = read_record) -> dict[str, Any]:
    """
    A job's record, written if there is none.

    :param folder: of the records
    :param job: the job
    :param read: reads a record of its kind

    :raises UserError: if it is another job's: what a record says is done, and only the plan says what is to be done
    """
    path = record_path(folder, job)
    if path.is_file():
        record = read(path)
        if key_of(record["config"]) != job.key:
            raise UserError(f"{path} is the record of another job than the plan's: move it away, and the job will run again.")
        return record
    write_json(path, new_record(job))
    return new_record(job)


def copy_ended(source: Path, target: Path) -> None:
    """
    Copy the records of jobs that are done or failed.

    :raises NotFoundError: if there is none
    """
    records = {path.name: read_record(path) for path in sorted(source.glob("*.json"))}
    ended = {name: record for name, record in records.items() if record["state"] in (DONE, FAILED)}
    if not ended:
        raise NotFoundError(f"No job has ended in {source}: run the benchmark first.")
    for name, record in ended.items():
        write_json(target / name, record)


def last_lines(text: str) -> str:
    """The end of a log or of a traceback, without the places of this program and of Python on this machine."""
    for place in (Path(sb3_genoffline.__file__).parents[1], sys.prefix, sys.base_prefix, os.path.expanduser("~")):
        text = text.replace(f"{place}/", "")
    return "\n".join(text.strip().splitlines()[-LAST_LINES:])


def job_run(folder: str | Path, record: dict[str, Any], fingerprint: str | None = None) -> Run | None:
    """
    The run folder of a job.

    :param folder: of the benchmark
    :param record: of the job
    :param fingerprint: of the data that it must have been trained on (None: any)
    """
    config = record["config"]
    if config["algo"] not in list(ALGOS):  # else it would be the name of any folder
        return None
    for run in reversed(list_runs(folder, config["algo"], config["dataset"])):
        try:
            known = run.config()["dataset"].get("fingerprint")
        except FileNotFoundError:
            continue  # just begun, or killed in its first moments
        if run.arguments().get("benchmark") == record["key"] and fingerprint in (None, known):
            return run
    return None


@dataclass(frozen=True)
class Cell:
    """
    The place of an algorithm, a dataset and a seed in a benchmark.

    :param name: of the algorithm in the plan
    :param record: of its job; None if there is none
    :param reason: why there is no record, or no result in it; empty if there is one
    :param outdated: whether the record was made with other settings than the plan would use today
    :param superseded: records with results that other settings gave before
    """

    name: str
    dataset: str
    seed: int
    record: dict[str, Any] | None
    reason: str = ""
    outdated: bool = False
    superseded: tuple[dict[str, Any], ...] = ()


def read_cells(plan: Plan, folder: str | Path) -> list[Cell]:
    """
    All cells of a plan with what is known of them.

    :param plan: the plan
    :param folder: of ``*.json`` records. If a cell has several, that of the present settings counts, else the newest
    """
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for path in sorted(Path(folder).glob("*.json")):
        record = read_record(path)
        config = record["config"]
        found.setdefault((config["name"], config["dataset"], config["seed"]), []).append(record)
    cells = [Cell(skip.name, skip.dataset, skip.seed, None, skip.reason) for skip in plan.skipped]
    cells += [Cell(job.name, job.dataset, job.seed, None, "not run") for job in plan.jobs]
    jobs = {(job.name, job.dataset, job.seed): job for job in plan.jobs}
    for index, cell in enumerate(cells):
        place = (cell.name, cell.dataset, cell.seed)
        job = jobs.get(place)
        best = _preferred(found.get(place, ()), job)
        if best is not None:
            others: list[dict[str, Any]] = []
            for record in sorted(found[place], key=lambda record: record.get("ended") or ""):
                if not _reason(record) and all(_run_of(record) != _run_of(known) for known in (best, *others)):
                    others.append(record)
            cells[index] = Cell(*place, best, _reason(best), not _is_of(best, job), tuple(others))
    order = {name: index for index, name in enumerate(plan.algorithms)}
    return sorted(cells, key=lambda cell: (plan.datasets.index(cell.dataset), order[cell.name], cell.seed))


def _run_of(record: dict[str, Any]) -> dict[str, Any]:
    """A record without its plan's words about evaluation: two that differ in nothing else are copies of one."""
    config = {name: value for name, value in record["config"].items() if name != "evaluation"}
    return {name: value for name, value in record.items() if name != "key"} | {"config": config}


def _is_of(record: dict[str, Any], job: Job | None) -> bool:
    """
    Whether a record was made with a job's settings. Of defaults those count that both know: an argument that came since is off
    by default, and so it is if the settings name its default; what was once among the policy's arguments, stable-baselines3's,
    was of no use.
    """
    if job is None or record["key"] == job.key:
        return job is not None
    before, now = record["config"], job.config
    if before["algo"] != now["algo"]:
        return False
    default = plain_defaults(ALGOS[now["algo"]].argument_table().arguments, {"policy_kwargs"})
    before, now = _default_unless_named(before, now, default), _default_unless_named(now, before, default)
    return bool(_known_to_both(before, now) == _known_to_both(now, before))


def _default_unless_named(config: dict[str, Any], other: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """A config whose named settings are among its defaults where they are what holds anyway, by the other one or today's."""
    usual = default | (other.get("defaults") or {})
    named = config["hyperparameters"]
    same = {name: value for name, value in named.items() if name != "policy_kwargs" and name in usual and usual[name] == value}
    same = {name: value for name, value in same.items() if name not in other["hyperparameters"]}
    rest = {name: value for name, value in named.items() if name not in same}
    return config | {"hyperparameters": rest, "defaults": (config.get("defaults") or {}) | same}


def _known_to_both(config: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A config whose defaults are those that the other one has too."""
    defaults, others = config.get("defaults") or {}, other.get("defaults") or {}
    policy, others_policy = defaults.get("policy_kwargs") or {}, others.get("policy_kwargs") or {}
    known = policy.keys() & others_policy.keys()
    if "features_extractor_class" in policy or "features_extractor_class" in others_policy:
        known -= {"optimizer_class"}
    shared = {name: value for name, value in defaults.items() if name in others and name != "policy_kwargs"}
    return config | {"defaults": shared | {"policy_kwargs": {name: policy[name] for name in known}}}


def _preferred(records: Iterable[dict[str, Any]], job: Job | None) -> dict[str, Any] | None:
    return max(
        records,
        key=lambda record: (_is_of(record, job), record["state"] == DONE, record.get("ended") or ""),
        default=None,
    )


def _reason(record: dict[str, Any]) -> str:
    if record["state"] == DONE:
        return "" if record.get("last") else record.get("note") or "no evaluation"
    if record["state"] == FAILED:
        return "failed: " + _MODULE.sub("", record["error"].splitlines()[-1])
    return "not run" if record["state"] == WAITING else "not finished"
