"""Optuna's memory of a search, in a journal: lines of JSON that are only ever added to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_genoffline.errors import MissingPackageError, UserError
from sb3_genoffline.files.untrusted import short

from .objectives import OBJECTIVES
from .plan import TunePlan, difference

if TYPE_CHECKING:
    import optuna

JOURNAL = "journal.log"
_NAME, _PLAN = "tune", "plan"
_LARGEST_JOURNAL = 2**28


def load_optuna() -> Any:
    """
    :return: the module
    :raises MissingPackageError: if it is not installed
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingPackageError("tune needs Optuna: pip install 'sb3-genoffline[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(folder: Path, plan: TunePlan, prune: bool = True) -> optuna.Study:
    """
    The study in a folder, made if there is none. Nobody else may write to it, which the folder's lock sees to.

    :param folder: of the search
    :param plan: of the search
    :param prune: whether trials that fall behind are ended
    :raises UserError: if the folder's study is of another plan, or its journal is none
    """
    optuna = load_optuna()
    path = folder / JOURNAL
    described = json.loads(json.dumps(plan.described))
    direction = "maximize" if OBJECTIVES[plan.evaluation["objective"]].largest else "minimize"
    pruner = optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner()
    _cut_torn_line(path)
    try:
        backend = optuna.storages.journal.JournalFileBackend(str(path), lock_obj=_NoLock())
        storage = optuna.storages.JournalStorage(backend)
        study = optuna.create_study(storage=storage, study_name=_NAME, direction=direction, pruner=pruner, load_if_exists=True)
        if not study.get_trials(deepcopy=False) and _PLAN not in study.user_attrs:
            study.set_user_attr(_PLAN, described)
            if plan.starting_point is not None:
                study.enqueue_trial(plan.starting_point)
        known = study.user_attrs.get(_PLAN)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever Optuna makes of lines that it has not written
        raise UserError(
            f"{path} is not the journal of a search ({type(error).__name__}: {short(str(error))}): move it away."
        ) from error
    found = difference(described, known)
    if found is not None:
        raise UserError(f"{folder} holds a search of another plan: {found}. Use another folder (-f), or move it away.")
    return study


class _NoLock:
    """The folder's lock is held; Optuna's own would outlive a process that is killed."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _cut_torn_line(path: Path) -> None:
    """What a process that was killed wrote half of would spoil the next line."""
    if not path.is_file():
        return
    if path.is_symlink() or path.stat().st_size > _LARGEST_JOURNAL:
        raise UserError(f"{path} is a link or has more than {_LARGEST_JOURNAL:,} bytes, as no journal has: move it away.")
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def sampler(seed: list[int]) -> Any:
    """
    :param seed: of the search, and the number of the trial that is asked for, so that a search that was stopped goes on as one
        that was not
    """
    return load_optuna().samplers.TPESampler(seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))
