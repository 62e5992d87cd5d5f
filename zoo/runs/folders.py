"""Where a run's files are: rl-zoo's layout, plain YAML and JSON."""

import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sb3_genoffline.common.arguments import nearest
from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.files.writing import write_errors
from sb3_genoffline.registry import ALGOS

from .reading import named_values, read_json, read_yaml

_LONGEST_NAME = 100  # bytes, of the 255 that a file's name may have
_NEEDED = ("algo", "dataset", "hyperparameters")


def dataset_name(source: Any) -> str:
    """
    ``mujoco/hopper/medium-v0`` -> ``mujoco-hopper-medium-v0``; the stem of a file's name; as folders are named. Of a very long
    one the start, and a hash.
    """
    text = str(source)
    if text.endswith((".hdf5", ".h5", ".npz", ".pkl")):
        text = Path(text).stem
    name = re.sub(r"[^\w.-]+", "-", text).strip("-.") or "dataset"
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    start = name.encode()[: _LONGEST_NAME - 10].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Run:
    """
    One training: ``{log folder}/{algo}/{dataset}_{number}``.

    :param folder: that folder
    :param name: ``{dataset}``: the final agent is ``{name}.zip``, the settings are in the folder ``{name}``
    """

    folder: Path
    name: str

    @property
    def model_path(self) -> Path:
        """The agent as it was at the end (or when training was interrupted)."""
        return self.folder / f"{self.name}.zip"

    @property
    def settings(self) -> Path:
        """Folder of ``config.yml``, ``args.yml`` and ``command.txt``."""
        return self.folder / self.name

    @property
    def evaluations_path(self) -> Path:
        """``evaluations.npz``: timesteps, results, ep_lengths."""
        return self.folder / "evaluations.npz"

    def config(self) -> dict[str, Any]:
        """
        What ``config.yml`` holds.

        :raises NotFoundError: if there is none
        :raises UserError: if it is damaged
        """
        path = self.settings / "config.yml"
        if not path.is_file():
            raise NotFoundError(f"{self.folder} is not a run of the zoo: there is no {path}.")
        content = read_yaml(path, "config of a run")
        missing = [name for name in _NEEDED if name not in content]
        if missing:
            raise UserError(f"{path} is not the config of a run: it has no {missing[0]}.")
        parts = {name: named_values(content.get(name), f"{path}, {name},") for name in (*_NEEDED[1:], "versions")}
        return {"seed": None, "environment": None, **content, **parts}

    def arguments(self) -> dict[str, Any]:
        """What ``args.yml`` holds: the arguments of the command that began the run."""
        path = self.settings / "args.yml"
        return read_yaml(path, "list of a run's arguments") if path.is_file() else {}

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds: how training ended; empty if it is under way or was killed."""
        path = self.settings / "summary.json"
        return read_json(path, "summary of a run") if path.is_file() else {}

    @property
    def unfinished(self) -> bool:
        """Whether training was interrupted or killed. (One that diverged would do so again.)"""
        summary = self.summary()
        return not summary.get("finished") and "error" not in summary

    def _path_of(self, which: str | int) -> Path:
        names = {"last": self.model_path.name, "best": "best_model.zip"}
        return self.folder / names.get(str(which), f"rl_model_{which}_steps.zip")

    def has_checkpoint(self, which: str | int) -> bool:
        """:param which: see :meth:`checkpoint`"""
        return self._path_of(which).is_file()

    def checkpoint(self, which: str | int = "last") -> Path:
        """
        :param which: ``"last"``, ``"best"``, or a number of gradient steps
        :raises NotFoundError: naming what there is
        """
        path = self._path_of(which)
        if not path.is_file():
            there = ", ".join(sorted(file.name for file in self.folder.glob("*.zip"))) or "no checkpoint"
            siblings = sorted(run for run in self.folder.parent.iterdir() if (run / self.settings.name).is_dir())
            others = ", ".join(run.name for run in siblings if (run / path.name).is_file())
            also = f" Other runs on these data have it: {others} (--exp-id)." if others else ""
            raise NotFoundError(f"There is no {path.name} in {self.folder}; there is: {there}.{also}")
        return path


def new_run(log_folder: str | Path, algo: str, dataset: Any, unique: bool = False) -> Run:
    """
    Make the folder of a new run, numbered after those that exist; safe beside another process doing the same.

    :param log_folder: root of the logs
    :param algo: name in ``ALGOS``
    :param dataset: id or file
    :param unique: append a uuid to the folder's name
    """
    parent, name = Path(log_folder) / algo, dataset_name(dataset)
    with write_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        number = max((run_number(run) for run in list_runs(log_folder, algo, dataset)), default=0) + 1
        while True:
            folder = parent / (f"{name}_{number}" + (f"_{uuid.uuid4()}" if unique else ""))
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
                continue
            run = Run(folder, name)
            run.settings.mkdir()
            return run


@contextmanager
def held(run: Run) -> Iterator[None]:
    """
    Nobody else trains in this run's folder during the block; a process that is dead holds nothing.

    :raises UserError: if another process trains there, or a file of the run is a link, through which others would choose what
        is written to
    """
    for path in (run.settings, *run.folder.glob("*"), *run.settings.glob("*")):
        if path.is_symlink():
            raise UserError(f"{path} is a link: a resumed run writes only into its own folder. Copy the file there.")
    lock = FileLock(run.settings / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"Another process is training in {run.folder}: wait for it or end it. From a kept checkpoint (--save-freq) "
            "a run of its own branches off at any time: -i rl_model_<updates>_steps.zip."
        ) from None
    try:
        yield
    finally:
        lock.release()


def run_number(run: Run) -> int:
    """The number in a run's folder name."""
    return int(run.folder.name.removeprefix(f"{run.name}_").partition("_")[0])


