"""One job of a benchmark, as a process of its own: `python -m zoo.benchmark.job RECORD`."""

import argparse
import datetime
import os
import platform
import shlex
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.files.writing import scratch_folder
from sb3_genoffline.registry import load_agent

from ..collect.lookup import find_dataset
from ..runs.envs import NoEnvironment, env_factory
from ..runs.evaluations import final_episodes, late_checkpoints, scores_of
from ..runs.folders import Run
from ..runs.learning import TrainedRun, train
from ..runs.provenance import versions
from ..runs.rendering import prefer_offscreen
from ..runs.scoring import evaluate
from ..runs.stopping import Stopped, stoppable
from ..runs.writing import write_json, write_yaml
from .records import DONE, FAILED, INTERRUPTED, RUNNING, Reader, job_run, last_lines, read_record
from .results import score
from .stopwatch import Stopwatch

EXIT = {DONE: 0, FAILED: 1, INTERRUPTED: 130}
"""Exit codes; 143 and the like are an interruption too, by other signals."""
_RESULT_KEYS = (
    *("checkpoint", "gradient_steps", "normalized_score", "success_rate", "mean_reward", "std_reward", "returns"),
    *("n_eval_episodes", "eval_seed", "n_eval_envs", "is_deterministic", "env_id", "protocol"),
)


def run_job(path: Path) -> str:
    """
    Do a job, or what is left of it, and write its record. Whatever goes wrong is in the record.

    :param path: of the record, in the folder ``jobs`` of the benchmark
    :return: its state afterwards
    """
    return work_on(path, _work)


def work_on(path: Path, work: Callable[[Path, dict[str, Any]], bool], read: Reader = read_record) -> str:
    """
    :param path: of a record
    :param work: does what it says and adds to it; returns False if it was interrupted
    :param read: reads a record of its kind
    :return: the record's state afterwards, as it is written
    """
    with FileLock(path.with_suffix(".lock")):  # a process of a benchmark that was killed may be at its last update
        record = read(path)
        if record["state"] == DONE:
            return DONE
        record |= {"state": RUNNING, "error": None}
        write_json(path, record)
        try:
            record["state"] = DONE if work(path, record) else INTERRUPTED
        except KeyboardInterrupt:
            record["state"] = INTERRUPTED
        except Exception:
            text = traceback.format_exc()
            print(text, file=sys.stderr, flush=True)
            record |= {"state": FAILED, "error": last_lines(text)}
        record["ended"] = _now()
        write_json(path, record)
    if record["state"] == DONE:
        path.with_suffix(".lock").unlink(missing_ok=True)
    return record["state"]


def _work(path: Path, record: dict[str, Any]) -> bool:
    """Train and evaluate; False if it was interrupted."""
    folder, config = path.parent.parent, record["config"]
    data = find_dataset(config["dataset"], env=config.get("env"))
    run = run_to_go_on(folder, record, data)
    clock = Stopwatch(**record.get("clock", {})) if run is not None else Stopwatch()
    updates = 0
    if run is not None:
        updates = load_agent(run.model_path, device="cpu").num_timesteps
        if record.get("attempt"):
            clock.add_killed(record["attempt"], run.model_path, updates)
    total = config["hyperparameters"]["n_timesteps"]
    record |= {"clock": clock.as_dict(), "attempt": time.time(), "pid": os.getpid(), "host": host()}
    record.setdefault("started", _now())
    write_json(path, record)
    if updates < total:
        cpu = time.process_time()
        evaluation = config["evaluation"]
        trained = train_as_recorded(
            folder,
            record,
            data,
            run,
            eval_freq=evaluation["freq"],
            eval_episodes=evaluation["episodes"],
            save_freq=evaluation["freq"],
            env_id=config.get("env"),
        )
        run = trained.run
        clock.add(trained, time.process_time() - cpu)
        record |= {"clock": clock.as_dict(), "attempt": None}
        write_json(path, record)
        if trained.signal is not None:
            return False
    assert run is not None
    record |= {"run": str(run.folder.relative_to(folder)), "data": data.summary(), "versions": versions()}
    record |= {"updates": total, **clock.summary(total), "curve": _curve(run, clock), "command": _command(config)}
    try:
        record |= _results(run, data, config, record["curve"])
    except NoEnvironment as error:
        record |= {"last": None, "best": None, "note": str(error)}
    for kept in run.folder.glob("rl_model_*_steps.zip"):
        kept.unlink()
    for name in ("clock", "attempt", "pid"):
        del record[name]
    return True


def run_to_go_on(folder: Path, record: dict[str, Any], data: OfflineDataset) -> Run | None:
    """The run that a job left when it was interrupted or killed; one without a checkpoint is deleted."""
    run = job_run(folder, record, data.fingerprint)
    if run is not None and not run.model_path.is_file():
        shutil.rmtree(run.folder)
        return None
    return run


