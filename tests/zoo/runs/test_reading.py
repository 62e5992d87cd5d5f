"""YAML of others: values, and no more of them than the file holds."""

from itertools import pairwise
from pathlib import Path

import pytest
from worlds import make_dataset

from sb3_genoffline.data import export_hdf5
from zoo.__main__ import main
from zoo.runs.reading import LARGEST_FILE, read_yaml

LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(f"{y}: &{y} [{f'*{x},' * 10}]\n" for x, y in pairwise("abcdefghi"))
MERGED = LAUGHS.replace("[1,1,1,1,1,1,1,1,1,1]", "{x: 1}").replace("[*", "{<<: [*").replace("]\n", "]}\n")
HOSTILE = {
    "aliases of aliases": (LAUGHS, "values once aliases are written out"),
    "merged aliases": (MERGED, "values once aliases are written out"),
    "a value in itself": ("a: &a [*a]\n", "a value is a part of itself"),
    "a mapping merged into itself": ("a: &a {<<: *a}\n", "a value is a part of itself"),
    "a number to the base of sixty": ("a: 1" + ":1" * 40_000, "a number is too long"),
    "a long number": ("a: " + "9" * 5_000, "a number is too long"),
    "depth": ("- " * 2_000, "recursion"),
    "size": ("a: " + "x" * LARGEST_FILE, "bytes, and no plan has more"),
    "a Python object": ("a: !!python/object/apply:os.mkdir [mark]", "could not determine a constructor"),
    "no text": ("a: \0", "special characters"),
    "a list": ("[1]", "must map names to values"),
    "a name that is none": ("1: 2", "not a word"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_endless_or_no_plain_value_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = HOSTILE[kind]
    Path("file.yml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_yaml(Path("file.yml"), "plan")
    export_hdf5(make_dataset(), "own.hdf5")
    for command in (["train", "--dataset", "own.hdf5", "-conf", "file.yml"], ["benchmark", "file.yml"]):
        with pytest.raises(SystemExit, match=message.replace("plan", "[A-Za-z ]+")):
            main(command)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.yml", "own.hdf5"]


def test_aliases_and_merges_that_people_write_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file.yml"
    path.write_text("a: &a {x: 1, y: [2]}\nb: {<<: *a, x: 3}\nc: *a\n")
    assert read_yaml(path, "plan") == {"a": {"x": 1, "y": [2]}, "b": {"x": 3, "y": [2]}, "c": {"x": 1, "y": [2]}}
    path.write_text("")
    assert read_yaml(path, "plan") == {}
    with pytest.raises(FileNotFoundError, match=r"There is no plan at .*nowhere\.yml"):
        read_yaml(tmp_path / "nowhere.yml", "plan")
