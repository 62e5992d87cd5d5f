"""``zoo speed --scale`` and ``--memory``: what they measure is right on what is known, and the page says what they found."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

import zoo
from sb3_genoffline import ALGOS, load_dataset
from sb3_genoffline.data.blocks import is_mapped
from sb3_genoffline.errors import UserError
from zoo.speed import beside_plain, command, footprint, rows, scale

FIGURES = Path(zoo.__file__).parent / "figures"
PAGE = (FIGURES.parent / "README.md").read_text()


def run_speed(*flags: str) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.main(parser.parse_args(flags))


def test_exponents_are_those_of_powers() -> None:
    points = [{"value": x, "square": 3.0 * x**2, "late": 100.0 + x} for x in (1, 10, 1000, 100_000)]
    assert scale.exponents(points, "square") == (pytest.approx(2), pytest.approx(2))
    whole, end = scale.exponents(points, "late")
    assert 0 < whole < 0.7 < end < 1  # a constant hides what is to come, and less so in the end


def test_bytes_of_an_update_are_those_of_its_tensors_at_their_peak() -> None:
    with scale._Storages() as made:
        first = th.zeros(100, dtype=th.float64)
        first.add_(1)  # no new one
        second = first + 1
        view = second[:10]
        del second
        third = view.sum()
        del view
        fourth = th.zeros(50, dtype=th.float64)
    assert made.peak == 1600 + 8 and made.now == 800 + 8 + 400 == sum(t.nbytes for t in (first, third, fourth))


@pytest.mark.parametrize("n_rows", [5, 300])
def test_rows_are_the_same_from_each_kind_of_file(n_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    monkeypatch.setattr(rows, "BLOCK", 128)
    rows.write_arrays(tmp_path, n_rows, 4, 2)
    rows.write_hdf5(tmp_path / "data.hdf5", n_rows, 4, 2)
    mapped, held = rows.arrays_of(tmp_path), rows.arrays_of(tmp_path, mapped=False, read_only=False)
    assert sum(array.nbytes for array in held.values()) == rows.n_bytes(n_rows, 4, 2)
    assert is_mapped(mapped["observations"]) and not is_mapped(held["observations"])
    found = {load_dataset(source).fingerprint for source in (mapped, held, tmp_path / "data.hdf5")}
    assert len(found) == 1 and len(load_dataset(rows.arrays_of(tmp_path, 3))) == 3


def test_scale_measures_what_the_algorithm_has_and_writes_record_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_speed("--algo", "dac", "--scale", "--smoke", "--folder", str(tmp_path), "-o", str(tmp_path / "grown.png"))
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "grown.json").read_text())
    assert list(record["axes"]) == ["rows, in memory", "rows, mapped", *scale.GROWING]
    assert scale.scale_table(record) in printed
    for name, points in record["axes"].items():
        assert len(points) == 2 and points[0]["value"] < points[1]["value"]
        assert all(point["ms"] > 0 for point in points)
        assert name.startswith("rows") or points[0]["mb"] < points[1]["mb"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grown.json", "grown.png", "grown.svg"]  # and no data are left


def test_memory_weighs_each_source_and_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("h5py")
    before = os.environ.get("SB3_GENOFFLINE_CACHE")
    run_speed("--algo", "td3_bc", "--memory", "--smoke", "--folder", str(tmp_path), "-o", str(tmp_path / "weight"))
    record = json.loads((tmp_path / "weight.json").read_text())
    assert list(record["peaks"]) == list(footprint.SOURCES) and record["raw"] == 300 * (4 * 26 + 2)
    assert footprint.weight_table(record) in capsys.readouterr().out
    run_speed("--algo", "td3_bc", "--memory", "--beyond", "2", "--smoke", "--folder", str(tmp_path))
    assert "300 rows of 100 floats" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["weight.json"] and os.environ.get("SB3_GENOFFLINE_CACHE") == before
    with pytest.raises(UserError, match="--floats 8 are too few"):
        footprint.weigh_data("td3_bc", 300, 2.0, 8, tmp_path, None, True)


def test_a_limit_of_memory_is_one_and_mapped_rows_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the limit is set and where rows come from, without a process that runs into it."""
    limits: list[Any] = []
    monkeypatch.setattr(footprint.resource, "setrlimit", lambda kind, values: limits.append((kind, values[0])))
    rows.write_arrays(tmp_path, 300, 11, 3)
    np.savez(tmp_path / "data.npz", **rows.arrays_of(tmp_path))
    found = footprint.limited_updates("td3_bc", tmp_path / "data.npz", 2e9, 1, 2)
    assert limits == [(footprint.resource.RLIMIT_DATA, 2_000_000_000)] and found["rows"] == 300 and not found["mapped"]


RECORDS = {
    "scale": scale.scale_table,
    "memory": footprint.weight_table,
    "beyond-memory": footprint.weight_table,
    "beside-plain": beside_plain.beside_plain_table,
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_page_shows_the_committed_record(name: str) -> None:
    assert RECORDS[name](json.loads((FIGURES / f"{name}.json").read_text())) in PAGE


def test_the_page_counts_whose_update_is_half_as_long_again_when_it_is_plain() -> None:
    found = json.loads((FIGURES / "beside-plain.json").read_text())["algorithms"]
    cpu, paper = (
        sum(round(each[setting]["times_faster"], 2) >= 1.5 for each in found.values()) for setting in ("cpu", "paper")
    )
    said = f"`cpu` {cpu} of {len(found)} reach 1.5 times the plain form, at the paper's settings {paper}: large networks"
    assert said in " ".join(PAGE.split()) and found.keys() == set(ALGOS)
