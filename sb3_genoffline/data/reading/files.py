"""Datasets from files: HDF5 in D4RL's layout, and ``.npz``."""

import difflib
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from sb3_genoffline.data.antmaze import OBSERVATIONS, canonical_id, eval_spec, mark_cuts
from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.reading.arrays import KEYS, from_arrays
from sb3_genoffline.data.scores import reference_key
from sb3_genoffline.errors import NotFoundError, UserError

# What `export_hdf5` puts into the group `metadata`.
DESCRIBED = {f"{name}_space_{bound}" for name in ("observation", "action") for bound in ("low", "high")} | {
    "id",
    "env_spec",
    "eval_env_spec",
    "ref_min_score",
    "ref_max_score",
}
# Bodies of today that D4RL's v2 data replay on (Walker2d-v5 has other feet).
EVAL_ENVS = {"hopper": "Hopper-v4", "halfcheetah": "HalfCheetah-v4", "walker2d": "Walker2d-v4"}


def from_npz(path: Path, env: Any = None) -> OfflineDataset:
    """
    :param path: A ``.npz`` file with the arrays :func:`from_arrays` takes. Pickled objects in it are refused.
    :param env: As in :func:`from_arrays`.
    """
    _check_exists(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        hint = "It holds Python objects; save plain arrays. " if "allow_pickle" in str(error) else ""
        raise UserError(f"{path} cannot be read as .npz: {error}. {hint}Was it written whole, by np.savez?") from error
    return from_arrays(arrays, env, str(path), path.stem)


def from_hdf5(path: Path, env: Any = None) -> OfflineDataset:
    """
    Read an HDF5 file in D4RL's layout; the package d4rl is not needed.

    :param path: The file. A name that D4RL uses (``hopper_medium-v2.hdf5``) brings reference scores and environment with it; a
        file that ``export_hdf5`` wrote brings its id, spaces, environments and scores. AntMaze's traps: see
        :mod:`~sb3_genoffline.data.antmaze`. Other arrays of one row per step are not read, with a warning; what is in groups
        (``infos/...``, ``metadata/...``) is not read either.
    :param env: As in :func:`from_arrays`.
    """
    import h5py

    known = {name for names in KEYS.values() for name in names}
    _check_exists(path)
    if not h5py.is_hdf5(path):
        raise UserError(
            f"{path} is not an HDF5 file ({path.stat().st_size} bytes). Was the download complete, and not a web page?"
        )
    try:
        with h5py.File(path, "r") as file:
            arrays = {key: item[()] for key, item in file.items() if isinstance(item, h5py.Dataset) and key in known}
            unread = {key: item.shape for key, item in file.items() if isinstance(item, h5py.Dataset) and key not in known}
            groups = [key for key, item in file.items() if isinstance(item, h5py.Group)]
            described = {key: item[()] for key, item in file.get("metadata", {}).items() if key in DESCRIBED}
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(f"{path} is truncated or damaged: {error}. Fetch or write it again.") from error
    if "observations" not in arrays and any(re.fullmatch(r"episode_\d+", key) for key in groups):
        raise UserError(f"{path} is the storage of a Minari dataset; load it by its id, or pass the MinariDataset.")
    _warn_of_unread(path, arrays, unread)
    for space in ("observation_space", "action_space"):
        if f"{space}_low" in described:
            low, high = described.pop(f"{space}_low"), described.pop(f"{space}_high")
            arrays[space] = spaces.Box(low, high, dtype=low.dtype)
    antmaze = _as_antmaze(path.stem, arrays)
    if antmaze is not None:
        arrays = mark_cuts(arrays, str(path))
    dataset = from_arrays(arrays, env, str(path), antmaze or path.stem)
    if described:
        dataset = dataset.replace(**{key: _decoded(key, value) for key, value in described.items()})
    key = reference_key(path.stem)
    if dataset.env_spec is None and key in EVAL_ENVS:
        dataset = dataset.replace(env_spec=gym.spec(EVAL_ENVS[key]))
    if dataset.env_spec is None and antmaze is not None:
        dataset = dataset.replace(env_spec=eval_spec(antmaze, dataset.observations))
    return dataset


def _warn_of_unread(path: Path, arrays: Mapping[str, Any], unread: Mapping[str, tuple[int, ...]]) -> None:
    """Name arrays of one row per step that are not read, each with the name it may have been meant to have."""
    rows = np.shape(arrays["observations"])[:1] if "observations" in arrays else None
    free = [name for names in KEYS.values() if not set(names) & {*arrays} for name in names]
    listed = []
    for key in [key for key, shape in unread.items() if shape[:1] == rows]:
        close = difflib.get_close_matches(key.lower(), free, n=1)
        listed.append(repr(key) + (f" (rename it to {close[0]!r} if it is that)" if close else ""))
    if listed:
        warnings.warn(f"{path} has arrays of one row per step that are not read: {', '.join(listed)}.", stacklevel=5)


def _as_antmaze(stem: str, arrays: Mapping[str, Any]) -> str | None:
    """D4RL's id of the AntMaze set that a file's name and arrays speak of, if they do."""
    observations = arrays.get("observations")
    if observations is None or observations.shape[1:] != (OBSERVATIONS,) or {"next_observations", "truncations"} & {*arrays}:
        return None
    return canonical_id(stem)


def _decoded(key: str, value: Any) -> Any:
    """A field of a dataset from what HDF5 gives for it: bytes or a numpy number."""
    text = value.decode() if isinstance(value, bytes) else value
    return EnvSpec.from_json(text) if key.endswith("env_spec") else text


def _check_exists(path: Path) -> None:
    if path.is_file():
        return
    others = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, others, n=3)
    raise NotFoundError(f"{path} does not exist." + (f" Did you mean {' or '.join(close)}?" if close else ""))
