"""What a training starts from: a new agent, a run that goes on, or a checkpoint that a run of its own branches off from."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sb3_genoffline.common.arguments import Argument, Count
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.errors import UserError
from sb3_genoffline.registry import ALGOS, load_agent

from .folders import Run, held, list_runs, run_of
from .hyperparameters import load_hyperparameters, make_hyperparameters

_TRACKING = ("track", "wandb_project_name", "wandb_entity", "wandb_tags")
_BESIDE_THE_POINT = ("log_folder", "resume", "verbose", "progress", "trust_env", *_TRACKING)
"""Options that make no other run of a command."""


@dataclass(frozen=True)
class Wish:
    """What is asked of a training; see :func:`zoo.runs.learning.train`."""

    algo: str | None
    name: str
    n_timesteps: int | None
    profile: str | None
    hyperparameters: Mapping[str, Any] | None
    conf_file: str | Path | None
    trained_agent: str | Path | None
    log_folder: str | Path
    seed: int
    device: str
    resume: bool
    arguments: Mapping[str, Any] | None


@dataclass(frozen=True)
class Start:
    """
    An agent before training.

    :param model: the agent
    :param n_timesteps: updates in all, those done included
    :param plain: hyper-parameters as plain data
    :param env_kwargs: arguments of the evaluation environment that the user gave; a run's files have those of its training
    :param entry: of the hyper-parameter file, of a new agent
    :param run: whose folder is gone on in; None: a new one
    :param origin: checkpoint that is gone on from; None: a new agent
    """

    model: AnyAlgorithm
    n_timesteps: int
    plain: dict[str, Any]
    env_kwargs: dict[str, Any]
    entry: str | None = None
    run: Run | None = None
    origin: Path | None = None

    @property
    def goes_on(self) -> bool:
        """Whether it is the last state of the run, so that the run goes on from where it was."""
        ours = self.run is not None and self.origin is not None
        return ours and _same(self.origin, self.run.model_path)  # type: ignore[arg-type, union-attr]


def start(wish: Wish, data: OfflineDataset, stack: ExitStack) -> Start:
    """
    A run goes on in its folder only from its last state, on its data, with its hyper-parameters. From any other checkpoint, or
    with anything changed, a run of its own branches off. With ``resume``, an unfinished run of the same request goes on.

    :param wish: what is asked for
    :param data: to train on
    :param stack: holds the lock of the run that goes on
    :raises UserError: for bad hyper-parameters, an agent that has done its updates or is of another algorithm, or a run that
        another process is training
    """
    if wish.trained_agent is None:
        return _new(wish, data, stack)
    if wish.profile is not None or wish.conf_file is not None:
        raise UserError("An agent that is resumed has its hyper-parameters: leave out --profile and --conf-file.")
    path = Path(wish.trained_agent)
    run = run_of(path)
    if run is not None and _is_the_run_itself(run, path, wish, data):
        stack.enter_context(held(run))  # before its last state is read
        return _resumed(path, wish, run, run)
    branch = _resumed(path, wish, run, None)
    settings = {**branch.plain, "n_timesteps": branch.n_timesteps}
    unfinished = _unfinished_run(wish, branch.model.name, settings, data, stack)
    if unfinished is None:
        return branch
    if unfinished.model_path.is_file():
        return _resumed(unfinished.model_path, wish, unfinished, unfinished)
    return Start(branch.model, branch.n_timesteps, branch.plain, branch.env_kwargs, None, unfinished, path)


def _is_the_run_itself(run: Run, path: Path, wish: Wish, data: OfflineDataset) -> bool:
    is_last = _same(path, run.model_path)
    return is_last and not wish.hyperparameters and _fingerprint(run.config()) == data.fingerprint


def _same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _fingerprint(config: Mapping[str, Any]) -> Any:
    """Of the data that a run was trained on."""
    return config["dataset"].get("fingerprint")


def _new(wish: Wish, data: OfflineDataset, stack: ExitStack) -> Start:
    assert wish.algo is not None
    settings = load_hyperparameters(wish.algo, wish.name, wish.profile, wish.hyperparameters, wish.conf_file)
    total = wish.n_timesteps or settings.n_timesteps
    run = _unfinished_run(wish, wish.algo, {**settings.plain, "n_timesteps": total}, data, stack)
    if run is not None and run.model_path.is_file():
        return replace(_resumed(run.model_path, wish, run, run), env_kwargs=settings.env_kwargs)
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if wish.seed < 0 else wish.seed
    common: dict[str, Any] = {"seed": seed, "device": wish.device}
    model = ALGOS[wish.algo](settings.policy, data, **settings.arguments, **common)
    return Start(model, total, settings.plain, settings.env_kwargs, settings.entry, run)


def _resumed(path: Path, wish: Wish, known: Run | None, run: Run | None) -> Start:
    """
    :param path: of the checkpoint
    :param known: the run that it lies in
    :param run: the run that goes on
    """
    model = load_agent(path, device=wish.device)
    if wish.algo not in (None, model.name):
        raise UserError(f"{path} is an agent of {model.name}, not of {wish.algo}: leave out --algo, or give another agent.")
    if wish.seed >= 0 and wish.seed != model.seed:
        raise UserError(f"{path} has the seed {model.seed}, which an agent keeps when it resumes: leave out --seed.")
    plain: dict[str, Any] = {} if known is None else known.config()["hyperparameters"]
    if wish.hyperparameters and path == Path(wish.trained_agent or ""):
        changes = make_hyperparameters(type(model), wish.hyperparameters)
        model = load_agent(path, device=wish.device, **changes.arguments)
        plain = {**plain, **{name: changes.plain[name] for name in wish.hyperparameters}}
    total = wish.n_timesteps or Argument("n_timesteps", Count, 0).check(plain.get("n_timesteps", model._total_timesteps))
    at_its_end = run is not None and run.unfinished  # stopped in its last evaluation, say
    if total < model.num_timesteps + (not at_its_end):
        raise UserError(
            f"{path} has done {model.num_timesteps} updates already; -n is their number in all: name more than that."
        )
    return Start(model, total, plain, {}, None, run, path)


def _unfinished_run(wish: Wish, algo: str, plain: dict[str, Any], data: OfflineDataset, stack: ExitStack) -> Run | None:
    """
    The latest unfinished run that the same request began, which nobody is at work on; its lock is held by ``stack``.

    :param plain: hyper-parameters that such a run has
    """
    if not wish.resume:
        return None
    settings, options = _as_written(plain), _options(wish.arguments or {})
    for run in reversed(list_runs(wish.log_folder, algo, wish.name)):
        try:
            if not run.unfinished or _options(run.arguments()) != options:
                continue
            config = run.config()
        except UserError:  # just begun, or damaged
            continue
        if config["hyperparameters"] != settings or _fingerprint(config) != data.fingerprint:
            continue
        with ExitStack() as own:
            try:
                own.enter_context(held(run))
            except UserError:
                continue
            if run.unfinished:
                stack.push(own.pop_all())
                return run
    return None


def _options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in _as_written(arguments).items() if name not in _BESIDE_THE_POINT}


def _as_written(content: Mapping[str, Any]) -> dict[str, Any]:
    """As a run's YAML gives it back."""
    return dict(yaml.safe_load(yaml.safe_dump(dict(content))))
