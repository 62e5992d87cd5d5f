"""The tutorial's cells are run in order, small; what is committed is a whole run of them."""

import json
import os
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from sb3_genoffline import IQL
from zoo.recipes import pointmaze

ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "zoo" / "tutorial" / "tutorial.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
TINY = {"STEPS": 1_000, "UPDATES": 2, "JUDGE_UPDATES": 2, "EPISODES": 1, "FILM_STEPS": 4}
MOST_BYTES = 150_000


def run(names: dict[str, Any]) -> dict[str, Any]:
    """
    As papermill does: what the cell tagged ``parameters`` sets is set anew after it.

    :param names: the parameters
    :return: the names that the cells leave
    """
    namespace: dict[str, Any] = {"__name__": "tutorial"}
    for number, cell in enumerate(CODE):
        source = "".join(cell["source"]).replace("n_eval_episodes=5", "n_eval_episodes=1")
        exec(compile(source, f"{NOTEBOOK.name}, cell {number}", "exec"), namespace)
        if "parameters" in cell["metadata"].get("tags", []):
            assert names.keys() <= namespace.keys()
            namespace |= names
    return namespace


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_it_runs_from_data_to_an_agent_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("agg")
    for name in ("MINARI_DATASETS_PATH", "SB3_GENOFFLINE_CACHE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that they are as before afterwards
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pointmaze, "STITCH_LIMIT", 60)
    names = run(TINY)
    assert len(names["dataset"]) == TINY["STEPS"]
    assert type(names["model"]) is IQL and len(names["returns"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == [names["FOLDER"]]
    commands = [path.read_text() for path in sorted(tmp_path.rglob("command.txt"))]
    assert [command.split(" --dataset")[0] for command in commands] == [
        f"python -m zoo train --algo {a}" for a in ("bc", "iql")
    ]
    names["plt"].close("all")


def test_what_is_committed_is_a_whole_run_of_it_and_small() -> None:
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    assert NOTEBOOK.stat().st_size <= MOST_BYTES
    assert str(ROOT) not in NOTEBOOK.read_text()  # nothing of the machine it was run on
