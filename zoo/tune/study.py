"""Optuna's memory of a search, in a journal: lines of JSON that are only ever added to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_genoffline.errors import MissingPackageError, UserError
from sb3_genoffline.files.untrusted import short

from ..runs.extras import installing
from .objectives import OBJECTIVES
from .plan import TunePlan, difference

if TYPE_CHECKING:
    import optuna

JOURNAL = "journal.log"
_NAME, _PLAN = "tune", "plan"
_LARGEST_JOURNAL = 2**28
_FIRST_BYTES, _CREATE_TRIAL = b'{"op_code":0,"worker_id":', 4
_ANEW = ": move it away, and the same command begins anew with what jobs/ knows already."


def load_optuna() -> Any:
    """
    :return: the module
    :raises MissingPackageError: if it is not installed
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingPackageError(f"tune needs Optuna: {installing('tune')}") from error
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
            f"{path} is not the journal of a search ({type(error).__name__}: {short(str(error))}){_ANEW}"
        ) from error
    if known is None:
        raise UserError(f"{path} has lost the line with the plan of its search{_ANEW}")
    found = difference(described, known)
    if found is not None:
        raise UserError(f"{folder} holds a search of another plan: {found}. Use another folder (-f), or move it away.")
    _check_trials(path, study, plan)
    return study


class _NoLock:
    """The folder's lock is held; Optuna's own would outlive a process that is killed."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _cut_torn_line(path: Path) -> None:
    """
    What a process that was killed wrote half of would spoil the next line. Only a journal of ours is touched.

    :raises UserError: if the file is none, or has lost a line
    """
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST_JOURNAL:
        raise UserError(f"{path} is a link or has more than {_LARGEST_JOURNAL:,} bytes, as no journal has: move it away.")
    content = path.read_bytes()
    *lines, rest = content.split(b"\n")
    if not lines and not rest.startswith(_FIRST_BYTES) and rest:
        raise UserError(
            f"{path} is not the journal of a search (its first line is {short(rest.decode(errors='replace'))}){_ANEW}"
        )
    _check_lines(path, lines)
    if rest:
        os.truncate(path, len(content) - len(rest))


def _check_lines(path: Path, lines: list[bytes]) -> None:
    """Optuna passes over what a lost line was about."""
    trials = 0
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict) or (number == 1 and (line.get("op_code"), line.get("study_name")) != (0, _NAME)):
            raise UserError(
                f"{path} is not the journal of a search (line {number} is {short(text.decode(errors='replace'))}){_ANEW}"
            )
        trials += line.get("op_code") == _CREATE_TRIAL
        trial = line.get("trial_id")
        if isinstance(trial, int) and trial >= trials:
            raise UserError(
                f"{path} has lost a line: line {number} is about trial {trial}, which none before it begins{_ANEW}"
            )


def _check_trials(path: Path, study: optuna.Study, plan: TunePlan) -> None:
    """:raises UserError: if a trial lacks a parameter, as none of ours does once it has ended, or has one of another search"""
    known = plan.space.parameters
    for trial in study.get_trials(deepcopy=False):
        lost = [name for name in known if trial.state.is_finished() and name not in trial.params]
        strange = [name for name in trial.params if name not in known]
        if lost or strange:
            what = f"has ended without a value of {lost[0]}" if lost else f"has {short(strange[0])}, which is not searched"
            raise UserError(f"{path} is damaged: trial {trial.number} {what}{_ANEW}")


def sampler(seed: list[int]) -> Any:
    """
    :param seed: of the search, and the number of the trial that is asked for, so that a search that was stopped goes on as one
        that was not
    """
    return load_optuna().samplers.TPESampler(seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))
