"""
Check in at most nine minutes what only a CUDA machine can show: that graphs do what Python does, that agents move between
CPU and CUDA, that nothing waits for the device, and how fast it all is. DAC trains in the remaining time. Needs no
simulator and no network. Writes and prints one JSON.
"""

import argparse
import json
import math
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch as th

from sb3_genoffline import ALGOS
from sb3_genoffline.errors import UserError
from sb3_genoffline.version import __version__

from ..runs.flags import algorithm, device, jobs, new_folder, real
from ..runs.writing import write_json
from .checks import graphs_equal_python, reads_nothing, resumes
from .jobs import Inline, Job, Processes, Runner, failures
from .speeds import on_streams, one_of_many, updates_per_second
from .training import train_dac

CHECKS = {"graphs_equal_python": graphs_equal_python, "resumes": resumes, "reads_nothing": reads_nothing}
FIRST = ("dac", "td3_bc", "iql", "qdq", "cped")
"""Algorithms whose speed is asked first: time may end."""
AIMS = {"dac": 2000.0, "td3_bc": 6000.0, "iql": 6000.0}
"""Updates per second on an H200, batch 256, the paper's setting."""
AIM_SIDE_BY_SIDE = 3.0
"""Updates per second of several trainings on one card, over those of one."""


class Plan:
    """
    What is done, how much of it, and until when.

    :param minutes: in all
    :param smoke: on a CPU, everything tiny
    """

    def __init__(self, minutes: float, smoke: bool) -> None:
        self.begun = time.monotonic()
        self.smoke = smoke
        self.seconds = 60.0 * minutes - (0.0 if smoke else 15.0)  # for processes to end in, and files
        self.setting = "tiny" if smoke else "paper"
        self.n_rows = 250 if smoke else None
        self.n_updates = {"graphs_equal_python": 12 if smoke else 200, "resumes": 3 if smoke else 20, "reads_nothing": 4}
        self.batch_sizes = (8,) if smoke else (256, 4096)
        self.seconds_a_form = 0.0 if smoke else 0.7
        self.side_by_side = (2,) if smoke else (4, 8)

    def until(self, share: float) -> float:
        """``time.monotonic()`` at which a share of the time is gone."""
        return self.begun + share * self.seconds

    def left(self) -> float:
        """Seconds until the end."""
        return self.until(1.0) - time.monotonic()


def machine(where: str) -> dict[str, Any]:
    """What it runs on."""
    found: dict[str, Any] = {
        "sb3_genoffline": __version__,
        "python": platform.python_version(),
        "torch": th.__version__,
        "cuda": th.version.cuda,
        "platform": platform.platform(),
        "tf32": th.backends.cuda.matmul.allow_tf32,
        "device": where,
    }
    if th.device(where).type == "cuda":
        about = th.cuda.get_device_properties(where)
        found |= {"gpu": about.name, "memory_gib": round(about.total_memory / 2**30, 1), "sms": about.multi_processor_count}
        found |= {"capability": f"{about.major}.{about.minor}", "driver_sees": th.cuda.device_count()}
    return found


def check_all(plan: Plan, runner: Runner, algos: list[str], where: str, at_once: int) -> dict[str, Any]:
    """Every check of every algorithm; within 35% of the time."""
    planned = [
        Job(f"{check} {algo}", function, {"algo": algo, "device": where, "n_updates": plan.n_updates[check]}, 90.0)
        for check, function in CHECKS.items()
        for algo in algos
    ]
    results = runner.run(planned, plan.until(0.35), at_once)
    return {check: {algo: results[f"{check} {algo}"] for algo in algos} for check in CHECKS}


def time_all(plan: Plan, runner: Runner, algos: list[str], where: str) -> dict[str, Any]:
    """The table of speeds; within 62% of the time."""
    ordered = [algo for algo in FIRST if algo in algos] + [algo for algo in algos if algo not in FIRST]
    planned = [
        Job(
            f"{algo} {batch_size}",
            updates_per_second,
            {
                **{"algo": algo, "setting": plan.setting, "device": where, "batch_size": batch_size},
                **{"seconds": plan.seconds_a_form, "n_rows": plan.n_rows},
            },
            60.0,
        )
        for batch_size in plan.batch_sizes
        for algo in ordered
    ]
    return runner.run(planned, plan.until(0.62))


def time_side_by_side(plan: Plan, runner: Runner, algo: str, where: str) -> dict[str, Any]:
    """Several trainings on one device: as processes, and as streams of one process; within 80% of the time."""
    seconds = 4 * plan.seconds_a_form
    shared = {"algo": algo, "setting": plan.setting, "device": where, "seconds": seconds, "n_rows": plan.n_rows}
    streams = [Job(f"{n} streams", on_streams, shared | {"n_agents": n}, 45.0) for n in (1, *plan.side_by_side)]
    found = runner.run(streams, plan.until(0.8))
    for n in plan.side_by_side:
        begin_at = 0.0 if plan.smoke else time.time() + 20.0  # a process needs some seconds until it has warmed up
        many = [Job(f"{i + 1} of {n}", one_of_many, shared | {"begin_at": begin_at}, 45.0) for i in range(n)]
        results = runner.run(many, plan.until(0.8), at_once=n).values()
        rate = sum(result.get("updates_per_second", math.nan) for result in results)
        found[f"{n} processes"] = {"updates_per_second": rate, "late": any(result.get("late") for result in results)}
        if wrong := [result["error"] for result in results if "error" in result]:
            found[f"{n} processes"]["failures"] = wrong
    rates = {name: result.get("updates_per_second", math.nan) for name, result in found.items()}
    over_one = [rate / rates["1 streams"] for rate in rates.values() if rate / rates["1 streams"] > 0]
    return found | {"algo": algo, "most_over_one": max(over_one, default=None)}


