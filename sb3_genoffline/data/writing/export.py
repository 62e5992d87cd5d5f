"""Writing an :class:`OfflineDataset` where others read it: as a Minari dataset, or as one HDF5 file in D4RL's layout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sb3_genoffline.data.chain import chain_breaks
from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.reading.paths import expanded
from sb3_genoffline.data.reading.sources import HDF5_SUFFIXES
from sb3_genoffline.data.writing.minari import spec_json, write_minari
from sb3_genoffline.errors import ExistsError, UserError
from sb3_genoffline.files.writing import temporary_folder, write_errors

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer


def export_minari(
    dataset: OfflineDataset,
    dataset_id: str,
    *,
    author: str | set[str] | None = None,
    author_email: str | set[str] | None = None,
    description: str | None = None,
    algorithm_name: str | None = None,
    code_permalink: str | None = None,
    overwrite: bool = False,
) -> MinariDataset:
    """
    Write a dataset to Minari's local root, with its environments and reference scores; ``load_dataset(dataset_id)`` gives it
    back. The write is atomic, see :func:`~sb3_genoffline.data.writing.minari.write_minari`.

    The flat float32 observations and their flat space are written, also where the environment has Dict observations:
    ``load_dataset(dataset_id).make_env()`` gives an environment that flattens alike, Minari's own ``recover_environment`` the
    environment as it is registered. An episode that ends in neither termination nor truncation is marked truncated, as every
    loader here marks it.

    :param dataset: What to write.
    :param dataset_id: ``(namespace/)*name-v<number>``.
    :param author: Goes into the metadata, as do the next four.
    :param author_email: Likewise.
    :param description: Likewise.
    :param algorithm_name: What made the data.
    :param code_permalink: Where the code is that made them.
    :param overwrite: Replace a dataset of the same id.
    :return: The new dataset, in Minari's form.
    :raises UserError: For a malformed id, or a next observation inside an episode that is not the next row's observation
        (beyond rounding and a hundredth of the column's mean step): Minari stores T + 1 observations per episode and has
        no place for it.
    :raises ExistsError: If there is such a dataset and ``overwrite`` is False, or another process is writing it.
    """
    _check_chained(dataset)
    return write_minari(
        dataset_id,
        _episodes(dataset),
        env=dataset.env_spec,
        eval_env=dataset.eval_env_spec,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        overwrite=overwrite,
        author=author,
        author_email=author_email,
        description=description,
        algorithm_name=algorithm_name,
        code_permalink=code_permalink,
        ref_min_score=dataset.ref_min_score,
        ref_max_score=dataset.ref_max_score,
    )


def export_hdf5(dataset: OfflineDataset, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """
    Write a dataset to one HDF5 file in D4RL's layout: ``observations``, ``actions``, ``rewards``, ``terminals``, ``timeouts``
    and ``next_observations``, one row per step. Beside them are ``episode_ends`` and, in the group ``metadata``, the bounds of
    the spaces, the id, the environments (JSON) and the reference scores: ``load_dataset(path)`` gives all of it back. The file
    appears when it is whole.

    An episode that ends in neither termination nor truncation gets a time-out at its last row, as every loader here marks it.
    Data without an id take the file's name when they are loaded.

    :param dataset: What to write.
    :param path: The file, ``.hdf5`` or ``.h5``, ``~`` for the home folder; missing folders are made.
    :param overwrite: Replace an existing file.
    :return: The path.
    :raises UserError: For another suffix.
    :raises NotWrittenError: If the system refuses it: a full disk, no permission.
    :raises ExistsError: If there is such a file and ``overwrite`` is False.
    """

    path = expanded(path)
    if path.suffix.lower() not in HDF5_SUFFIXES:
        raise UserError(f"{path} has the suffix {path.suffix!r}; HDF5 files are called {' or '.join(HDF5_SUFFIXES)}.")
    if path.exists() and not overwrite:
        raise ExistsError(f"{path} exists already; pass overwrite=True to replace it, or choose another name.")
    columns = {
        "observations": dataset.observations,
        "actions": dataset.actions,
        "rewards": dataset.rewards,
        "next_observations": dataset.next_observations,
        "terminals": dataset.terminations,
        "timeouts": _closed_truncations(dataset),
        "episode_ends": dataset.episode_ends,
    }
    bounds = {
        f"{name}_space_{bound}": getattr(space, bound)
        for name, space in (("observation", dataset.observation_space), ("action", dataset.action_space))
        for bound in ("low", "high")
    }
    described = {
        "id": dataset.id,
        "env_spec": spec_json(dataset.env_spec),
        "eval_env_spec": spec_json(dataset.eval_env_spec),
        "ref_min_score": dataset.ref_min_score,
        "ref_max_score": dataset.ref_max_score,
    }
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(path.parent, path.name) as folder:
            _write_hdf5(folder / path.name, columns, bounds | described)
            os.replace(folder / path.name, path)
    return path


def _write_hdf5(path: Path, columns: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in columns.items():
            file.create_dataset(name, data=array, compression="gzip")
        for name, value in metadata.items():
            if value is not None:
                file[f"metadata/{name}"] = value


def _closed_truncations(dataset: OfflineDataset) -> np.ndarray:
    """The truncations, with every episode's end that is not a termination among them; bool ``(N,)``."""
    truncations = dataset.truncations.copy()
    last = dataset.episode_ends - 1
    truncations[last] |= ~dataset.terminations[last]
    return truncations


def _check_chained(dataset: OfflineDataset) -> None:
    apart = chain_breaks(dataset.observations, dataset.next_observations)
    apart[dataset.episode_ends[:-1] - 1] = False
    if apart.any():
        row = int(np.argmax(apart))
        episode = int(np.searchsorted(dataset.episode_ends, row, side="right"))
        raise UserError(
            f"next_observations[{row}] is not observations[{row + 1}], though both rows are in episode {episode} "
            f"({int(apart.sum())} rows are so): Minari stores one chain of observations per episode. "
            "End the episode there (dataset.replace(episode_ends=...)), or use export_hdf5, which keeps every row's own."
        )


def _episodes(dataset: OfflineDataset) -> Iterator[EpisodeBuffer]:
    from minari.data_collector import EpisodeBuffer

    truncations = _closed_truncations(dataset)
    for start, end in zip(dataset.episode_starts, dataset.episode_ends, strict=True):
        arrays: dict[str, Any] = {
            "observations": np.concatenate([dataset.observations[start:end], dataset.next_observations[end - 1 : end]]),
            "actions": dataset.actions[start:end],
            "rewards": dataset.rewards[start:end],
            "terminations": dataset.terminations[start:end],
            "truncations": truncations[start:end],
        }
        yield EpisodeBuffer(**cast(Any, arrays))
