"""Datasets from files: HDF5 in D4RL's layout, and ``.npz``."""

import difflib
import functools
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_genoffline.data.antmaze import OBSERVATIONS, canonical_id, eval_spec, mark_cuts
from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.environments import spec_from_json
from sb3_genoffline.data.reading.arrays import KEYS, from_arrays
from sb3_genoffline.data.reading.bounds import check_arrays, check_described, check_links, npz_shapes
from sb3_genoffline.data.reading.large_files import hdf5_blocks, is_large, mapped_arrays, npz_blocks
from sb3_genoffline.data.scores import reference_key
from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.files.nearby import near_files

# What `export_hdf5` puts into the group `metadata`.
DESCRIBED = {f"{name}_space_{bound}" for name in ("observation", "action") for bound in ("low", "high")} | {
    "id",
    "env_spec",
    "eval_env_spec",
    "ref_min_score",
    "ref_max_score",
}
# Bodies of today that D4RL's v2 data replay on (Walker2d-v5 has other feet).
_KNOWN = {name for names in KEYS.values() for name in names}
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    AttributeError,
    RuntimeError,
    NotImplementedError,
)
EVAL_ENVS = {"hopper": "Hopper-v4", "halfcheetah": "HalfCheetah-v4", "walker2d": "Walker2d-v4"}


def from_npz(path: Path, env: Any = None, cache: bool = True) -> OfflineDataset:
    """
    :param path: A ``.npz`` file with the arrays :func:`from_arrays` takes. Pickled objects in it are refused, and so is a file
        that would unpack to more than a hundred times its size. Other arrays of one row per step are not read, with a warning.
    :param env: As in :func:`from_arrays`.
    :param cache: Map arrays of more than 1 GiB from the flat cache instead of reading them into memory.
    """
    _check_exists(path)
    try:
        with zipfile.ZipFile(path) as archive:
            shapes = npz_shapes(path, archive)
            known = {key: shape for key, shape in shapes.items() if key in _KNOWN}
            if cache and is_large(known) and all(shape for shape, _ in known.values()):
                arrays = mapped_arrays(path, [*known], functools.partial(npz_blocks, archive))
            else:
                with np.load(path, allow_pickle=False) as file:
                    arrays = {key: _sealed(file[key]) for key in known}
    except UserError:
        raise
    except _UNREADABLE as error:
        raise UserError(f"{path} cannot be read as .npz: {error}. Was it written whole, by np.savez?") from error
    _warn_of_unread(path, arrays, {key: shape for key, (shape, _) in shapes.items() if key not in _KNOWN})
    return from_arrays(arrays, env, str(path), path.stem)


def from_hdf5(path: Path, env: Any = None, trust_env: bool = False, cache: bool = True) -> OfflineDataset:
    """
    Read an HDF5 file in D4RL's layout; the package d4rl is not needed.

    :param path: The file. A name that D4RL uses (``hopper_medium-v2.hdf5``) brings reference scores and environment with it; a
        file that ``export_hdf5`` wrote brings its id, spaces, environments and scores. AntMaze's traps: see
        :mod:`~sb3_genoffline.data.antmaze`. Other arrays of one row per step are not read, with a warning; what is in groups
        (``infos/...``, ``metadata/...``) is not read either. Nothing outside the file is read, and nothing that is larger than
        a file of its size can hold.
    :param env: As in :func:`from_arrays`.
    :param trust_env: Take the environments that the file records for one's own.
    :param cache: As in :func:`from_npz`.
    """
    import h5py

    _check_exists(path)
    if not h5py.is_hdf5(path):
        raise UserError(
            f"{path} is not an HDF5 file ({path.stat().st_size} bytes). Was the download complete, and not a web page?"
        )
    try:
        with h5py.File(path, "r") as file:
            check_links(path, file)
            found = {key: item for key, item in file.items() if isinstance(item, h5py.Dataset)}
            wanted = {key: item for key, item in found.items() if key in _KNOWN}
            unread = {key: item.shape or () for key, item in found.items() if key not in _KNOWN}
            groups = [key for key, item in file.items() if isinstance(item, h5py.Group)]
            notes = file.get("metadata")
            notes = {} if not isinstance(notes, h5py.Group) else {key: notes[key] for key in DESCRIBED & {*notes}}
            notes = {key: item for key, item in notes.items() if isinstance(item, h5py.Dataset)}
            check_arrays(path, wanted)
            check_described(path, notes)
            shapes = {key: (item.shape, item.dtype) for key, item in wanted.items()}
            if cache and is_large(shapes) and all(shape for shape, _ in shapes.values()):
                arrays: dict[str, Any] = mapped_arrays(path, [*wanted], lambda key: hdf5_blocks(wanted[key]))
            else:
                arrays = {key: _sealed(item[()]) for key, item in wanted.items()}
            described = {key: item[()] for key, item in notes.items()}
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(f"{path} is truncated or damaged: {error}. Fetch or write it again.") from error
    if "observations" not in arrays and any(re.fullmatch(r"episode_\d+", key) for key in groups):
        raise UserError(f"{path} is the storage of a Minari dataset; load it by its id, or pass the MinariDataset.")
    _warn_of_unread(path, arrays, unread)
    for space in ("observation_space", "action_space"):
        if f"{space}_low" in described:
            low, high = described.pop(f"{space}_low"), described.pop(f"{space}_high", None)
            try:
                arrays[space] = spaces.Box(low, high, dtype=low.dtype)
            except (ValueError, TypeError, AttributeError, AssertionError) as error:
                raise UserError(f"{path}: metadata/{space}_low and _high are not bounds of a space ({error}).") from error
    antmaze = _as_antmaze(path.stem, arrays)
    if antmaze is not None:
        arrays = mark_cuts(arrays, str(path))
    dataset = from_arrays(arrays, env, str(path), antmaze or path.stem)
    try:
        dataset = dataset.replace(**{key: _decoded(key, value, path, trust_env) for key, value in described.items()})
    except UserError as error:
        raise UserError(f"{path}, metadata: {error}") from error
    key = reference_key(path.stem)
    if dataset.env_spec is None and key in EVAL_ENVS:
        dataset = dataset.replace(env_spec=gym.spec(EVAL_ENVS[key]))
    if dataset.env_spec is None and antmaze is not None:
        dataset = dataset.replace(env_spec=eval_spec(antmaze, dataset.observations))
    return dataset


def _sealed(array: Any) -> Any:
    """An array just read, which nobody else holds: read-only, so that it need not be copied."""
    if isinstance(array, np.ndarray):
        array.flags.writeable = False
    return array


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


def _decoded(key: str, value: Any, path: Path, trust_env: bool) -> Any:
    """A field of a dataset from what HDF5 gives for it: bytes or a numpy number."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return spec_from_json(text, str(path), trust_env) if key.endswith("env_spec") else text


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise NotFoundError(f"{path} does not exist{near_files(path)}")
    if not path.is_file():
        raise UserError(
            f"{path} is a {'folder' if path.is_dir() else 'pipe or device'}, and a file is wanted{near_files(path)}"
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from error
