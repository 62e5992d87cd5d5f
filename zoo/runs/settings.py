"""What a run writes down about itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import Logger, make_output_format

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data import OfflineDataset

from .folders import Run, run_number
from .provenance import command_line, versions
from .writing import write_yaml

_KEPT = ("dataset", "env", "env_kwargs", "eval_env_kwargs")
"""Options that hold when a run goes on and they are not given anew."""


def write_settings(
    run: Run,
    algo: str,
    model: AnyAlgorithm,
    data: OfflineDataset,
    used: Mapping[str, Any],
    env_name: str | None,
    arguments: Mapping[str, Any] | None,
) -> None:
    """
    Write ``config.yml`` and ``args.yml``, and add a line to ``command.txt``.

    :param used: hyper-parameters as plain data
    :param env_name: id of the environment of the evaluations, if there is one
    :param arguments: the command's
    """
    known = run.config() if (run.settings / "config.yml").exists() else {}
    config = {
        "algo": algo,
        "seed": model.seed,
        "dataset": data.summary(),
        "environment": env_name or known.get("environment"),
        "hyperparameters": dict(used),
        "versions": versions(),
    }
    write_yaml(run.settings / "config.yml", config)
    options = dict(arguments or {})
    kept = {name: value for name, value in run.arguments().items() if name in _KEPT and options.get(name) is None}
    write_yaml(run.settings / "args.yml", {**options, **kept})
    with (run.settings / "command.txt").open("a") as file:
        file.write(command_line() + "\n")


def make_logger(
    run: Run, resumed_from: str | None, tensorboard: str | Path | None, algo: str, verbose: int, progress: bool
) -> Logger:
    """
    ``progress.csv`` (``progress_from_<where>.csv`` of a resumed run), tables where they are wanted, tensorboard if asked for.

    :param resumed_from: where a resumed training goes on, as part of a file's name (None: a new training)
    :param tensorboard: root of the tensorboard logs
    :param verbose: see :func:`zoo.runs.learning.train`
    :param progress: whether a progress bar is shown
    """
    formats = [make_output_format("csv", str(run.folder), "" if resumed_from is None else f"_from_{resumed_from}")]
    if verbose > 1 or (verbose and not progress):
        formats.append(make_output_format("stdout", str(run.folder)))
    if tensorboard is not None:
        formats.append(make_output_format("tensorboard", str(Path(tensorboard) / run.name / f"{algo}_{run_number(run)}")))
    return Logger(str(run.folder), formats)
