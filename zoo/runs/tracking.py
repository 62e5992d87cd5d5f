"""
Telling Weights & Biases or MLflow of a run, where that is asked for, by what they have for SB3: numbers go through an output
format of SB3's logger, and W&B's callback adds what it asks of a model.
"""

import importlib
import os
import re
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter

from sb3_genoffline.errors import MissingPackageError, UserError
from sb3_genoffline.files.untrusted import short

from .extras import installing
from .folders import Run
from .reading import read_json
from .writing import write_json

Service = Literal["wandb", "mlflow"]
Numbers = Mapping[str, float]
_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
_DEFAULTS = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""
Unless the user has said otherwise, the packages tell their makers nothing of their own accord, and MLflow does not try for
minutes to reach a server that is not there.
"""


@dataclass(frozen=True)
class Tracking:
    """
    Where a run is told of.

    :param service: ``"wandb"`` or ``"mlflow"``, whose package has to be installed
    :param project: W&B's project; MLflow's experiment, unless ``MLFLOW_EXPERIMENT_NAME`` names one
    :param entity: W&B's user or team (None: the account's own)
    :param tags: of the run
    :raises MissingPackageError: if the package is not installed
    """

    service: Service = "wandb"
    project: str = "sb3-genoffline"
    entity: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _package(self.service)


class Tracker(KVWriter):
    """
    Hands the numbers that SB3's logger dumps to a service. What it does not take is lost there, and ends no training.

    :param service: key in the ``exclude`` of what is not for it
    :param send: hands over numbers by name, and the step that they are of
    :param callbacks: what else the training has to call
    """

    def __init__(self, service: Service, send: Callable[[Numbers, int], None], callbacks: Sequence[BaseCallback] = ()) -> None:
        self.service = service
        self.callbacks = list(callbacks)
        self._send: Callable[[Numbers, int], None] | None = send

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """
        :param key_values: what was recorded, by name; what is no number is left out
        :param key_excluded: by name, the formats that it is not for
        :param step: update, or step of a fit
        """
        if self._send is None:
            return
        numbers = {
            key: float(value)
            for key, value in key_values.items()
            if isinstance(value, int | float | np.number) and self.service not in key_excluded[key]
        }
        try:
            self._send(numbers, step)
        except Exception as error:
            self._send = None
            warnings.warn(f"{self.service} is told no more of this run, which goes on: {error}", stacklevel=2)

    def close(self) -> None:
        """Nothing: :func:`tracked` ends what it has begun."""


@contextmanager
def tracked(tracking: Tracking, run: Run, verbose: int = 1) -> Iterator[Tracker]:
    """
    A run is tracked within. One that goes on is the same run there: its id is in the run's ``tracking.json``.

    :param tracking: where
    :param run: with its config written
    :param verbose: 0: print nothing
    :raises UserError: if the service refuses, or does not know the run that goes on
    """
    file = run.settings / "tracking.json"
    known = read_json(file, "list of where a run is tracked") if file.is_file() else {}
    before = known.get(tracking.service)
    if before is not None and not (isinstance(before, str) and _ID.fullmatch(before)):
        raise UserError(f"{file} has {tracking.service}: {short(before)}, which is no id of a run: delete the file.")
    begin = {"wandb": _wandb_run, "mlflow": _mlflow_run}[tracking.service]
    package = _package(tracking.service)
    try:
        begun = begin(package, tracking, run, before, verbose)
    except Exception as error:
        where = "" if before is None else f" (it goes on with the run {before} of {file})"
        raise UserError(f"{tracking.service} can't be told of {run.folder}{where}: {error}") from error
    try:
        write_json(file, {**known, tracking.service: begun.id})
        yield Tracker(tracking.service, begun.send, begun.callbacks)
    except BaseException:
        with suppress(Exception):
            begun.end(False)
        raise
    with suppress(Exception):
        begun.end(True)


@dataclass(frozen=True)
class _Begun:
    """A run at a service: ``send`` hands over numbers and their step, ``end`` ends it, with whether all went well."""

    id: str
    send: Callable[[Numbers, int], None]
    end: Callable[[bool], None]
    callbacks: list[BaseCallback] = field(default_factory=list)


def _wandb_run(wandb: Any, tracking: Tracking, run: Run, before: str | None, verbose: int) -> _Begun:
    another = wandb.run is not None  # the caller's stays as it is; W&B's callback would write into it
    live = wandb.init(
        project=tracking.project,
        entity=tracking.entity,
        name=_name(run),
        tags=list(tracking.tags),
        config=run.config(),
        dir=str(run.folder),
        id=before or uuid.uuid4().hex,
        resume="allow",
        reinit="create_new" if another else None,
        settings=wandb.Settings(console="off", silent=verbose == 0),
    )
    # fits count steps of their own, and W&B's never go back: each key is drawn over this one
    live.define_metric("*", step_metric="global_step")
    return _Begun(
        live.id,
        send=lambda numbers, step: live.log({**numbers, "global_step": step}),
        end=lambda well: live.finish(exit_code=0 if well else 1),
        callbacks=[] if another else [importlib.import_module("wandb.integration.sb3").WandbCallback()],
    )


def _mlflow_run(mlflow: Any, tracking: Tracking, run: Run, before: str | None, verbose: int) -> _Begun:
    entities, client = importlib.import_module("mlflow.entities"), mlflow.MlflowClient()
    if before is None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", tracking.project)
        created = client.create_run(_experiment(client, name), run_name=_name(run), tags=dict.fromkeys(tracking.tags, "true"))
        id_, config = created.info.run_id, run.config()
        settings = {"algo": config["algo"], "seed": config["seed"], "dataset": config["dataset"].get("id")}
        params = {**settings, **config["hyperparameters"]}
        try:
            client.log_batch(id_, params=[entities.Param(key, str(value)[:500]) for key, value in params.items()])
        except BaseException:
            with suppress(Exception):
                client.set_terminated(id_, "FAILED")
            raise
    else:
        id_ = before
        client.update_run(id_, status="RUNNING")

    def send(numbers: Numbers, step: int) -> None:
        now = int(time.time() * 1000)
        client.log_batch(id_, metrics=[entities.Metric(key, value, now, step) for key, value in numbers.items()])

    return _Begun(id_, send, end=lambda well: client.set_terminated(id_, "FINISHED" if well else "FAILED"))


def _experiment(client: Any, name: str) -> str:
    """The id of MLflow's experiment, made if there is none."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except Exception:  # another training may have made it meanwhile
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _name(run: Run) -> str:
    """``dac/hopper-medium-v0_1``"""
    return f"{run.folder.parent.name}/{run.folder.name}"


def _package(service: Service) -> ModuleType:
    """The package of a service."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        package = importlib.import_module(service)
        if package.__file__ is None:  # a folder of this name, with what the package has written, passes for a module
            raise ImportError(f"No module named {service!r}")
    except Exception as error:  # one that does not fit the other packages fails in any way
        raise MissingPackageError(f"--track {service} needs its package ({error}): {installing(service)}") from error
    return package
