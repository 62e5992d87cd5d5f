"""The picture of two codes' runs: seeds, their mean, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from zoo.__main__ import main

RUN = {"steps": [10, 20], "score": [1.0, 2.5], "q": [3.0, 4.0]}


@pytest.mark.usefixtures("pixels")
def test_both_codes_are_drawn_with_their_means(tmp_path: Path) -> None:
    record = tmp_path / "beside.json"
    record.write_text(json.dumps({"title": "on $x", "runs": {"ours": [RUN, RUN], "theirs": [RUN, RUN | {"steps": [10, 30]}]}}))
    main(["plot", "beside", str(record), "-o", str(tmp_path / "one.png")])
    svg = (tmp_path / "one.svg").read_text()
    assert (tmp_path / "one.png").stat().st_size > 1000
    assert "ours (mean of 2)" in svg and "theirs (mean" not in svg  # of other steps there is no mean
    assert "normalised score" in svg and "on $x" in svg


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "has no 'runs' of one to 4"),
        ({"runs": {}}, "has no 'runs'"),
        ({"runs": {"ours": [3]}}, "has no 'runs'"),
        ({"runs": {"ours": [RUN, {"steps": [1.0]}]}}, "run 2 of ours needs steps, score and q"),
        ({"runs": {"ours": [RUN | {"q": [1.0]}]}}, "run 1 of ours needs steps, score and q"),
        ({"runs": {"ours": [{"steps": [], "score": [], "q": []}]}}, "run 1 of ours needs"),
    ],
)
def test_another_file_is_refused_in_one_sentence(content: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "beside.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=words):
        main(["plot", "beside", str(tmp_path / "beside.json"), "-o", str(tmp_path / "one")])
    assert not list(tmp_path.glob("one*"))
