"""Numbers of the pages are those of the records."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_genoffline import ALGOS
from zoo.benchmark import report
from zoo.benchmark.plan import Plan, read_plan
from zoo.benchmark.records import read_cells
from zoo.benchmark.results import Results, title
from zoo.recipes import collectible
from zoo.runs.reading import read_yaml

ROOT = Path(__file__).parents[1]
BENCHMARK = ROOT / "zoo" / "benchmarks" / "cpu"
LIBRARY = ROOT / "sb3_genoffline"
INSPECTIONS = sorted((ROOT / "zoo" / "figures" / "datasets").glob("*.json"))
TITLES = {"TD3+BC": "td3_bc", "TD3BC": "td3_bc"} | {
    name: name.lower() for name in ("BC", "IQL", "CQL", "AWAC", "SPOT", "DQL", "DAC", "QDQ", "CPED")
}
NAMES = "|".join(map(re.escape, TITLES))
SAID = re.compile(rf"((?:\b(?:{NAMES})(?:, | and )?)+) (\d+(?:\.\d)?(?: to \d+)?†?)")
"""``AWAC and IQL 6 to 7``, ``SPOT 39†``"""
DATASETS = {
    "HalfCheetah": "genoffline/halfcheetah/medium-replay-v0",
    "Walker2d": "genoffline/walker2d/clipped-noise-v0",
    "Stitching": "genoffline/pointmaze/stitch-v0",
}


@cache
def plan_of(name: str) -> Plan:
    return read_plan(BENCHMARK.with_name(f"{name}.yml"))


@cache
def results_of(name: str) -> Results:
    """Of a benchmark, from its committed records."""
    plan = plan_of(name)
    return Results(plan.algorithms, plan.datasets, read_cells(plan, BENCHMARK.with_name(name) / "records"))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(BENCHMARK.name)


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(BENCHMARK.name)


def said_of(text: str) -> list[tuple[str, str]]:
    """(algorithm, number) of all that a text says."""
    return [(TITLES[name], number) for names, number in SAID.findall(text) for name in re.split(", | and ", names) if name]


def spread(values: np.ndarray) -> str:
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def minutes(results: Results, algo: str, dataset: str) -> float:
    return float(np.mean([record["seconds"]["cpu"] for record in results.records(algo, dataset)]) / 60)


@pytest.mark.parametrize("name", ["claims", "cpu", "learning", "small"])
def test_the_report_is_what_the_records_make(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for drawing in [each for each in vars(report) if each.startswith("draw_")]:
        monkeypatch.setattr(report, drawing, lambda *_: [])
    committed = BENCHMARK.with_name(name)
    text = (committed / "README.md").read_text()
    command = next(line for line in text.splitlines() if line.startswith("python -m zoo benchmark"))
    for file in report.write_report(plan_of(name), committed / "records", tmp_path, command):
        assert file.read_text() == (committed / file.name).read_text(), file.name


def dagger(results: Results, algo: str, dataset: str) -> str:
    """What marks runs that were made with other settings than the plan has now."""
    return "†" if any(cell.outdated for cell in results.at(algo, dataset)) else ""


@pytest.mark.parametrize("algo", sorted({*TITLES.values()}))
def test_results_on_an_algorithms_page_are_the_benchmarks(algo: str, results: Results) -> None:
    page, rows, marks = (LIBRARY / algo / "README.md").read_text(), 0, set()
    for dataset in DATASETS.values():
        data, bc = f"{results.data(dataset)['normalized_score']:.1f}", results.scores("bc", dataset)
        final, mark = results.scores(algo, dataset), dagger(results, algo, dataset)
        spent, updates = minutes(results, algo, dataset), results.records(algo, dataset)[0]["updates"]
        short, numbers = dataset.removeprefix("genoffline/"), ", ".join(f"{value:.1f}{mark}" for value in final)
        plain = [f"{spread(values)}{of} ({len(values)})" for values, of in ([(bc, ""), (final, mark)][algo == "bc" :])]
        rows += (
            f"| {short.removesuffix('-v0')} | {data} | {' | '.join(plain)} |\n" in page
            or (
                f"| {short} | {data} | {spread(bc)} | {numbers} | **{spread(final)}** | {updates:,} | "
                f"{spent:.{0 if spent >= 9.95 else 1}f} |"
            )
            in page
        )
        marks.add(mark)
    assert rows == len(DATASETS) and ("† " in page) == ("†" in marks)


def test_the_maze_is_left_by_awac_again(results: Results) -> None:
    (record,) = results.records("awac", DATASETS["Stitching"])
    curve = dict(zip(record["curve"]["timesteps"], record["curve"]["mean"], strict=True))
    said = "its checkpoints after 6,000 and 9,000 updates reach the goal in every episode, the last in none."
    assert (curve[6_000], curve[9_000], curve[30_000]) == (100, 100, 0)
    assert said in " ".join((LIBRARY / "awac" / "README.md").read_text().split())


def test_what_the_zoos_page_says_of_the_benchmark_is_in_its_records(results: Results) -> None:
    page = (ROOT / "zoo" / "README.md").read_text()
    items = re.split(r"^\d\. ", page.partition("has 40 runs")[2].partition("\n## ")[0], flags=re.MULTILINE)[1:]
    checked = 0
    for (start, dataset), item in zip(DATASETS.items(), items, strict=False):
        item = " ".join(item.split())
        assert item.startswith(start) and f"(data {results.data(dataset)['normalized_score']:.0f})" in item
        for algo, number in said_of(item):
            expected = f"{results.scores(algo, dataset).mean():.0f}{dagger(results, algo, dataset)}"
            assert expected == number, (dataset, algo)
            checked += 1
    assert checked == 30
    for names, number in SAID.findall(" ".join(items[3].split())):
        algos = [TITLES[name] for name in re.split(", | and ", names) if name]
        spent = [minutes(results, algo, dataset) for algo in algos for dataset in DATASETS.values()]
        assert number == " to ".join(dict.fromkeys(f"{value:.0f}" for value in (min(spent), max(spent)))), names


def test_processor_minutes_on_the_page_on_choosing_are_the_benchmarks(results: Results) -> None:
    row = re.search(r"HalfCheetah, processor minutes a run: ([^|]*)", (LIBRARY / "README.md").read_text())
    assert row is not None and len(said_of(row[1])) == 10
    for algo, number in said_of(row[1]):
        spent = minutes(results, algo, DATASETS["HalfCheetah"])
        assert float(number) == pytest.approx(spent, abs=0.05 if "." in number else 0.5), algo


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
    dataset, page = DATASETS["Walker2d"], (LIBRARY / "data" / "README.md").read_text()
    there = results.data(dataset)
    (here,) = [found for path in INSPECTIONS if (found := json.loads(path.read_text()))["id"] == dataset]
    said = [f"{n:,.0f}" for n in (there["n_episodes"], there["mean_return"], here["n_episodes"], here["returns"]["mean"])]
    assert re.search(r"{} averaging {} on one,\s{} averaging {} on another".format(*said), page), said


def test_dacs_page_says_what_an_update_costs_beside_td3_bcs() -> None:
    times = json.loads((ROOT / "zoo" / "figures" / "beside-plain.json").read_text())["algorithms"]
    cpu, paper = (times["dac"][setting]["ms"] / times["td3_bc"][setting]["ms"] for setting in ("cpu", "paper"))
    page = (LIBRARY / "dac" / "README.md").read_text()
    assert 1.7 < cpu < 2 and "nearly twice the processor time of TD3+BC's" in page
    assert f"[{paper:.0f} times](../../zoo/README.md#beside-the-plain-form) at the papers' settings" in page


def test_how_often_diffuser_arrives_is_in_its_record() -> None:
    page, record = (
        (LIBRARY / "diffuser" / "README.md").read_text(),
        json.loads((ROOT / "zoo/figures/plans-guide.json").read_text()),
    )
    found = {each["guide_scale"]: each["normalized_score"] for each in record["results"]}
    assert f"| `guide_scale` | {' | '.join(f'{scale:g}' for scale in found)} |" in page
    assert f"| arrives | {' | '.join(f'{score:.0f}%' for score in found.values())} |" in page
    assert {each["n_eval_episodes"] for each in record["results"]} == {10}


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


def test_dacs_page_says_what_both_codes_did() -> None:
    page = (LIBRARY / "dac" / "README.md").read_text()
    record = json.loads((ROOT / "zoo" / "figures" / "beside.json").read_text())["runs"]
    for name, runs in (("ours", record["ours"]), ("the authors'", record["the authors' code"])):
        (row,) = re.findall(rf"^\| {name}, seeds 0 and 1 \| (.*) \|$", page, re.MULTILINE)
        assert [run["steps"] for run in runs] == [list(range(3000, 30001, 3000))] * 2
        expected = [[f"{run['q'][at]:.0f}" for run in runs] for at in (0, 4, 9)] + [
            [f"{run['score'][-1]:.1f}" for run in runs]
        ]
        assert [cell.split(" and ") for cell in row.split(" | ")] == expected
        assert all(run["eta"][0] < 0.02 and run["score"][-1] < 9.6 for run in runs)
    means = [np.mean([run["q"][-1] for run in runs]) for runs in (record["the authors' code"], record["ours"])]
    assert f"the authors' two seeds is {100 * (means[0] / means[1] - 1):.0f}% above ours" in " ".join(page.split())


def test_what_less_noise_in_acting_does_is_in_its_records() -> None:
    page, folder = (LIBRARY / "dac" / "README.md").read_text(), ROOT / "zoo" / "figures" / "acting-noise"
    sweep, quiet = (json.loads((folder / f"{name}.json").read_text()) for name in ("sweep", "quiet"))
    scores = {found["acting_noise_scale"]: found["normalized_score"] for found in sweep["results"]}
    best = max(scores, key=scores.__getitem__)
    cells = [f"**{scores[scale]:.1f}**" if scale == best else f"{scores[scale]:.1f}" for scale in (1, 0.5, 0.25, 0.1)]
    assert f"| score of 10 episodes, on which a value is chosen | {' | '.join(cells)} |" in page
    assert quiet["acting_noise_scale"] == best and quiet["eval_seed"] != sweep["results"][0]["eval_seed"]
    agent = json.loads((ROOT / "hub_models" / "dac-walker2d-clipped-noise" / "results.json").read_text())
    assert agent["eval_seed"] == quiet["eval_seed"] and agent["n_eval_episodes"] == quiet["n_eval_episodes"] == 20
    assert (
        f"The chosen {best} scores {quiet['normalized_score']:.1f} in 20 episodes that chose nothing, the paper's 1 scores "
        f"{agent['normalized_score']:.1f} there:"
    ) in page


def test_what_the_zoos_page_says_of_the_small_benchmark_is_in_its_records() -> None:
    plan, results = plan_of("small"), results_of("small")
    page = " ".join((ROOT / "zoo" / "README.md").read_text().split())
    hopper, walker = ("genoffline/hopper/medium-replay-v1", "genoffline/walker2d/medium-v1")
    for dataset in (hopper, walker):
        means = {name: scores.mean() for name in plan.algorithms if len(scores := results.scores(name, dataset))}
        order = ", ".join(f"{title(name)} {means[name]:.0f}" for name in sorted(means, key=lambda name: -means[name]))
        name = dataset.removeprefix("genoffline/").replace("/", " ").replace("hopper", "Hopper").replace("walker", "Walker")
        assert f"- {name}: {order}; the data have {results.data(dataset)['normalized_score']:.0f}, their best" in page
        inspected = json.loads((ROOT / "zoo/figures/datasets" / f"{dataset.replace('/', '-')}.json").read_text())
        assert f"their best episode {inspected['returns']['score_quartiles'][-1]:.0f}" in page
    seeds = {dataset: [len(results.scores(name, dataset)) for name in plan.algorithms] for dataset in (hopper, walker)}
    assert f"three seeds of QDQ and CPED, two seeds of {seeds[hopper].count(2)} algorithms and one" in page
    assert f"three seeds of QDQ and CPED, two seeds of {seeds[walker].count(2)} algorithms and one of" in page
    assert seeds[hopper].count(3) == seeds[walker].count(3) == 2
    ones = [title(name) for name, number in zip(plan.algorithms, seeds[walker], strict=True) if number == 1]
    assert not ones or f"algorithms and one of {', '.join(ones)}:" in page
    for dataset, name in (
        ("genoffline/pointmaze/stitch-v0", "Stitching maze"),
        ("genoffline/hopper/medium-v1", "Hopper medium-v1"),
    ):
        means = {name: scores.mean() for name in plan.algorithms if len(scores := results.scores(name, dataset))}
        order = ", ".join(f"{title(name)} {means[name]:.0f}" for name in sorted(means, key=lambda name: -means[name]))
        assert f"- {name}, one seed: {order}; the data have {results.data(dataset)['normalized_score']:.0f}." in page

    def run(name: str, seed: int, dataset: str = hopper) -> dict[str, Any]:
        return next(record for record in results.records(name, dataset) if record["config"]["seed"] == seed)

    last_five = run("iql", 0)["final"]["scores"]
    assert f"spread over {max(last_five) - min(last_five):.0f} points" in page
    final, other = run("mcq", 1)["final"], run("mcq", 0)["final"]
    assert final["checkpoints"][0] == 12_000 and final["checkpoints"][-1] == 20_000
    assert f"scores {final['scores'][0]:.0f} (" in page and f"the same run is at {final['scores'][-1]:.0f}" in page
    assert f"The other seed ends at {other['mean']:.0f}" in page
    of_walker, of_hopper = ([f"{run('onestep', seed, d)['final']['mean']:.0f}" for seed in (0, 1)] for d in (walker, hopper))
    assert f"{' and '.join(of_walker)} on Walker2d, at {' and '.join(of_hopper)} on Hopper" in page


LEARNING = results_of("learning")
LEARNED = [algo for algo in LEARNING.algorithms if algo != "bc" and LEARNING.records(algo)]
HOPPER, WALKER = "genoffline/hopper/medium-replay-v1", "genoffline/walker2d/medium-v1"
SEEDS = {1: "one seed so far", 2: "two seeds", 3: "three seeds"}


@pytest.mark.parametrize("algo", LEARNED)
def test_what_the_profile_cpu_learns_is_on_an_algorithms_page(algo: str) -> None:
    page, learning, small = (LIBRARY / algo / "README.md").read_text(), LEARNING, results_of("small")
    for dataset in (HOPPER, WALKER):
        bc, ours = (", ".join(f"{score:.1f}" for score in learning.scores(name, dataset)) or "–" for name in ("bc", algo))
        data = learning.data(dataset)["normalized_score"]
        assert f"| {dataset.removeprefix('genoffline/')} | {data:.1f} | {bc} | {ours} |\n" in page
    records = [record for dataset in (HOPPER, WALKER) for record in learning.records(algo, dataset)]
    spent = [record["seconds"]["cpu"] / 60 for record in records]
    span = " to ".join(dict.fromkeys(f"{value:.0f}" for value in (min(spent), max(spent))))
    updates = {record["updates"] for record in records}
    assert max(spent) <= (50 if algo == "diffuser" else 12) and len(updates) == 1
    assert f"Profile `cpu`, {updates.pop():,} updates in {span} minutes of processor time" in page
    assert SEEDS[max(len(learning.scores(algo, dataset)) for dataset in (HOPPER, WALKER))] in " ".join(page.split())
    means = [f"{small.scores(algo, dataset).mean():.0f}" for dataset in (HOPPER, WALKER)]
    assert (
        f"{title(algo)} scores {means[0]} on Hopper and {means[1]} on Walker2d." in page
        or f"benchmarks/small/learning-{algo}.png" in page
    )


@pytest.mark.parametrize("algo", ALGOS)
def test_a_pages_commands_make_what_is_on_record(algo: str) -> None:
    """The first training of "Replicate" is seed 0 of a benchmark, with its scores beside it; others say they have none."""
    section = (LIBRARY / algo / "README.md").read_text().partition("\n## Replicate\n")[2].partition("\n##")[0]
    name, profile = ("learning", "cpu") if LEARNING.records(algo, HOPPER) else ("small", "small")
    cell = next(cell for cell in results_of(name).at(algo, HOPPER) if cell.record and cell.record["config"]["seed"] == 0)
    record = cell.record
    assert record is not None and not cell.outdated
    train, evaluate, *others = [line for line in section.splitlines() if line.startswith("python -m zoo ")]
    assert train == f"python -m zoo train --algo {algo} --dataset {HOPPER} --collect --profile {profile} --seed 0 -f logs"
    last, protocol = record["last"], record["config"]["evaluation"]
    assert (protocol["final_episodes"], protocol["final_seed"], last["n_eval_envs"]) == (20, 20_000, 10)
    said = f"# last checkpoint {last['normalized_score']:.1f}; the run's final score is {record['final']['mean']:.1f}"
    assert re.fullmatch(rf"python -m zoo evaluate .* -f logs( --exp-id 1)? -n 20 --seed 20000   {re.escape(said)}", evaluate)
    for line in others:
        assert "zoo train" not in line or "no result of ours" in line or "--eval-freq 0" in line or "of the table" in line


def test_the_generative_three_are_where_their_pages_say() -> None:
    def mean(algo: str, dataset: str) -> float:
        return float(LEARNING.scores(algo, dataset).mean())

    for dataset in (HOPPER, WALKER):
        assert abs(mean("idql", dataset) - mean("bc", dataset)) < 3
        assert mean("sfbc", dataset) < min(mean("bc", dataset), LEARNING.data(dataset)["normalized_score"])
    assert mean("decision_transformer", HOPPER) > mean("bc", HOPPER) + 3
    assert mean("decision_transformer", WALKER) < mean("bc", WALKER)
    assert max(LEARNING.scores("decision_transformer", WALKER)) > mean("bc", WALKER)
    better = [algo for algo in LEARNED if mean(algo, HOPPER) > mean("diffuser", HOPPER)]
    assert len(better) <= 2, "Diffuser is among the best on Hopper"


def learned(dataset: str) -> str:
    """Every algorithm that has a result there, the best first; ¹ is one seed."""
    scores = {algo: found for algo in LEARNING.algorithms if len(found := LEARNING.scores(algo, dataset))}
    order = sorted(scores, key=lambda algo: -scores[algo].mean())
    return ", ".join(f"{title(algo)} {scores[algo].mean():.0f}{'¹' * (len(scores[algo]) == 1)}" for algo in order)


def test_every_algorithm_of_the_learning_report_is_in_its_digests() -> None:
    page = " ".join((ROOT / "zoo" / "README.md").read_text().split())
    for name, dataset in (("Hopper medium-replay-v1", HOPPER), ("Walker2d medium-v1", WALKER)):
        assert f"- {name} (data {LEARNING.data(dataset)['normalized_score']:.0f}): {learned(dataset)}." in page
    assert f"Walker2d medium-v1, data 34: {learned(WALKER)} (cpu)." in (LIBRARY / "README.md").read_text()


def test_what_decision_transformer_reaches_is_in_the_pictures_record() -> None:
    page = " ".join((LIBRARY / "decision_transformer" / "README.md").read_text().split())
    results = json.loads((ROOT / "zoo/figures/target-return.json").read_text())["results"]
    reached = {found["target_return"]: f"{found['mean_reward']:.0f}" for found in results}
    assert f"200, 500 and 1000 reach {reached[200]}, {reached[500]} and {reached[1000]}." in page
    assert f"2000 reaches {reached[2000]} and 3000 reaches {reached[3000]} (10 episodes each)" in page
    assert f"# {', '.join(reached.values())}" in page
    (record,) = [each for each in LEARNING.records("decision_transformer", HOPPER) if each["config"]["seed"] == 0]
    assert record["config"]["hyperparameters"].get("target_return") is None  # "the default, the largest return of their data"
    for found in results:  # it is the benchmark's agent, or one that the same command trained on the same data
        assert (found["n_eval_episodes"], found["seed"], found["gradient_steps"]) == (10, 0, record["updates"])
        assert found["dataset_fingerprint"] == record["data"]["fingerprint"]


@pytest.mark.parametrize("name", ["learning", "small"])
def test_ivr_is_the_better_of_its_two_forms(name: str) -> None:
    results = results_of(name)
    expected = []
    for dataset in results.datasets:
        both = [results.scores(algo, dataset) for algo in ("sql", "eql")]
        expected.append(f"*{max(scores.mean() for scores in both):.1f}*" if all(map(len, both)) else "–")
    report = (BENCHMARK.with_name(name) / "README.md").read_text()
    (row,) = re.findall(r"^\| \*IVR: the better of SQL and EQL\* \| (.*) \|$", report, re.MULTILINE)
    assert row.split(" | ")[: len(expected)] == expected and sum(cell != "–" for cell in expected) >= 2


def test_how_fast_agents_act_is_in_the_records() -> None:
    page, folder = (LIBRARY / "deploy" / "README.md").read_text(), ROOT / "zoo" / "figures" / "acting"
    for algo in ("dac", "qdq", "cped"):
        record = json.loads((folder / f"{algo}.json").read_text())
        assert record["agent"] == f"{algo}-hopper-medium-replay-v1" and record["processor"] in page
        times = [record["ms"][batch][way]["fastest"] for batch in ("1", "100") for way in ("predict", "onnxruntime")]
        cells = " | ".join(f"{ms:.3g}" if ms < 100 else f"{ms:.0f}" for ms in times)
        assert re.search(rf"^\| \[{algo.upper()}\]\(.*\| {re.escape(cells)} \|$", page, re.MULTILINE), (algo, cells)


PARTS = {
    "qdq": {"qdq": "QDQ", "qdq_free": "QDQ, no penalty"},
    "cped": {
        "cped": "CPED: the released schedule of α",
        "cped_dual": "dual α",
        "cped_held": "α = 5, `dequantization=0.1`",
        "cped_free": "no constraint",
        "cped_plain": "CPED, critics without LayerNorm",
        "cped_plain_free": "no constraint, critics without LayerNorm",
    },
}


@pytest.mark.parametrize("algo", PARTS)
def test_what_a_part_is_worth_is_in_the_records_of_the_claims(algo: str) -> None:
    page, claims, small = (ROOT / f"sb3_genoffline/{algo}/README.md").read_text(), results_of("claims"), results_of("small")
    datasets = ("genoffline/hopper/medium-replay-v1", "genoffline/walker2d/medium-v1")

    def row(label: str, results: Results, name: str) -> str:
        cells = []
        for dataset in datasets:
            of_seeds = {record["config"]["seed"]: record["final"]["mean"] for record in results.records(name, dataset)}
            each = ", ".join(f"{of_seeds[seed]:.1f}" for seed in sorted(of_seeds))
            cells += [each, f"{np.mean([*of_seeds.values()]):.1f}"] if of_seeds else ["–", "–"]
        return f"| {label} | {' | '.join(cells)} |"

    data = [f"{claims.data(dataset)['normalized_score']:.1f}" for dataset in datasets]
    assert f"| *the data* | | {data[0]} | | {data[1]} |" in page and row("BC", small, "bc") in page
    for name, label in PARTS[algo].items():
        assert row(label, claims, name) in page


def test_what_is_said_of_unusual_actions_is_in_the_pictures_records() -> None:
    page = " ".join((ROOT / "sb3_genoffline/qdq/README.md").read_text().split())
    found = json.loads((ROOT / "zoo/figures/uncertainty.json").read_text())["actions"]["random"]
    assert f"(AUC {found['auc']:.2f}; {100 * found['above_q95']:.0f}% of them lie above" in page
    page = " ".join((ROOT / "sb3_genoffline/cped/README.md").read_text().split())
    shares = {
        n: 100 * f["beyond_q99"]
        for n, f in json.loads((ROOT / "zoo/figures/density-hopper.json").read_text())["actions"].items()
    }
    assert f"without it {shares['other']:.0f}% of the actor's actions" in page and f"with it {shares['agent']:.1f}%." in page
    assert f"only {shares['data']:.0f}% of the data's do" in page and shares["other"] < shares["random"] < shares["other"] + 5


def test_what_pages_say_of_the_stitching_maze_is_in_the_small_benchmarks_records() -> None:
    results = results_of("small")
    of, pages = {}, {}
    for algo in ("bc", "iql", "idql", "sfbc", "decision_transformer", "diffuser"):
        (record,) = results.records(algo, "genoffline/pointmaze/stitch-v0")
        of[algo] = record["final"]
        pages[algo] = " ".join((ROOT / f"sb3_genoffline/{algo}/README.md").read_text().split())
    others = f"IQL in {of['iql']['mean']:.0f}%, BC in {of['bc']['mean']:.0f}%, the data in 17%"
    assert (
        set(of["idql"]["scores"]) == {100}
        and f"every episode of its last five evaluations (one seed); {others}" in pages["idql"]
    )
    low, high = min(of["sfbc"]["scores"]), max(of["sfbc"]["scores"])
    assert f"{low:.0f} to {high:.0f}% of the episodes of its last five evaluations (one seed); {others}" in pages["sfbc"]
    sweep = json.loads((ROOT / "zoo/figures/sfbc-alpha.json").read_text())["results"]
    assert [found["selection_alpha"] for found in sweep] == [0, 10, 30] and sweep[0]["n_eval_episodes"] == 8
    scores = [f"{found['normalized_score']:.1f}" for found in sweep]
    assert f"normalised score is {scores[0]}; with 10 and 30 it is {scores[1]} and {scores[2]} (8 episodes" in pages["sfbc"]
    ours, bc = of["decision_transformer"], of["bc"]
    said = " and ".join(f"{score:.0f}" for score in ours["scores"][-2:])
    assert (
        f"its final score is {ours['mean']:.0f}, BC's {bc['mean']:.0f}: its last two checkpoints, after 18,000 and 20,000 "
        f"updates, arrive in {said}% of the episodes, the three before in none"
    ) in pages["decision_transformer"]
    assert ours["checkpoints"][-2:] == [18_000, 20_000] and ours["scores"][:-2] == [0, 0, 0]
    first, last = ", ".join(f"{score:.0f}" for score in of["diffuser"]["scores"][:-1]), of["diffuser"]["scores"][-1]
    assert f"it arrives in {first} and {last:.0f}% of the episodes" in pages["diffuser"]
    sweep = json.loads((ROOT / "zoo/figures/diffuser-guide.json").read_text())["results"]
    scores = [f"{found['normalized_score']:.1f}" for found in sweep]
    assert (
        f"scores are {', '.join(scores[:-1])} and {scores[-1]} ({sweep[0]['n_eval_episodes']} episodes each)"
        in pages["diffuser"]
    )
    assert [found["guide_scale"] for found in sweep] == [0, 0.01, 0.1]
    walker = [record["final"]["mean"] for record in results.records("diffuser", "genoffline/walker2d/medium-v1")]
    assert f"on Walker2d medium-v1 it ends at {' and '.join(f'{score:.1f}' for score in walker)} (" in pages["diffuser"]
