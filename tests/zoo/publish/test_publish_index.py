"""The list of the agents in a folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from zoo.publish.index import find_bc, index_text, write_index
from zoo.runs.writing import write_json

HOPPER, MINE = "genoffline/hopper/medium-v1", "mine"
BEST = {
    "mean_reward": 1050.0,
    "mean_reward_ci95": [1000.0, 1100.0],
    "normalized_score": 99.0,
    "normalized_score_ci95": [98.0, 99.9],
}


def make_agent(folder: Path, name: str, algo: str, dataset: str = HOPPER, *, known: bool = True, **more: Any) -> None:
    """A folder with what the list reads."""
    results: dict[str, Any] = {
        "algo": algo,
        "dataset": dataset,
        "dataset_fingerprint": f"of {dataset}",
        "checkpoint": "last",
        "gradient_steps": 16_000,
        "seed": 0,
        "mean_reward": 900.04,
        "mean_reward_ci95": [800.0, 1000.0],
        "normalized_score": 84.04 if known else None,
        "normalized_score_ci95": [70.0, 95.5] if known else None,
        "behavior_normalized_score": 35.7 if known else None,
        "n_eval_episodes": 20,
        "eval_seed": 1000,
        "best": None,
        "seeds": {"mean": 80.0, "std": 2.5, "n": 3},
        "data": {"n_transitions": 500_000, "mean_return": 1143.0},
        "command": f"python -m zoo train --algo {algo} --dataset {dataset}",
    }
    write_json(folder / name / "results.json", results | more)
    for file, size in {"config.json": 512, "model.safetensors": 1024, "manifest.json": 512, "replay.mp4": 10_240}.items():
        (folder / name / file).write_bytes(b"x" * size)


def make_bc_record(folder: Path, seed: int, score: float | None, dataset: str = HOPPER, **more: Any) -> None:
    """A record as the benchmark writes it."""
    result = {"normalized_score": score, "mean_reward": score, "gradient_steps": 30_000, "n_eval_episodes": 20}
    result |= {"eval_seed": 9, "n_eval_envs": 1, "env_id": "Hopper-v5"}
    record = {
        "key": "k",
        "state": "done",
        "config": {"name": "bc", "algo": "bc", "dataset": dataset, "seed": seed, "hyperparameters": {}, "evaluation": {}},
        "data": {"fingerprint": f"of {dataset}"},
        "host": "a machine",
        "versions": {"torch": "2.13.0"},
        "seconds": dict.fromkeys(("total", "fit", "training", "evaluation"), 1.0),
        **dict.fromkeys(("last", "best"), None if score is None else result),
        "ended": "2026-01-01",
    }
    write_json(folder / f"bc-{seed}-{len(list(folder.glob('*')))}.json", record | more)


def rows(text: str) -> dict[str, dict[str, str]]:
    """The table, by agent and column."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {line[0].partition("]")[0][1:]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


def test_the_list_has_a_row_per_agent_by_dataset_and_algorithm(tmp_path: Path) -> None:
    make_agent(tmp_path, "qdq-hopper-medium", "qdq")
    make_agent(tmp_path, "dac-mine", "dac", MINE, known=False, seeds=None)
    make_agent(tmp_path, "dac-hopper-medium", "dac", best=BEST)
    (tmp_path / "notes").mkdir()
    text = write_index(tmp_path).read_text()
    table = rows(text)
    assert list(table) == ["dac-hopper-medium", "qdq-hopper-medium", "dac-mine"]
    assert list(table["dac-hopper-medium"].values())[1:] == [
        *("genoffline/hopper/medium-v1 (500,000)", "84.0 [70.0, 95.5]", "35.7", "", "16,000", "0", "80.0 ± 2.5 (3)"),
        *("99.0 [98.0, 99.9]", "2"),
        f"{sum(file.stat().st_size for file in (tmp_path / 'dac-hopper-medium').iterdir()) / 1024:.0f}",
    ]
    collect, train, evaluate = text.split("`dac-hopper-medium`\n\n```bash\n")[1].splitlines()[:3]
    assert collect == "python -m zoo collect genoffline/hopper/medium-v1 --steps 500000" and train.startswith(
        "python -m zoo train"
    )
    assert evaluate == "python -m zoo evaluate --algo dac --dataset genoffline/hopper/medium-v1 -n 20 --seed 1000"
    assert "collect mine" not in text
    assert (table["dac-mine"]["last checkpoint"], table["dac-mine"]["data"]) == ("900.0 [800.0, 1000.0]", "1143.0")
    assert table["dac-mine"]["seeds"] == "" and "not known, the numbers are returns" in text
    assert (
        "no finished run of BC in the benchmark's records on: genoffline/hopper/medium-v1 (500,000), mine (500,000)." in text
    )
    assert "\npython -m zoo train --algo qdq --dataset genoffline/hopper/medium-v1\n" in text


def test_an_agent_chosen_by_its_score_is_not_shown_as_the_last(tmp_path: Path) -> None:
    make_agent(tmp_path, "dac-hopper-medium", "dac", checkpoint="best")
    row = rows(write_index(tmp_path).read_text())["dac-hopper-medium"]
    assert (row["last checkpoint"], row["best checkpoint"]) == ("", "84.0 [70.0, 95.5]")


def test_behaviour_cloning_stands_beside_agents_of_the_same_data(tmp_path: Path) -> None:
    models, logs = tmp_path / "models", tmp_path / "logs" / "benchmark" / "jobs"
    make_agent(models, "dac-hopper-medium", "dac")
    make_agent(models, "dac-mine", "dac", MINE)
    make_bc_record(logs, 0, 8.0)
    make_bc_record(logs, 1, 10.0)
    make_bc_record(logs, 1, 90.0, ended="2025-01-01")  # made before
    make_bc_record(logs, 2, 50.0, state="failed", error="no memory")
    before = {
        "name": "bc",
        "algo": "bc",
        "dataset": HOPPER,
        "seed": 4,
        "hyperparameters": {"learning_rate": 1.0},
        "evaluation": {},
    }
    make_bc_record(logs, 4, 60.0, config=before, ended="2025-01-01")  # of an older plan
    make_bc_record(logs, 3, None)
    make_bc_record(logs, 0, 70.0, MINE, data={"fingerprint": "of other data with this name"})
    text = write_index(models, tmp_path / "logs").read_text()
    table = rows(text)
    assert (table["dac-hopper-medium"]["BC"], table["dac-mine"]["BC"]) == ("9.0 ± 1.4 (2)", "")
    assert "(30,000 updates, 20 episodes from seed 9)" in text and "records on: mine (500,000)." in text
    shutil.rmtree(tmp_path / "logs")
    assert write_index(models, tmp_path / "logs").read_text() == text, "what was known stays known where there are no logs"
    assert write_index(models).read_text() == text
    assert list(json.loads((models / "bc.json").read_text())) == [f"of {HOPPER}"]
    assert find_bc(tmp_path) == {}


def test_an_empty_folder_says_how_to_fill_it_and_a_broken_agent_is_named(tmp_path: Path) -> None:
    assert "zoo publish" in index_text([], {}) and "zoo publish" in write_index(tmp_path).read_text()
    make_agent(tmp_path, "dac-mine", "dac")
    (tmp_path / "dac-mine" / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"dac-mine.*is not a valid result of an evaluation"):
        write_index(tmp_path)
