"""Numbers of the README, the zoo's page and the page on deploying are those of the records."""

import json
import re

from recorded import LIBRARY, ROOT, TITLES, results_of

from zoo.recipes import collectible
from zoo.runs.reading import read_yaml


def test_the_readme_counts_algorithms_and_datasets() -> None:
    text = (ROOT / "README.md").read_text()
    assert f"[{len(collectible())} sets](zoo/DATASETS.md)" in text
    assert "Twenty-two algorithms" in text and len(re.findall(r"^\| (?:\*\*)?`\w+\(\"", text, re.MULTILINE)) == 22


def test_what_the_readmes_examples_take_and_score_is_on_record() -> None:
    text = (ROOT / "README.md").read_text()
    (record,) = results_of("small").records("dac_held", "genoffline/hopper/medium-replay-v1")  # the example's settings
    agent = json.loads((ROOT / "hub_models" / "dac-hopper-medium-replay-v1" / "results.json").read_text())
    low, high = (f"{record['seconds'][name] / 60:.0f}" for name in ("cpu", "total"))
    assert f"gradient_steps=20_000, progress_bar=True)  # {low} to {high} minutes on one core" in text
    assert record["updates"] == agent["gradient_steps"] == 20_000
    published, data = agent["normalized_score"], agent["behavior_normalized_score"]
    assert f"# the published agent: {published:.1f}; the data: {data:.1f}" in text
    seconds = json.loads((ROOT / "zoo" / "speed" / "costs.json").read_text())["seconds"]["iql"]  # of 10,000 updates
    updates = read_yaml(LIBRARY / "iql" / "hyperparameters.yml", "settings")["profiles"]["cpu"]["default"]["n_timesteps"]
    assert f"--profile cpu   # about {seconds * updates / 10_000 / 60:.0f} minutes" in text


def test_the_quickstarts_table_and_times_are_those_of_three_quickstarts() -> None:
    page = (ROOT / "zoo" / "README.md").read_text()
    runs = [json.loads((ROOT / "zoo" / "figures" / "quickstart" / f"{seed}.json").read_text()) for seed in range(3)]
    for name, updates, score in (
        ("imitation: BC", "bc_gradient_steps", "bc_normalized_score"),
        ("DAC", "gradient_steps", "normalized_score"),
    ):
        (row,) = re.findall(rf"^\| {name}, ([\d,]+) updates \| (.*) \|$", page, re.MULTILINE)
        assert {int(row[0].replace(",", ""))} == {run[updates] for run in runs}
        assert [float(cell.strip("*%")) for cell in row[1].split(" | ")] == [round(run[score]) for run in runs]
    seconds = runs[0]["seconds"]
    said = re.search(
        r"seed 0 trained for (\d+) s, at (\d+) updates/s; .* took (\d+) s more",
        " ".join(page.partition("## Benchmark")[0].split()),
    )
    assert said is not None
    rest = seconds["total"] - seconds["train"] - seconds["collect"]
    assert list(map(float, said.groups())) == [round(seconds["train"]), round(runs[0]["updates_per_second"]), round(rest)]
    assert [(run["seed"], run["n_eval_episodes"], run["dataset"]) for run in runs] == [
        (seed, 100, "genoffline/pointmaze/stitch-v0") for seed in range(3)
    ]


def test_what_the_zoos_page_says_of_going_online_is_in_its_numbers() -> None:
    page = (ROOT / "zoo" / "README.md").read_text()
    runs = json.loads((ROOT / "zoo" / "figures" / "online.json").read_text())["runs"]
    found = {(run["algorithm"], run["way"]): run for run in runs}
    rows = re.findall(r"^\| (TD3\+BC|IQL|DAC) \((\d+)\) \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) == 3
    for name, start, cells in rows:
        members = [found.get((TITLES[name], way)) for way in ("kept", "dropped", "half")]
        assert {f"{run['start']:.0f}" for run in members if run} == {start}
        expected = [f"{run['end']:.0f} ({run['lowest']:.0f})" if run else "–" for run in members]
        assert [cell.strip("*") for cell in cells.split(" | ")] == expected
    assert f"SAC from scratch scores {found['sac', 'kept']['end']:.0f}." in " ".join(page.split())


def test_how_fast_agents_act_is_in_the_records() -> None:
    page, folder = (LIBRARY / "deploy" / "README.md").read_text(), ROOT / "zoo" / "figures" / "acting"
    for algo in ("dac", "qdq", "cped"):
        record = json.loads((folder / f"{algo}.json").read_text())
        assert record["agent"] == f"{algo}-hopper-medium-replay-v1" and record["processor"] in page
        times = [record["ms"][batch][way]["fastest"] for batch in ("1", "100") for way in ("predict", "onnxruntime")]
        cells = " | ".join(f"{ms:.3g}" if ms < 100 else f"{ms:.0f}" for ms in times)
        assert re.search(rf"^\| \[{algo.upper()}\]\(.*\| {re.escape(cells)} \|$", page, re.MULTILINE), (algo, cells)
