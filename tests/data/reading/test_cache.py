import os
import signal
import threading
import warnings

import numpy as np
import pytest
from faults import every_state
from labelled_episodes import Episode, assert_aligned, write_minari

from sb3_genoffline.data import load_dataset
from sb3_genoffline.data.reading import cache
from sb3_genoffline.data.reading import minari as minari_source
from sb3_genoffline.data.reading.columns import FileColumns, add_all
from sb3_genoffline.files.writing import is_temporary

EPISODES = [Episode(0, 3, "truncated"), Episode(1, 2, "terminated")]
OTHERS = [Episode(4, 3, "truncated"), Episode(5, 2, "terminated")]


@pytest.fixture
def builds(monkeypatch):
    """Counts how often a dataset is really read."""
    count = []
    read = minari_source._read_episodes
    monkeypatch.setattr(minari_source, "_read_episodes", lambda dataset, *a: count.append(dataset.id) or read(dataset, *a))
    return count


def entries(folder):
    return sorted(p for p in (folder / "cache").glob("v*/*") if p.name != "hashes")


def test_a_second_load_maps_the_cache_and_reads_nothing(builds, own_folders):
    write_minari("cache/one-v0", EPISODES)
    first, second = load_dataset("cache/one-v0"), load_dataset("cache/one-v0")
    assert builds == ["cache/one-v0"]
    assert isinstance(second.observations.base, np.memmap)
    assert first.fingerprint == second.fingerprint == load_dataset("cache/one-v0", cache=False).fingerprint
    assert len(entries(own_folders)) == 1


def test_other_contents_under_the_same_id_are_read_anew_even_with_equal_time_stamps_and_sizes(builds, own_folders):
    write_minari("cache/one-v0", EPISODES)
    files = [p for p in (own_folders / "minari").rglob("*") if p.is_file()]
    old = {path: path.stat() for path in files}
    load_dataset("cache/one-v0")
    os.rename(own_folders / "minari", own_folders / "before")
    write_minari("cache/one-v0", OTHERS)
    for path, stat in old.items():
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    main = own_folders / "minari/cache/one-v0/data/main_data.hdf5"
    assert main.stat().st_size == old[main].st_size and main.stat().st_mtime_ns == old[main].st_mtime_ns
    assert_aligned(load_dataset("cache/one-v0"), OTHERS)
    assert len(builds) == 2
    assert len(entries(own_folders)) == 1  # the superseded entry is gone


def test_unchanged_files_are_hashed_once_when_they_are_old_enough(own_folders, monkeypatch):
    write_minari("cache/one-v0", EPISODES)
    hashed = []
    digest = cache.hashlib.file_digest
    monkeypatch.setattr(cache.hashlib, "file_digest", lambda *a: hashed.append(a) or digest(*a))
    load_dataset("cache/one-v0")
    load_dataset("cache/one-v0")
    assert len(hashed) == 4  # two files, twice: just written, they may change again within one tick of the clock
    monkeypatch.setattr(cache, "_RACY_SECONDS", -60.0)
    for _ in range(3):
        load_dataset("cache/one-v0")
    assert len(hashed) == 6


def damage(entry, how):
    victim = entry / "rewards.npy"
    if how == "missing file":
        victim.unlink()
    elif how == "truncated":
        victim.write_bytes(victim.read_bytes()[:-4])
    elif how == "flipped bit":
        content = bytearray(victim.read_bytes())
        content[-2] ^= 64
        victim.write_bytes(content)
    elif how == "no meta":
        (entry / "meta.json").unlink()
    elif how == "half a meta":
        (entry / "meta.json").write_text('{"checksums": {"rew')
    elif how == "no arrays":
        (entry / "meta.json").write_text('{"checksums": {}}')
    else:
        victim.write_bytes(b"")


@pytest.mark.parametrize(
    "how", ["missing file", "truncated", "flipped bit", "no meta", "half a meta", "no arrays", "empty file"]
)
def test_a_damaged_entry_is_built_again(builds, own_folders, how):
    write_minari("cache/one-v0", EPISODES)
    load_dataset("cache/one-v0")
    damage(entries(own_folders)[0], how)
    for _ in range(2):
        assert_aligned(load_dataset("cache/one-v0"), EPISODES)
    assert len(builds) == 2


def test_a_writer_that_is_killed_leaves_no_entry(own_folders, monkeypatch):
    write_minari("cache/one-v0", EPISODES)
    add, calls = FileColumns.add, []

    def dying(*args):
        add(*args)
        calls.append(args)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(FileColumns, "add", dying)
            load_dataset("cache/one-v0")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = entries(own_folders)
    assert [is_temporary(p.name) for p in left] == [True]
    assert_aligned(load_dataset("cache/one-v0"), EPISODES)
    assert [is_temporary(p.name) for p in entries(own_folders)] == [False]  # what was left is removed at once


def test_of_a_killed_process_no_half_of_a_superseded_entry_stays(own_folders):
    source = own_folders / "source"

    def load(contents):
        source.write_text(contents)
        return cache.cached_arrays("one", [source], lambda columns: columns.add("a", np.full(3, float(contents))))[
            "a"
        ].tolist()

    load("1")
    folder = own_folders / "cache" / "v1"
    for _ in every_state(folder, lambda: load("2"), None):
        assert load("2") == [2.0] * 3
        assert load("3") == [3.0] * 3
        assert len(entries(own_folders)) == 1


@pytest.mark.parametrize("obstacle", ["a file in its place", "no space"])
def test_a_cache_that_cannot_be_written_is_a_warning(builds, own_folders, monkeypatch, obstacle):
    write_minari("cache/one-v0", EPISODES)
    if obstacle == "a file in its place":
        (own_folders / "cache").write_text("")
    else:
        write_header = FileColumns._write_header

        def full(columns, name):
            if name == "rewards":
                raise OSError(28, "No space left on device")
            write_header(columns, name)

        monkeypatch.setattr(FileColumns, "_write_header", full)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"cache cannot be written .* Set SB3_GENOFFLINE_CACHE"):
            assert_aligned(load_dataset("cache/one-v0"), EPISODES)
    assert len(builds) == (4 if obstacle == "no space" else 2)
    if obstacle == "no space":
        assert entries(own_folders) == []


def test_writers_at_the_same_time_do_not_disturb_each_other(own_folders):
    source = own_folders / "source"
    source.write_text("contents")
    expected = {"a": np.arange(1000.0), "b": np.zeros((0, 3), np.float32), "c": np.ones((4, 2), bool)}
    start, results, failures = threading.Barrier(8), [], []

    def work():
        try:
            start.wait()
            results.append(cache.cached_arrays("same", [source], lambda columns: add_all(columns, expected)))
        except Exception as error:
            failures.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures and len(results) == 8
    for result in results:
        for name, array in expected.items():
            np.testing.assert_array_equal(result[name], array)
    assert len(entries(own_folders)) == 1


def test_files_that_change_while_they_are_read_are_not_cached(own_folders):
    source = own_folders / "source"
    source.write_text("before")

    def build(columns):
        source.write_text("after, and longer")
        columns.add("a", np.zeros(3))

    cache.cached_arrays("changing", [source], build)
    assert entries(own_folders) == []


def test_a_copy_of_a_dataset_elsewhere_uses_the_same_entry(builds, own_folders, monkeypatch):
    import shutil

    write_minari("cache/one-v0", EPISODES)
    load_dataset("cache/one-v0")
    shutil.copytree(own_folders / "minari", own_folders / "copy")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(own_folders / "copy"))
    load_dataset("cache/one-v0")
    assert len(builds) == 1
