"""What pages say of datasets was inspected."""

import json
import re
from pathlib import Path

import pytest
from recorded import CLIPPED, INSPECTIONS, LIBRARY, ROOT

from zoo.benchmark.results import Results


@pytest.mark.parametrize("path", INSPECTIONS, ids=lambda path: path.stem)
def test_the_table_of_datasets_says_what_was_inspected(path: Path) -> None:
    found = json.loads(path.read_text())
    (row,) = re.findall(rf"^\| `{found['id']}` \| (.*) \|$", (ROOT / "zoo" / "DATASETS.md").read_text(), re.MULTILINE)
    cells = row.split(" | ")
    assert cells[:2] == [f"{found['n_transitions']:,}", f"{found['n_episodes']:,}"]
    assert float(cells[6]) == pytest.approx(found["returns"]["score_mean"], abs=0.051)
    low, *_, high = found["returns"]["quartiles"]
    assert [float(cell.replace(",", "")) for cell in cells[4:6]] == pytest.approx([low, high], abs=0.5)


def test_every_dataset_of_the_table_was_inspected() -> None:
    listed = re.findall(r"^\| `(\S+)` \| \d", (ROOT / "zoo" / "DATASETS.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(json.loads(path.read_text())["id"] for path in INSPECTIONS) and len(listed) > 25
    assert all(path.with_suffix(".png").is_file() for path in INSPECTIONS)  # the gallery shows it


def test_the_data_page_says_how_many_episodes_two_machines_collected(results: Results) -> None:
    page, there = (LIBRARY / "data" / "README.md").read_text(), results.data(CLIPPED)
    (here,) = [found for path in INSPECTIONS if (found := json.loads(path.read_text()))["id"] == CLIPPED]
    said = [f"{n:,.0f}" for n in (there["n_episodes"], there["mean_return"], here["n_episodes"], here["returns"]["mean"])]
    assert re.search(r"{} averaging {} on one,\s{} averaging {} on another".format(*said), page), said
