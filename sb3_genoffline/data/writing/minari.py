"""Writing Minari datasets so that there is a whole one or none, whatever happens in between."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from sb3_genoffline.data.environments import make_from_spec
from sb3_genoffline.data.reading.minari import _ID, _root, open_minari
from sb3_genoffline.data.reading.minari_episodes import append_episodes
from sb3_genoffline.errors import ExistsError, UserError, printable

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

# In Minari's root, `.collecting-<id>.lock` is held while `.collecting-<id>` is filled; Minari skips hidden folders.
_PREFIX, _LOCK = ".collecting-", ".lock"


def write_minari(
    dataset_id: str,
    buffers: Iterable[EpisodeBuffer],
    *,
    env: str | EnvSpec | None = None,
    eval_env: str | EnvSpec | None = None,
    observation_space: spaces.Space[Any] | None = None,
    action_space: spaces.Space[Any] | None = None,
    overwrite: bool = False,
    **metadata: Any,
) -> MinariDataset:
    """
    Write episodes to a dataset in Minari's local root (``MINARI_DATASETS_PATH`` or ``~/.minari/datasets``).

    Episodes go to disk one by one, below a hidden folder that takes the dataset's place only when it is whole; a dataset that
    is replaced stays until then. What a killed process left is removed by the next call, for whichever id. While one process
    writes an id, another one that tries gets an error; where ``fcntl`` is missing (Windows), also after a kill, until the file
    that the error names is deleted.

    Unlike ``minari.create_dataset_from_buffers`` this makes no environment if both spaces are given, keeps reference scores
    without an environment, and never estimates any.

    :param dataset_id: ``(namespace/)*name-v<number>``; namespaces that do not exist are made.
    :param buffers: each a Minari ``EpisodeBuffer``, T + 1 observations for T steps; consumed once, one at a time.
    :param env: Environment the data come from, by id or spec.
    :param eval_env: Environment to evaluate in; readers fall back to ``env``.
    :param observation_space: Space of the observations; that of ``env`` if None.
    :param action_space: Space of the actions; that of ``env`` if None.
    :param overwrite: Replace a dataset of the same id.
    :param metadata: Whatever Minari's metadata should hold: ``author``, ``author_email``, ``description``, ``algorithm_name``,
        ``code_permalink``, ``requirements``, ``ref_min_score``, ``ref_max_score``, … None is left out.
    :return: The new dataset.
    :raises UserError: For a malformed id, no episode, or no space and no environment to take it from.
    :raises ExistsError: If there is such a dataset and ``overwrite`` is False, or another process is writing it.
    """
    from minari.dataset.minari_storage import MinariStorage

    if not _ID.fullmatch(dataset_id):
        raise UserError(
            f"{dataset_id!r} cannot be the id of a dataset; ids look like mujoco/hopper/medium-v0: namespaces of two or more "
            "characters, a name, and a version -v<number>."
        )
    env_spec, eval_env_spec = (gym.spec(e) if isinstance(e, str) else e for e in (env, eval_env))
    if observation_space is None or action_space is None:
        if env_spec is None:
            raise UserError(f"{dataset_id} needs an observation_space and an action_space, or an env that has them.")
        made = make_from_spec(env_spec)
        observation_space, action_space = observation_space or made.observation_space, action_space or made.action_space
        made.close()
    described = {key: value for key, value in metadata.items() if value is not None}
    described |= {"dataset_id": dataset_id, "minari_version": version("minari")}
    for key in {"author", "author_email"} & described.keys():
        described[key] = {described[key]} if isinstance(described[key], str) else set(described[key])
    for key, spec in (("env_spec", env_spec), ("eval_env_spec", eval_env_spec)):
        serialized = spec_json(spec)
        if serialized is not None:
            described[key] = serialized

    root = _root()
    target = root / dataset_id
    if not overwrite:
        _refuse_existing(dataset_id, target)
    _remove_leftovers(root)
    with _hidden_folder(root, dataset_id) as folder:
        if not overwrite:
            _refuse_existing(dataset_id, target)
        whole = folder / "whole"
        whole.mkdir()
        storage = MinariStorage.new(whole / "data", observation_space, action_space)
        storage.update_metadata(described)
        append_episodes(storage, buffers)
        if storage.total_steps == 0:
            raise UserError(f"{dataset_id} would be empty: no episode was given.")
        _make_namespace(dataset_id)
        _put(dataset_id, whole, target, folder / "replaced", overwrite)
    written: MinariDataset = open_minari(dataset_id)
    return written


def spec_json(spec: EnvSpec | None) -> str | None:
    """
    :param spec: Spec of an environment.
    :return: Its JSON, which ``EnvSpec.from_json`` reads; None if there is none or, with a warning, if it holds what JSON
        cannot (a function, an array).
    """
    if spec is None:
        return None
    try:
        return spec.to_json()
    except (TypeError, ValueError) as error:
        warnings.warn(
            f"The spec of the environment {printable(spec.id)} cannot be written ({printable(error)}), so the dataset is "
            "written without it. Give it when you load the data: load_dataset(..., env=<environment>).",
            stacklevel=3,
        )
        return None


def _refuse_existing(dataset_id: str, target: Path) -> None:
    if not target.exists():
        return
    try:
        steps = json.loads((target / "data" / "metadata.json").read_text())["total_steps"]
        what = f"The dataset {dataset_id} exists already, with {steps} steps, at {target}"
    except (OSError, ValueError, KeyError):
        what = f"There is something at {target} that is not a whole dataset"
    raise ExistsError(f"{what}; pass overwrite=True (--overwrite) to replace it.")


def _make_namespace(dataset_id: str) -> None:
    from minari.namespace import create_namespace, list_local_namespaces

    namespace = dataset_id.rpartition("/")[0]
    if namespace and namespace not in list_local_namespaces():
        with contextlib.suppress(ValueError):  # another process made it meanwhile
            create_namespace(namespace)


def _put(dataset_id: str, source: Path, target: Path, old: Path, overwrite: bool) -> None:
    """Move a finished dataset to its place; after an error there is a whole one: the old or the new."""
    if overwrite and target.exists():
        os.replace(target, old)
        try:
            os.replace(source, target)
        except BaseException:
            os.replace(old, target)
            raise
    else:
        try:
            os.replace(source, target)
        except OSError:
            _refuse_existing(dataset_id, target)  # something that takes no lock put one there meanwhile
            raise


@contextlib.contextmanager
def _hidden_folder(root: Path, dataset_id: str) -> Iterator[Path]:
    """An empty folder that nobody else writes to, removed at the end."""
    path = root / f"{_PREFIX}{quote(dataset_id, safe='')}{_LOCK}"
    lock = _acquire(path)
    if lock is None:
        raise ExistsError(
            f"The dataset {dataset_id} is being written by another process. Wait until it has ended, or end it"
            + (f"; if none is running, delete {path}." if fcntl is None else ".")
        )
    try:
        folder = _discard(path)
        folder.mkdir()
        yield folder
    finally:
        _release(path, lock)


def _remove_leftovers(root: Path) -> None:
    """Remove what killed processes left, where their locks tell that they are gone."""
    if fcntl is None:
        return
    for path in root.glob(f"{_PREFIX}*{_LOCK}"):
        lock = _acquire(path)
        if lock is not None:
            _release(path, lock)


def _acquire(path: Path) -> int | None:
    """The open lock file, or None if another process holds it."""
    if fcntl is None:
        try:
            return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return None
    while True:
        lock = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass
        os.close(lock)  # its holder removed the file between our two calls: what is locked has no name any more


def _release(path: Path, lock: int) -> None:
    """Remove the folder, then its lock: a folder without a lock file is nobody's of ours."""
    try:
        _discard(path)
        path.unlink()
    finally:
        os.close(lock)


def _discard(path: Path) -> Path:
    """The folder that belongs to a lock file, removed; a dataset that a killed process had moved there goes back first."""
    folder = path.with_name(path.name.removesuffix(_LOCK))
    target = path.parent / unquote(folder.name.removeprefix(_PREFIX))
    if (folder / "replaced").exists() and not target.exists():
        os.replace(folder / "replaced", target)
    if folder.exists():
        shutil.rmtree(folder)
    return folder