def aims(report: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """What was hoped for on an H200, and what was found."""
    speeds = report["speeds"]
    found = {algo: (aim, speeds.get(f"{algo} {batch_size}", {}).get("graph")) for algo, aim in AIMS.items()}
    found["side_by_side"] = AIM_SIDE_BY_SIDE, report["side_by_side"].get("most_over_one")
    return {name: {"aim": aim, "found": rate, "met": rate is not None and rate >= aim} for name, (aim, rate) in found.items()}


def gone_wrong(report: dict[str, Any]) -> list[str]:
    """Names of the checks that have not passed, and of all else that has failed. A speed that time was short for has not."""
    checked = {f"{check} {algo}": result for check, results in report["checks"].items() for algo, result in results.items()}
    measured = {name: result for part in ("speeds", "side_by_side") for name, result in report[part].items()}
    failed = [name for name, result in measured.items() if isinstance(result, dict) and {"error", "failures"} & result.keys()]
    return [name for name, result in (checked | {"training": report["training"]}).items() if failures([result])] + failed


def plain(value: Any) -> Any:
    """Of a report what JSON has: no number that is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``python -m zoo gpu-check``."""
    parser.add_argument("-o", "--out", type=new_folder, default="logs/gpu-check", help="folder of the JSON and the agent")
    parser.add_argument("--minutes", type=real, default=9.0, help="time limit in minutes (2 to 60)")
    parser.add_argument("--algo", type=algorithm, nargs="+", default=None, help="algorithms (default: all)")
    parser.add_argument("--dataset", default=None, help="DAC's data: a file or an id (default: random walks of a point)")
    parser.add_argument("--device", type=device, default=None, help="cuda, cuda:1, ... (default: cuda; with --smoke: cpu)")
    parser.add_argument("--jobs", type=jobs, default=4, help="checks that run in parallel; speeds are measured alone")
    parser.add_argument(
        "--smoke", action="store_true", help="everything, tiny, on a CPU, where tapes stand in for CUDA's graphs"
    )


def main(args: argparse.Namespace) -> None:
    """
    Run all parts, each within its share of the time, and print the report.

    :raises UserError: if there is no CUDA device, or a check has failed
    """
    if not 2 <= args.minutes <= 60:
        raise UserError(f"--minutes {args.minutes:g} must lie between 2 and 60.")
    kind = "cpu" if args.smoke else "cuda"
    where = args.device or kind
    if th.device(where).type != kind or (kind == "cuda" and not th.cuda.is_available()):
        raise UserError(
            f"--device {where}: it is CUDA that is checked here, on a GPU that PyTorch finds; --smoke tries it on a CPU."
        )
    plan, folder = Plan(args.minutes, args.smoke), Path(args.out)
    runner: Runner = (Inline if args.smoke else Processes)(tell)
    algos = list(dict.fromkeys(args.algo or ALGOS))
    report: dict[str, Any] = {"what": "gpu-check", "smoke": args.smoke, "machine": machine(where), "algorithms": algos}

    def add(name: str, part: Any) -> None:
        report[name] = part
        report["seconds"] = time.monotonic() - plan.begun
        write_json(folder / "gpu-check.json", plain(report))  # what there is, should it be ended

    add("checks", check_all(plan, runner, algos, where, args.jobs))
    add("speeds", time_all(plan, runner, algos, where))
    add("side_by_side", time_side_by_side(plan, runner, "dac" if "dac" in algos else algos[0], where))
    seconds = max(plan.left() - 5.0, 1.0)
    arguments = {"folder": str(folder), "seconds": seconds, "device": where, "dataset": args.dataset, "setting": plan.setting}
    training = Job(
        "training",
        train_dac,
        arguments | ({"every": 2, "at_most": 6} if args.smoke else {"every": 1000, "at_most": None}),
        seconds + 5.0,
    )
    add("training", runner.run([training], plan.until(1.0))["training"])
    report["aims"] = aims(report, plan.batch_sizes[0])
    wrong = gone_wrong(report)
    add("passed", not wrong)
    print(json.dumps(plain(report), indent=2))
    if wrong:
        raise UserError(f"{len(wrong)} parts have not passed: {', '.join(wrong)}. The report says why.")


def tell(name: str, result: dict[str, Any]) -> None:
    """A line on standard error of a job that has ended."""
    state = next((f"{key}: {result[key]}" for key in ("error", "skipped") if key in result), None)
    state = state or ("passed" if result.get("passed", True) else "NOT PASSED")
    print(f"{name}: {state} ({result.get('seconds', 0)} s)", file=sys.stderr, flush=True)
