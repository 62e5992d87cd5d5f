"""Run trials, several at a time, each a job of its own; tell Optuna what they scored, and end those that fall behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmark import runner
from ..benchmark.records import DONE, FAILED, INTERRUPTED, new_record, open_record, record_path
from ..benchmark.runner import Process, Starter, alone, ended_record, stop_all
from ..runs.places import output_folder
from ..runs.writing import write_json
from .plan import TunePlan
from .study import JOURNAL, load_optuna, open_study, sampler
from .trials import PRUNED, read_trial, sentence

if TYPE_CHECKING:
    import optuna


@dataclass
class _Work:
    """
    A trial that has not ended.

    :param trial: of Optuna
    :param settings: values that it tries
    :param path: of the record of its job, which trials of the same settings share
    :param updates: of its training
    :param reported: scores that Optuna knows
    :param behind: it is to be ended
    :param known: its value in the journal, if it has ended and its record was lost
    """

    trial: optuna.Trial
    settings: dict[str, Any]
    path: Path
    updates: int
    reported: int = 0
    behind: bool = False
    known: float | None = None


@dataclass(frozen=True)
class Ended:
    """
    A trial that has ended.

    :param number: of it
    :param settings: values that it tried
    :param state: of its job, or ``pruned``
    :param record: of its job
    """

    number: int
    settings: dict[str, Any]
    state: str
    record: dict[str, Any]


class Tuner:
    """
    :param plan: of the search
    :param folder: of the journal, the records (``jobs/``) and the runs
    :param n_trials: in all, those of earlier calls included; fewer if that is all there is to try
    :param prune: end trials whose score is worse than the median of the earlier ones' at the same updates
    :param say: takes what a person should know
    """

    def __init__(
        self, plan: TunePlan, folder: str | Path, n_trials: int, prune: bool = True, say: Callable[[str], None] = print
    ) -> None:
        self.say = say
        self.plan, self.folder, self.n_trials, self.prune = plan, Path(folder), n_trials, prune
        self.study: optuna.Study
        self.processes: dict[Path, Process] = {}
        self.left_over = 0
        """Trials that were interrupted from outside, which the next call goes on with."""

    def run(self, start: Starter, jobs: int) -> Generator[Ended | None]:
        """
        Run trials until there are enough. Yields those that end, and None twice a second. Closed or interrupted in between, it
        asks the jobs at work to save and end, and waits for them; the next call goes on with them.

        :param start: starts the job of a record
        :param jobs: how many work at a time
        :raises UserError: if another process runs trials in this folder, or its study is of another plan
        """
        load_optuna()
        output_folder(str(self.folder))
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder):
            self.study = open_study(self.folder, self.plan, self.prune)
            self._tell_strangers()
            waiting, working = [*self._lost(), *self._unfinished()], list[_Work]()
            try:
                while True:
                    for work in [*working]:
                        ended = self._look(work, start, jobs)
                        if ended is not None:
                            working.remove(work)
                            if ended.state != INTERRUPTED:
                                yield ended
                    while len(working) < jobs:
                        begun = waiting.pop(0) if waiting else self._ask()
                        if begun is None:
                            break
                        working.append(begun)
                    if not working:
                        return
                    yield None
                    time.sleep(runner.POLL_SECONDS)
            finally:
                stop_all(self.processes)

    def _unfinished(self) -> list[_Work]:
        """Trials that an earlier call began."""
        optuna = load_optuna()
        found = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        return [self._work(optuna.Trial(self.study, trial._trial_id), len(trial.intermediate_values)) for trial in found]

    def _lost(self) -> list[_Work]:
        """Trials that have a value in the journal and no record of it, which are done again."""
        optuna, found = load_optuna(), list[_Work]()
        for trial in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
            job = self.plan.job(self.plan.space.settings(trial.params))
            path, value = record_path(self.folder, job), float(trial.value or 0.0)
            is_there = path.is_file()
            record = open_record(self.folder, job, read_trial)
            if record["state"] == DONE:
                self._compare(trial.number, path, float(record["scores"][-1]["value"]), value)
                continue
            what = f"is {record['state']}" if is_there else "is missing"
            if record["state"] == FAILED:
                write_json(path, new_record(job))
            self.say(f"trial {trial.number} has the value {value:.4g}, but its record {path} {what}: it is done again")
            values = self.plan.space.values(trial.params)
            found.append(_Work(optuna.Trial(self.study, trial._trial_id), values, path, job.updates, job.updates, known=value))
        return found

    def _compare(self, number: int, path: Path, found: float, known: float) -> None:
        if not np.isclose(found, known, rtol=1e-3, atol=1e-6):
            self.say(
                f"trial {number} has the value {known:.4g} in {JOURNAL}, but {found:.4g} in its record {path}, which counts"
            )

    def _tell_strangers(self) -> None:
        """Records that no trial has: the journal was moved away, or has lost its end."""
        trials = [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if self.plan.space.parameters.keys() <= trial.params.keys()
        ]
        ours = {record_path(self.folder, self.plan.job(self.plan.space.settings(trial.params))) for trial in trials}
        strangers = [path for path in sorted((self.folder / "jobs").glob("*.json")) if path not in ours]
        if strangers:
            self.say(
                f"{len(strangers)} records belong to no trial of {JOURNAL}, {strangers[0]} first: they count once one does"
            )

    def _ask(self) -> _Work | None:
        """A new trial; None if there are enough, or every setting has been tried."""
        trials = self.study.get_trials(deepcopy=False)
        begun = [trial for trial in trials if trial.state.name != "WAITING"]
        if len(begun) >= self.n_trials:
            return None
        grid, seed = self.plan.space.grid(), [self.plan.wish.seed, len(begun)]
        if grid is not None and len(begun) == len(trials):
            untried = [point for point in grid if point not in [trial.params for trial in begun]]
            if not untried:
                return None
            self.study.enqueue_trial(untried[np.random.default_rng(seed).integers(len(untried))])
        self.study.sampler = sampler(seed)
        return self._work(self.study.ask())

    def _work(self, trial: optuna.Trial, reported: int = 0) -> _Work:
        parameters = self.plan.space.suggest(trial)
        job = self.plan.job(self.plan.space.settings(parameters))
        open_record(self.folder, job, read_trial)
        return _Work(trial, self.plan.space.values(parameters), record_path(self.folder, job), job.updates, reported)

    def _look(self, work: _Work, start: Starter, jobs: int) -> Ended | None:
        """Start a trial's job if need be, tell Optuna its new scores, and return it once it has ended."""
        process = self.processes.get(work.path)
        code = None if process is None else process.poll()
        if process is not None and code is not None:
            del self.processes[work.path]
            record = ended_record(work.path, code, read_trial)
        else:
            record = read_trial(work.path)
        scores = record["scores"]
        for score in scores[work.reported :]:
            work.trial.report(float(score["value"]), score["updates"])
        work.reported = max(work.reported, len(scores))
        if record["state"] in (DONE, FAILED) and code is None and process is not None:
            return None  # at its last line
        if record["state"] == DONE:
            if work.known is not None:
                self._compare(work.trial.number, work.path, float(scores[-1]["value"]), work.known)
            return self._tell(work, DONE, record, float(scores[-1]["value"]))
        if record["state"] == FAILED:
            return self._tell(work, FAILED, record)
        at_its_end = work.known is not None or (scores and scores[-1]["updates"] >= work.updates)
        work.behind |= (record.get(PRUNED) is True and work.known is None) or bool(
            scores and not at_its_end and work.trial.should_prune()
        )
        if process is None or code is not None:
            if work.behind:
                write_json(work.path, record | {PRUNED: True})
                return self._tell(work, PRUNED, record)
            if code is not None:
                self.left_over += 1
                return Ended(work.trial.number, work.settings, INTERRUPTED, record)
            if len(self.processes) < jobs:
                self.processes[work.path] = start(work.path)
        elif work.behind:
            process.stop()
        return None

    def _tell(self, work: _Work, state: str, record: dict[str, Any], value: float | None = None) -> Ended:
        states = load_optuna().trial.TrialState
        if work.known is not None:
            return Ended(work.trial.number, work.settings, state, record)
        if state == FAILED:
            work.trial.set_user_attr("error", sentence(record.get("error")))
        told = {DONE: states.COMPLETE, FAILED: states.FAIL, PRUNED: states.PRUNED}[state]
        self.study.tell(work.trial, value, state=told, skip_if_finished=True)
        return Ended(work.trial.number, work.settings, state, record)