def train_as_recorded(
    folder: Path, record: dict[str, Any], data: OfflineDataset, run: Run | None, **options: Any
) -> TrainedRun:
    """
    :param folder: of the runs
    :param record: of the job, whose ``config`` has algorithm, seed, device and resolved hyper-parameters
    :param data: to train on
    :param run: that goes on; None: a new one
    :param options: of :func:`~zoo.runs.learning.train`, ``save_freq`` among them
    """
    config = record["config"]
    hyperparameters = config["hyperparameters"]
    shared: dict[str, Any] = {
        "log_folder": folder,
        "log_interval": min(1000, options["save_freq"]),
        "device": config["device"],
        "progress": False,
        "arguments": {"benchmark": record["key"]},
        **options,
    }
    if run is not None:
        env_kwargs = hyperparameters.get("env_kwargs")  # the plan's, which the run's files are not trusted to repeat
        return train(config["algo"], data, trained_agent=run.model_path, env_kwargs=env_kwargs, **shared)
    with scratch_folder("job") as scratch:
        settings = scratch / "resolved.yml"
        write_yaml(settings, {"default": hyperparameters})
        return train(config["algo"], data, conf_file=settings, seed=config["seed"], **shared)


def _curve(run: Run, clock: Stopwatch) -> dict[str, Any] | None:
    """The evaluations on the way: updates, wall seconds, and the mean and standard deviation of the episodes' scores."""
    if not run.evaluations_path.is_file():
        return None
    unit, timesteps, values = scores_of(run)
    return {
        "unit": unit,
        "timesteps": timesteps.tolist(),
        "seconds": np.round(clock.at(timesteps), 1).tolist(),
        "mean": np.round(values.mean(axis=1), 4).tolist(),
        "std": np.round(values.std(axis=1), 4).tolist(),
    }


def _results(run: Run, data: OfflineDataset, config: dict[str, Any], curve: dict[str, Any] | None) -> dict[str, Any]:
    """
    The checkpoints ``last`` and ``best``, and the ``final`` score, the mean of the last checkpoints', all in the same
    episodes, which had no part in choosing any.
    """
    protocol, total = config["evaluation"], config["hyperparameters"]["n_timesteps"]
    make = env_factory(data, config.get("env"), config["hyperparameters"].get("env_kwargs"))
    wanted = _final_episodes(protocol, curve)

    def result_of(checkpoint: str) -> dict[str, Any]:
        model = load_agent(run.checkpoint(checkpoint), device=config["device"])
        found = evaluate(model, make, wanted, eval_seed=protocol["final_seed"], checkpoint=checkpoint)
        return {name: found[name] for name in _RESULT_KEYS} | {"returns": np.round(found["returns"], 2).tolist()}

    last, best = result_of("last"), result_of("best")
    names = [str(updates) for updates in late_checkpoints(total, protocol["freq"])[:-1]]
    late = [*(result_of(name) for name in names if run.has_checkpoint(name)), last]
    scores = [round(score(result), 4) for result in late]
    final = {"checkpoints": [result["gradient_steps"] for result in late], "scores": scores, "mean": float(np.mean(scores))}
    return {"last": last, "best": best, "final": final}


def _final_episodes(protocol: dict[str, Any], curve: dict[str, Any] | None) -> int | None:
    """Episodes of each checkpoint of a final score; None: as many as an evaluation has anyway."""
    least, error = protocol["final_episodes"], protocol.get("final_error")
    if curve is None or error is None:
        return least
    return max(least or 0, final_episodes(curve, protocol["episodes"], error))


def host() -> str:
    """Processor, threads and GPU of this process, as results tell them."""
    import torch

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = models[0] if models else processor
    devices = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([f"{processor}, {torch.get_num_threads()} threads", *devices])


def _command(config: dict[str, Any]) -> str:
    """How to do the same training by itself."""
    values = {"--algo": config["algo"], "--dataset": config["dataset"], "--seed": config["seed"], "--device": config["device"]}
    values |= {"--eval-freq": config["evaluation"]["freq"], "--eval-episodes": config["evaluation"]["episodes"]}
    values |= {"--env": config["env"]} if "env" in config else {}
    flags = [str(word) for pair in values.items() for word in pair]
    pairs = [f"{name}:{value}" for name, value in config["hyperparameters"].items()]
    return shlex.join(["python", "-m", "zoo", "train", *flags, "-params", *pairs])


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def is_stop(code: int | None) -> bool:
    """Whether a process that a signal ended in order has this exit code."""
    return code is not None and code > 128


def is_end(code: int | None, state: str) -> bool:
    """Whether a process that wrote this state ends with this exit code."""
    return is_stop(code) if state == INTERRUPTED else EXIT.get(state, -1) == code


def _end_with(parent: int) -> None:
    """Stop this process in order when its parent is no more."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def main(argv: Sequence[str] | None = None, run: Callable[[Path], str] = run_job) -> int:
    """
    :param argv: the record, and how many threads and how much courtesy
    :param run: does the job of a record
    :return: exit code, see :data:`EXIT`
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nice", type=int, default=0)
    args = parser.parse_args(argv)
    import torch

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os.nice(args.nice)
    torch.set_num_threads(args.threads)
    prefer_offscreen()
    try:
        with stoppable(child=True, to_the_end=argv is None) as stop:  # Ray's workers block the signals
            state = run(args.record)
    except Stopped as stopped:
        return stopped.code
    return EXIT[state] if stop.number is None or state != INTERRUPTED else 128 + stop.number


if __name__ == "__main__":
    sys.exit(main())
