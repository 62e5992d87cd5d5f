"""How much memory data take on their way to the first batch, beside what was given."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_genoffline.data import load_dataset
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.reading import large_files

N = 100_000


def raw_arrays(dtype: type) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    observations = np.tile(rng.standard_normal((1000, 11)).astype(dtype), (N // 1000, 1))
    ends = np.zeros(N, dtype=bool)
    ends[999::1000] = True
    return {
        "observations": observations,
        "actions": np.zeros((N, 3), dtype),
        "rewards": np.arange(N, dtype=dtype),
        "next_observations": np.roll(observations, -1, axis=0),
        "terminations": np.zeros(N, dtype=bool),
        "timeouts": ends,
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("source", ["dict", "read-only dict", ".npz", ".hdf5"])
def test_no_second_copy_of_the_data_is_made(source: str, dtype: type, tmp_path: Path) -> None:
    """At most 1.6 times the raw arrays in all; of arrays that nobody can write to, no copy at all."""
    arrays = raw_arrays(dtype)
    size = sum(array.nbytes for array in arrays.values())
    given: object = arrays
    for array in arrays.values() if source.startswith("read-only") else ():
        array.flags.writeable = False
    if source == ".npz":
        given = tmp_path / "data.npz"
        np.savez(given, **arrays)
    if source == ".hdf5":
        h5py = pytest.importorskip("h5py")
        given = tmp_path / "data.hdf5"
        with h5py.File(given, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    tracemalloc.start()
    try:
        data = load_dataset(given)
        buffer = OfflineBuffer(1, data.observation_space, data.action_space, "cpu", dataset=data, seed=0)
        buffer.sample(256)
        buffer.observation_statistics()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (0.6 if given is arrays and dtype is np.float32 and source != "dict" else 1.6) * size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_a_large_file_is_mapped_from_the_cache(suffix: str, dtype: type, own_folders: Path, monkeypatch: Any) -> None:
    """It is the same data, and next to none of it is in memory, the first time and the second."""
    arrays = raw_arrays(dtype)
    path = own_folders / f"data{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    expected = load_dataset(path).fingerprint
    monkeypatch.setattr(large_files, "LARGE", 2**20)
    for _ in range(2):
        tracemalloc.start()
        try:
            data = load_dataset(path)
            OfflineBuffer(1, data.observation_space, data.action_space, "cpu", dataset=data, seed=0).sample(256)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert data.fingerprint == expected
        assert isinstance(data.observations.base, np.memmap) and isinstance(data.next_observations.base, np.memmap)
        assert peak < 0.3 * path.stat().st_size
    assert not isinstance(load_dataset(path, cache=False).observations.base, np.memmap)
