"""``zoo export`` writes a file beside the agent, and says what it takes and how long acting takes."""

import json
from pathlib import Path

import pytest
from worlds import make_agent

from zoo import export
from zoo.__main__ import main

NAMES = ("predict", "onnxruntime")


def test_a_file_is_written_beside_the_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TIMED_SECONDS", 0.0)
    make_agent("bc").save(tmp_path / "agent.zip")
    words = ["export", "--model", str(tmp_path / "agent.zip"), "--stochastic", "--batch", "4", "2", "--device", "cpu"]
    words += ["--json", str(tmp_path / "times.json")]
    main(words)
    told = capsys.readouterr().out
    assert (tmp_path / "agent.onnx").is_file()
    assert "Without an environment, which only names parts" in told and "acts as predict(deterministic=False)" in told
    assert "batch × 3" in told and "standard normal" in told
    assert "predict " in told and "onnxruntime " in told and "a call of 4 observation(s)" in told
    record = json.loads((tmp_path / "times.json").read_text())
    assert record["agent"] == "agent" and list(record["ms"]) == ["4", "2"] and "onnxruntime" in record["versions"]
    assert all(0 < ways[name]["fastest"] <= ways[name]["median"] for ways in record["ms"].values() for name in NAMES)
    with pytest.raises(SystemExit, match="could not be made"):
        main([*words, "--env", "No-Such-v0"])
    with pytest.raises(SystemExit):
        main([*words, "-o", str(tmp_path / "agent.zip")])
    assert "is not a .onnx file" in capsys.readouterr().err


def test_one_file_for_agent_and_times_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    make_agent("bc").save(tmp_path / "agent.zip")
    (tmp_path / "link.json").symlink_to("same.onnx")
    (tmp_path / "here").symlink_to(tmp_path)
    start, there = ["export", "--model", str(tmp_path / "agent.zip"), "--device", "cpu"], set(tmp_path.iterdir())
    for output, times in (
        ("same.onnx", "same.onnx"),
        ("same.onnx", "here/../" + tmp_path.name + "/same.onnx"),
        ("same.onnx", "here/same.onnx"),
        ("same.onnx", "link.json"),
        ("same", "same.onnx"),
        (None, "agent.onnx"),
    ):
        words = [] if output is None else ["-o", str(tmp_path / output)]
        with pytest.raises(SystemExit, match=r"-o .* and --json .* are one file, .*: give two names"):
            main([*start, *words, "--json", str(tmp_path / times)])
    assert set(tmp_path.iterdir()) == there
    (tmp_path / "old.onnx").write_text("old")
    (tmp_path / "old.json").hardlink_to(tmp_path / "old.onnx")
    with pytest.raises(SystemExit, match="are one file"):
        main([*start, "-o", str(tmp_path / "old.onnx"), "--json", str(tmp_path / "old.json")])
    assert (tmp_path / "old.onnx").read_text() == "old"
