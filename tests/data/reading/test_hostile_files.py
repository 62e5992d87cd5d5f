"""A data file makes this machine read its own arrays, and no more of them than it can hold."""

import zipfile

import h5py
import numpy as np
import pytest
from labelled_episodes import Episode, arrays, write_minari

from sb3_genoffline.data import export_hdf5, load_dataset
from sb3_genoffline.data.reading import bounds
from sb3_genoffline.errors import UserError

EPISODES = [Episode(0, 3, "truncated"), Episode(1, 2, "terminated")]


def plain():
    data = arrays(EPISODES)
    return data | {"actions": data["actions"] / 6}


def external_storage(group, name, secret):
    group.create_dataset(name, (5,), "u1", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def external_link(group, name, secret):
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        file["x"] = np.zeros(5)
    group[name] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "x")


def link_through_a_link(group, name, secret):
    external_link(group.file, "elsewhere", secret)
    group[name] = h5py.SoftLink("/elsewhere")


def virtual(group, name, secret):
    layout = h5py.VirtualLayout((10**9,), "f4")
    layout[:5] = h5py.VirtualSource(str(secret), "x", (5,))
    group.create_virtual_dataset(name, layout)


def never_written(group, name, secret):
    group.create_dataset(name, (10**9,), "f4", chunks=(10**6,))


def not_numbers(group, name, secret):
    group.create_dataset(name, data=["x"] * 5)


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (external_storage, "is external storage, whose numbers lie in other files"),
        (external_link, "is a link to another file, which is not followed"),
        (link_through_a_link, "is a link to another file, which is not followed"),
        (virtual, "is a virtual dataset, whose numbers lie in other files"),
        (never_written, r"its arrays would take 4,000,0\d\d,\d\d\d: more than 100 times as many"),
        (not_numbers, "'rewards' has dtype object; numbers are needed"),
    ],
)
def test_arrays_that_are_not_in_the_file_are_refused(tmp_path, put, message):
    secret = tmp_path / "secret"
    secret.write_bytes(b"12345")
    path = tmp_path / "theirs.hdf5"
    with h5py.File(path, "w") as file:
        for name, array in plain().items():
            if name != "rewards":
                file[name] = array
        put(file, "rewards", secret)
    with pytest.raises(UserError, match=message):
        load_dataset(path)


@pytest.mark.parametrize("put", [external_storage, external_link, virtual, never_written])
@pytest.mark.parametrize("name", ["rewards", "infos/x"])
def test_so_are_those_of_minaris_storage(tmp_path, put, name):
    secret = tmp_path / "secret"
    secret.write_bytes(b"12345")
    path = write_minari("theirs/one-v0", EPISODES).storage.data_path / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        group = file["episode_0"]
        if name in group:
            del group[name]
        put(group, name, secret)
    with pytest.raises(UserError, match=r"in other files|another file|more than 100 times"):
        load_dataset("theirs/one-v0")


@pytest.mark.parametrize("link", ["hard", "soft"])
def test_minari_episodes_under_many_names_are_refused(link):
    path = write_minari("theirs/one-v0", EPISODES).storage.data_path / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        del file["episode_1"]
        file["episode_1"] = file["episode_0"] if link == "hard" else h5py.SoftLink("/episode_0")
    with pytest.raises(UserError, match=r"several names|a link to another name"):
        load_dataset("theirs/one-v0")


