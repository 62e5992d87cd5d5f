"""Files and folders are the old ones or the new ones, whatever happens at whichever file operation."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import every_state

from sb3_genoffline.errors import NotWrittenError
from sb3_genoffline.files import writing
from sb3_genoffline.files.archive import CheckpointError, write_archive
from sb3_genoffline.files.manifest import folder_files, open_folder, write_manifest
from sb3_genoffline.files.pair import read_pair, replace_pair
from sb3_genoffline.files.untrusted import parse_json
from sb3_genoffline.files.writing import (
    remove_folder,
    replace_file,
    replaced_folder,
    scratch_folder,
    standing,
    temporary_folder,
)

FAULTS = [None, KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]


def pair(folder: Path) -> str:
    """Which agent the folder holds."""
    data, weights = read_pair(open_folder(folder), lambda content: parse_json(content, "config.json"))
    assert data["name"] == weights.decode()
    return weights.decode()


def write_pair(folder: Path, name: str) -> None:
    replace_pair(folder, lambda digest: f'{{"name": "{name}", "weights_sha256": "{digest}"}}'.encode(), name.encode())


def fill(folder: Path, name: str) -> None:
    with replaced_folder(folder) as new:
        for file in ("a", "b"):
            replace_file(new / file, name.encode())


def filled(folder: Path) -> str:
    contents = {(standing(folder) / file).read_text() for file in ("a", "b")}
    assert len(contents) == 1, contents
    return contents.pop()


@pytest.mark.parametrize("fault", FAULTS, ids=["killed", "interrupted", "full"])
@pytest.mark.parametrize(("write", "read"), [(write_pair, pair), (fill, filled)])
def test_there_is_the_old_or_the_new_whatever_happens_at_any_operation(
    write: Callable[[Path, str], None], read: Callable[[Path], str], fault: Any, tmp_path: Path
) -> None:
    root, seen = tmp_path / "root", set()
    write(root / "agent", "old")
    for _ in every_state(root, lambda: write(root / "agent", "new"), fault):
        seen.add(read(root / "agent"))
        write(root / "agent", "old")  # the next call ends what was begun, and tidies up
        assert read(root / "agent") == "old"
        assert [name for name in os.listdir(root) + os.listdir(root / "agent") if name.startswith(".")] == []
    assert seen == {"old", "new"}


@pytest.mark.parametrize("fault", FAULTS, ids=["killed", "interrupted", "full"])
def test_a_file_is_the_old_or_the_new_one_and_nothing_stays_beside_it(fault: Any, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "agent.zip"
    replace_file(path, b"old")
    for _ in every_state(tmp_path, lambda: replace_file(path, b"new"), fault):
        assert path.read_bytes() in (b"old", b"new")
        replace_file(path.with_name("another"), b"")  # whatever it writes, the next writer tidies up
        assert sorted(os.listdir(path.parent)) == ["agent.zip", "another"]
        replace_file(path, b"old")


def test_a_folder_is_removed_at_once_and_of_a_killed_process_the_next_writer_removes_the_rest(tmp_path: Path) -> None:
    fill(tmp_path / "agent", "old")
    for _ in every_state(tmp_path, lambda: remove_folder(tmp_path / "agent"), None):
        assert not (tmp_path / "agent").exists() or filled(tmp_path / "agent") == "old"
        replace_file(tmp_path / "another", b"")
        assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


def test_no_half_of_an_old_folder_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    fill(folder, "old")
    for _ in every_state(tmp_path, lambda: fill(folder, "new"), None):
        shutil.rmtree(folder, ignore_errors=True)
        assert not standing(folder).exists() or filled(folder) == "old"


def test_weights_of_another_agent_are_noticed(tmp_path: Path) -> None:
    write_pair(tmp_path / "a", "one")
    write_pair(tmp_path / "b", "two")
    shutil.copy(tmp_path / "a" / "model.safetensors", tmp_path / "b")
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not have the sha256 that config\.json says"):
        pair(tmp_path / "b")
    write_manifest(tmp_path / "b")  # which hides nothing
    with pytest.raises(CheckpointError, match="does not have the sha256"):
        pair(tmp_path / "b")


def in_another_process(action: Callable[[], None]) -> None:
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    with temporary_folder(tmp_path, "a") as first, writing.replaced(tmp_path / "b") as file:
        file.write(b"b")
        old = time.time() - 1e6
        for path in tmp_path.iterdir():
            os.utime(path, (old, old))
        in_another_process(lambda: replace_file(tmp_path / "c", b"c"))
        assert first.is_dir()
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]


def test_without_locks_what_is_a_day_old_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "fcntl", None)
    left = [tmp_path / f".a.{name}.genoffline-tmp" for name in ("old", "young")]
    for path in left:
        path.write_text("half")
    os.utime(left[0], (0, 0))
    replace_file(tmp_path / "b", b"whole")
    assert sorted(os.listdir(tmp_path)) == [left[1].name, "b"]
    assert list(folder_files(tmp_path)) == ["b"]


def test_files_of_others_are_not_removed(tmp_path: Path) -> None:
    names = [".agent.zip.swp", "agent.tmp", "notes.genoffline-tmp"]
    for name in names:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    replace_file(tmp_path / "agent.zip", b"")
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "agent.zip"])


@pytest.mark.parametrize(
    ("number", "cause"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "read-only"), (errno.EIO, "refuses")],
)
def test_what_the_system_refuses_is_said_in_a_sentence(
    number: int, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "agent.zip"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(NotWrittenError, match=rf"agent\.zip could not be written: .*{cause}") as raised:
        write_archive(path, {"a": b"new"})
    assert raised.value.errno == number and isinstance(raised.value, OSError)
    assert os.listdir(tmp_path) == ["agent.zip"] and path.read_bytes() == b"old"


def test_a_file_in_the_way_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWrittenError, match="could not be written: "):
        replace_file(tmp_path / "file" / "agent.zip", b"")
    with pytest.raises(NotWrittenError, match="could not be written: "):
        write_pair(tmp_path / "file", "new")


def test_nothing_takes_the_place_of_a_device_or_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    replace_file(tmp_path / "pipe", b"content")
    assert os.read(reader, 100) == b"content" and (tmp_path / "pipe").is_fifo()
    os.close(reader)


def test_what_killed_processes_left_among_the_systems_temporary_files_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def killed() -> None:
        with scratch_folder("push") as folder:
            (folder / "big").touch()
            os._exit(0)

    in_another_process(killed)
    assert len(os.listdir(tmp_path)) == 1
    with scratch_folder("film") as mine:
        assert os.listdir(tmp_path) == [mine.name]
        with scratch_folder("film") as other:  # a live neighbour's stays
            assert sorted(os.listdir(tmp_path)) == sorted([mine.name, other.name])
    assert os.listdir(tmp_path) == []
