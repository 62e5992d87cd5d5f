"""Data that say nothing, of any number of rows: written block by block, so that they may be larger than the memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.data.reading.columns import FileColumns

BLOCK = 2**16
_EPISODE = 16


def blocks(n_rows: int, obs_dim: int, action_dim: int) -> Iterator[dict[str, np.ndarray]]:
    """
    :param n_rows: in all; after :data:`BLOCK` of them they come again
    :param obs_dim: S
    :param action_dim: A
    :return: the arrays of a dataset, block by block; every 16th row terminates
    """
    rng = np.random.default_rng(0)
    size = min(BLOCK, n_rows)
    states = rng.standard_normal((size + 1, obs_dim), dtype=np.float32)
    arrays = {
        "observations": states[:-1],
        "actions": rng.uniform(-1, 1, (size, action_dim)).astype(np.float32),
        "rewards": rng.standard_normal(size, dtype=np.float32),
        "next_observations": states[1:],
        "terminations": np.arange(1, size + 1) % _EPISODE == 0,
        "truncations": np.zeros(size, dtype=bool),
    }
    for start in range(0, n_rows, size):
        yield {name: array[: n_rows - start] for name, array in arrays.items()}


def n_bytes(n_rows: int, obs_dim: int, action_dim: int) -> int:
    """What the arrays hold, in bytes."""
    return n_rows * (4 * (2 * obs_dim + action_dim + 1) + 2)


def write_arrays(folder: Path, n_rows: int, obs_dim: int, action_dim: int) -> None:
    """:param folder: gets a ``.npy`` file of each array"""
    with FileColumns(folder) as columns:
        for block in blocks(n_rows, obs_dim, action_dim):
            for name, array in block.items():
                columns.add(name, array)
        columns.finish()


def write_hdf5(path: Path, n_rows: int, obs_dim: int, action_dim: int) -> None:
    """:param path: of a file in D4RL's layout"""
    import h5py

    with h5py.File(path, "w") as file:
        start = 0
        for block in blocks(n_rows, obs_dim, action_dim):
            for name, array in block.items():
                if name not in file:
                    file.create_dataset(name, (n_rows, *array.shape[1:]), array.dtype)
                file[name][start : start + len(array)] = array
            start += len(block["rewards"])


def arrays_of(folder: Path, n_rows: int | None = None, mapped: bool = True, read_only: bool = True) -> dict[str, Any]:
    """
    :param folder: of :func:`write_arrays`
    :param n_rows: the first ones alone
    :param mapped: memory-mapped; else read into memory
    :param read_only: as nobody can write to them, they need not be copied
    """
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.npy")):
        array = np.load(file, mmap_mode="r")[:n_rows]
        found[file.stem] = array if mapped else np.array(array)
        found[file.stem].flags.writeable = not read_only
    return found
