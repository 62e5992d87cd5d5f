"""YAML, JSON and evaluations of others: values, and no more of them than the file holds; faults are named with the path."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import make_dataset

from sb3_genoffline.data import export_hdf5
from sb3_genoffline.data.reading import bounds
from sb3_genoffline.errors import NotFoundError, UserError
from zoo.__main__ import main
from zoo.benchmark.records import read_record
from zoo.publish.index import find_entries
from zoo.runs.folders import Run
from zoo.runs.reading import LARGEST_FILE, read_evaluations, read_json, read_text, read_yaml

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
    "brackets": ("[" * 100_000, "more than 50 brackets are open"),
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


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", {}),
        ("a: 1.0e+6\nb: !!float 1e2\nc: 1e3\nd: 32.0\ne: .5", {"a": 1_000_000, "b": 100, "c": "1e3", "d": 32.0, "e": 0.5}),
        ("a: 2020-01-01\nb: [yes, 'yes', null]", {"a": "2020-01-01", "b": [True, "yes", None]}),
        ("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}", {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}}),
    ],
)
def test_yaml_holds_plain_values_and_whole_numbers_are_whole(text: str, content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "plan.yml").write_text(text)
    found = read_yaml(tmp_path / "plan.yml", "plan")
    assert found == content and [type(value) for value in found.values()] == [type(value) for value in content.values()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", r"plan\.yml must map names to values, but is \[1\]"),
        ("3", r"plan\.yml must map names to values, but is 3"),
        ("1: 2", r"plan\.yml has the name 1, which is not a word"),
        ("a: 1\nb: 2\na: 3", "'a' appears twice"),
        ("a: [1", r"plan\.yml is not plain YAML: while parsing"),
        ("a: 1\n---\nb: 2", "is not plain YAML: expected a single document"),
        ("a: !!set {b, c}", "could not determine a constructor for the tag"),
        ("a: !!python/name:os.system", "could not determine a constructor for the tag"),
        ("a: !!binary aGVsbG8=", "could not determine a constructor for the tag"),
    ],
)
def test_what_is_wrong_with_a_yaml_file_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yml").write_text(text)
    with pytest.raises(UserError, match=message) as told:
        read_yaml(tmp_path / "plan.yml", "plan")
    assert "\n" not in str(told.value)


def test_a_text_that_is_missing_no_file_or_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "plan.yml").write_bytes(b"\xff\xfe")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotFoundError, match=r"There is no plan at '.*pla\.yml'; did you mean plan\.yml\?"):
        read_text(tmp_path / "pla.yml", "plan")
    for name, message in {
        "plan.yml": "is not a valid plan: it holds no text",
        ".": "it is a folder",
        "loop": "can't be read",
        "pipe": "pipe or device",
    }.items():
        with pytest.raises(UserError, match=message):
            read_text(tmp_path / name, "plan")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"3", b"[" * 100_000, b'{"a": 1' + b"0" * 400 + b"}"])
def test_damaged_json_is_named_by_all_that_read_it(content: bytes, tmp_path: Path) -> None:
    for file in ("a.json", "agent/results.json", "agent/config.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content)
    for read in (lambda: read_json(tmp_path / "a.json", "record"), lambda: read_record(tmp_path / "a.json")):
        with pytest.raises(UserError, match=r"a\.json is not a valid record") as told:
            read()
        assert str(told.value).count("is not a valid record") == 1
    with pytest.raises(UserError, match=r"agent/results\.json is not a valid result"):
        find_entries(tmp_path)


@pytest.mark.parametrize(
    "arrays",
    [
        None,
        {"timesteps": np.zeros(2)},
        {"timesteps": np.zeros(2), "results": np.zeros((3, 1)), "ep_lengths": np.zeros((2, 1))},
        {"timesteps": np.zeros(2), "results": np.zeros(2), "ep_lengths": np.zeros((2, 1))},
        {"timesteps": np.array([object()]), "results": np.zeros((1, 1)), "ep_lengths": np.zeros((1, 1))},
    ],
)
def test_evaluations_that_are_none_are_named(arrays: dict[str, np.ndarray] | None, tmp_path: Path) -> None:
    file = tmp_path / "evaluations.npz"
    if arrays is None:
        file.write_bytes(b"junk")
    else:
        np.savez(file, **arrays)
    with pytest.raises(UserError, match=r"evaluations\.npz can't be read as the evaluations of a run"):
        read_evaluations(file)


def test_evaluations_are_no_larger_than_their_file_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_FREE_BYTES", 0)
    np.savez_compressed(tmp_path / "evaluations.npz", timesteps=np.zeros(10**6))
    with pytest.raises(UserError, match=r"and its arrays would take 8,000,128: more than 100 times as many"):
        read_evaluations(tmp_path / "evaluations.npz")


def test_a_damaged_config_or_record_of_arguments_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, "a")
    run.settings.mkdir()
    for text in ("algo: [", "- 1", "algo: bc\ndataset: 3\nhyperparameters: {}"):
        for name, read in (("config.yml", run.config), ("args.yml", run.arguments)):
            (run.settings / name).write_text(text)
            if name == "config.yml" or not text.startswith("algo: bc"):
                with pytest.raises(UserError, match=name.replace(".", r"\.")):
                    read()
