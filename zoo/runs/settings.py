"""What a run writes down about itself, and what of it holds when it goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter, Logger, make_output_format

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short

from .folders import Run
from .provenance import command_line, versions
from .starting import Start
from .writing import append_line, write_yaml

REMEMBERED: dict[str, type] = {
    **dict.fromkeys(("dataset", "env", "tensorboard_log", "device"), str),
    **dict.fromkeys(("env_kwargs", "eval_env_kwargs"), list),
    **dict.fromkeys(("eval_freq", "eval_episodes", "n_eval_envs", "save_freq", "log_interval", "num_threads", "verbose"), int),
    **dict.fromkeys(("save_replay_buffer", "progress"), bool),
}
"""Options that a run keeps when it goes on, unless others are given, and their kinds."""
_SIZES, _LARGEST = ("eval_episodes", "n_eval_envs"), 10_000


def remembered(run: Run) -> dict[str, Any]:
    """
    The options that a run was started with, as far as they hold when it goes on. The file is not trusted: a new place to write
    to is left to the user, and the environment is built as :func:`zoo.runs.envs.env_of_run` has it.

    :param run: the run
    :return: by name, those that are there
    :raises UserError: if a value is of the wrong kind, or too large for what it is
    """
    arguments, file = run.arguments(), run.settings / "args.yml"
    known = {name: arguments[name] for name in REMEMBERED if arguments.get(name) is not None}
    for name, value in known.items():
        fits = type(value) is REMEMBERED[name]
        if isinstance(value, list):
            fits &= set(map(type, value)) == {str}
        if isinstance(value, int) and name in _SIZES:
            fits &= value <= _LARGEST
        if not fits:
            raise UserError(f"{file} has {name}={short(value)}, which is not an option of a training: give it again.")
    root = known.get("tensorboard_log")
    if root is not None and not _tensorboard_folder(root, run, str(run.config().get("algo"))).is_dir():
        del known["tensorboard_log"]
    return known


def write_settings(
    run: Run, begun: Start, data: OfflineDataset, total: int, env_name: str | None, arguments: Mapping[str, Any] | None
) -> None:
    """
    Write ``config.yml`` and ``args.yml``, and add a line to ``command.txt``. A run that goes on keeps what began it, and takes
    over the options that may change.

    :param begun: what training starts from
    :param total: updates in all
    :param env_name: id of the environment of the evaluations, if there is one
    :param arguments: the command's
    """
    known = run.config() if begun.goes_on else {}
    config = {
        "algo": begun.model.name,
        "seed": begun.model.seed,
        "dataset": data.summary(),
        "environment": env_name or known.get("environment"),
        "hyperparameters": {**begun.plain, "n_timesteps": total},
        "versions": versions(),
        "origin": known.get("origin") if begun.goes_on else begun.origin and str(begun.origin),
    }
    options = dict(arguments or {})
    if begun.goes_on:
        anew = {name: options[name] for name in (*REMEMBERED, "n_timesteps") if options.get(name) is not None}
        options = {**run.arguments(), **anew}
    write_yaml(run.settings / "config.yml", config)
    write_yaml(run.settings / "args.yml", options)
    append_line(run.settings / "command.txt", command_line())
    (run.settings / "summary.json").unlink(missing_ok=True)  # of a training that had ended


def _tensorboard_folder(root: str | Path, run: Run, algo: str) -> Path:
    return Path(root) / run.name / f"{algo}_{run.folder.name.removeprefix(f'{run.name}_').partition('_')[0]}"


def make_logger(
    run: Run,
    resumed_from: str | None,
    tensorboard: str | Path | None,
    algo: str,
    verbose: int,
    progress: bool,
    *trackers: KVWriter,
) -> Logger:
    """
    ``progress.csv`` (``progress_from_<where>.csv`` of a resumed run), tables where they are wanted, tensorboard if asked for.

    :param resumed_from: where a resumed training goes on, as part of a file's name (None: a new training)
    :param tensorboard: root of the tensorboard logs
    :param verbose: see :func:`zoo.runs.learning.train`
    :param progress: whether a progress bar is shown
    :param trackers: further formats
    """
    formats: list[KVWriter] = [
        make_output_format("csv", str(run.folder), "" if resumed_from is None else f"_from_{resumed_from}")
    ]
    if verbose > 1 or (verbose and not progress):
        formats.append(make_output_format("stdout", str(run.folder)))
    if tensorboard is not None:
        formats.append(make_output_format("tensorboard", str(_tensorboard_folder(tensorboard, run, algo))))
    return Logger(str(run.folder), [*formats, *trackers])