def test_the_description_in_a_file_is_bounded_too(tmp_path):
    path = export_hdf5(load_dataset(plain()), tmp_path / "theirs.hdf5")
    with h5py.File(path, "a") as file:
        file.create_dataset("metadata/id", (10**7,), h5py.string_dtype(), chunks=True)
    with pytest.raises(UserError, match=r"metadata/id' has the shape \(10000000,\), which is not a description"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("metadata/id", 3.0, r"theirs\.hdf5, metadata: id = .*3\.0.* is not a word"),
        ("metadata/id", h5py.Empty("f"), r"theirs\.hdf5: 'metadata/id' has the shape None"),
        ("metadata/ref_min_score", "x", r"theirs\.hdf5, metadata: ref_min_score = 'x' is not a number"),
        ("metadata/ref_min_score", np.zeros(2), r"theirs\.hdf5, metadata: ref_min_score = array"),
        ("rewards", h5py.Empty("f"), r"theirs\.hdf5: 'rewards' has dtype float32; numbers are needed"),
    ],
)
def test_what_a_file_says_of_itself_is_of_its_type(tmp_path, name, value, message):
    path = export_hdf5(load_dataset(plain()), tmp_path / "theirs.hdf5")
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        file[name] = value
    with pytest.raises(UserError, match=message):
        load_dataset(path)


@pytest.mark.parametrize("header", [b"(" * 500, b"{'descr': '<f4'", b"f(", b"[" * 9000], ids=len)
def test_a_member_of_an_npz_whose_header_is_none_is_named(tmp_path, header):
    with zipfile.ZipFile(tmp_path / "theirs.npz", "w") as archive:
        archive.writestr("rewards.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(UserError, match=r"theirs\.npz: the member 'rewards\.npy' is not an array of numbers"):
        load_dataset(tmp_path / "theirs.npz")


def test_a_zip_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", **plain(), qpos=np.zeros(12_000_000))
    with pytest.raises(UserError, match="more than 100 times as many"):
        load_dataset(tmp_path / "bomb.npz")


def test_an_array_that_says_to_be_larger_than_it_is_is_refused(tmp_path):
    np.savez(tmp_path / "whole.npz", **plain())
    with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / "lies.npz", "w") as lies:
        for name in whole.namelist():
            content = whole.read(name)
            larger = content.replace(b"(5,), }" + b" " * 12, b"(5000000000000,), }")
            lies.writestr(name, larger if name == "rewards.npy" else content)
    with pytest.raises(UserError, match="'rewards' claims the shape"):
        load_dataset(tmp_path / "lies.npz")


def test_short_files_of_zeros_and_packed_flags_are_no_bombs(tmp_path):
    n = 50_000
    data = {"observations": np.zeros((n, 30)), "actions": np.zeros((n, 3)), "rewards": np.zeros(n), "terminals": np.zeros(n)}
    np.savez_compressed(tmp_path / "zeros.npz", **data, timeouts=np.zeros(n))
    assert len(load_dataset(tmp_path / "zeros.npz")) == n - 1
    assert bounds.check_declared(tmp_path / "zeros.npz", 2**20) is None


def test_extra_arrays_of_an_npz_are_named_as_those_of_hdf5_are(tmp_path):
    np.savez(tmp_path / "mine.npz", **plain(), qpos=np.zeros((5, 2)), seed=np.int64(3))
    with pytest.warns(UserWarning, match=r"mine.npz has arrays of one row per step that are not read: 'qpos'\.") as caught:
        load_dataset(tmp_path / "mine.npz")
    assert len(caught) == 1 and caught[0].filename == __file__


def nobody(monkeypatch):
    import pwd

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)


def test_without_a_home_folder_there_is_no_cache_and_no_folder_called_tilde(tmp_path, monkeypatch):
    write_minari("mine/one-v0", EPISODES)
    monkeypatch.delenv("SB3_GENOFFLINE_CACHE")
    nobody(monkeypatch)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="this user has none.*Set SB3_GENOFFLINE_CACHE"):
        data = load_dataset("mine/one-v0")
    for use in (lambda: load_dataset("~/one.npz"), lambda: export_hdf5(data, "~/one.hdf5")):
        with pytest.raises(UserError, match="is in the home folder, and this user has none: set HOME"):
            use()
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    with pytest.raises(UserError, match="set MINARI_DATASETS_PATH to the folder"):
        load_dataset("mine/one-v0")
    assert not (tmp_path / "~").exists()