def list_runs(log_folder: str | Path, algo: str, dataset: Any) -> list[Run]:
    """All runs of an algorithm on a dataset, in the order of their numbers."""
    name = dataset_name(dataset)
    pattern = re.compile(re.escape(name) + r"_\d+(_[0-9a-f-]{36})?")
    folders = (folder for folder in (Path(log_folder) / algo).glob("*") if folder.is_dir())
    return sorted((Run(folder, name) for folder in folders if pattern.fullmatch(folder.name)), key=run_number)


def find_run(log_folder: str | Path, algo: str, dataset: Any, exp_id: int = 0) -> Run:
    """
    :param exp_id: number of the run; 0 is the latest
    :raises NotFoundError: naming the runs that there are
    :raises UserError: if there is no such algorithm
    """
    runs = list_runs(log_folder, algo, dataset)
    if exp_id == 0 and runs:
        return runs[-1]
    for run in runs:
        if run_number(run) == exp_id:
            return run
    if algo not in ALGOS:
        raise UserError(f"There is no algorithm {algo!r}{nearest(algo, ALGOS)} There are {', '.join(ALGOS)}.")
    here = Path(log_folder) / algo
    others = sorted(folder.name for folder in here.glob("*_*") if folder.is_dir())
    what = "no run" if exp_id == 0 else f"no run {exp_id}"
    near = "." if runs else nearest(dataset_name(dataset), others)
    raise NotFoundError(
        f"There is {what} of {algo} on {dataset} below {here}{near} Runs there: {', '.join(others) or 'none'}."
    )


def run_of(model_path: str | Path) -> Run | None:
    """The run that a checkpoint lies in, if it lies in one."""
    folder = Path(os.path.realpath(model_path)).parent
    for settings in sorted(folder.glob("*/config.yml")):
        try:
            config = read_yaml(settings, "config of a run")
        except UserError:
            continue
        if config.get("algo") in list(ALGOS):  # other programs have a config.yml too
            return Run(folder, settings.parent.name)
    return None
