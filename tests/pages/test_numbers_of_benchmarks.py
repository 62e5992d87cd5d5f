"""What benchmarks' reports and the pages on them say is in the committed records."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from recorded import (
    BENCHMARK,
    CLIPPED,
    HOPPER,
    LEARNING,
    LIBRARY,
    ROOT,
    STITCH,
    WALKER,
    minutes,
    plan_of,
    results_of,
    said_of,
)

from zoo.benchmark import report
from zoo.benchmark.results import Results, title


@pytest.mark.parametrize("name", ["claims", "cpu", "learning", "small", "tied"])
def test_the_report_is_what_the_records_make(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for drawing in [each for each in vars(report) if each.startswith("draw_")]:
        monkeypatch.setattr(report, drawing, lambda *_: [])
    committed = BENCHMARK.with_name(name)
    text = (committed / "README.md").read_text()
    command = next(line for line in text.splitlines() if line.startswith("python -m zoo benchmark"))
    for file in report.write_report(plan_of(name), committed / "records", tmp_path, command):
        assert file.read_text() == (committed / file.name).read_text(), file.name


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


def test_what_the_zoos_page_says_of_clipped_noise_is_in_its_records(results: Results) -> None:
    page = " ".join((ROOT / "zoo" / "README.md").read_text().split())
    means = {name: results.scores(name, CLIPPED).mean() for name in results.algorithms}
    order = ", ".join(f"{title(name)} {means[name]:.0f}" for name in sorted(means, key=lambda name: -means[name]))
    assert f"{order}; the data have {results.data(CLIPPED)['normalized_score']:.0f}." in page


def test_processor_minutes_on_the_page_on_choosing_are_the_benchmarks(results: Results) -> None:
    row = re.search(r"clipped noise, processor minutes a run: ([^|]*)", (LIBRARY / "README.md").read_text())
    assert row is not None and len(said_of(row[1])) == 10
    for algo, number in said_of(row[1]):
        spent = minutes(results, algo, CLIPPED)
        assert float(number) == pytest.approx(spent, abs=0.05 if "." in number else 0.5), algo


def seeds_said(results: Results, dataset: str) -> str:
    """How many seeds there are of which algorithm; six or more with equally many are counted, the fewest are the others."""
    of: dict[int, list[str]] = {}
    for name in results.algorithms:
        if len(scores := results.scores(name, dataset)):
            of.setdefault(len(scores), []).append(title(name))
    numbers, parts = {1: "one", 2: "two", 3: "three"}, []
    for count in sorted(of, reverse=True):
        *most, last = of[count]
        few = f"{', '.join(most)} and {last}" if most else last
        parts.append(f"{numbers[count]} seeds of {few if len(of[count]) < 6 else f'{len(of[count])} algorithms'}")
    return ", ".join([*parts[:-1], f"{numbers[min(of)]} of the others"]) if len(of) > 1 else f"{numbers[min(of)]} seed each"


def small_digest(results: Results, dataset: str) -> str:
    """A line of the zoo's page: what all algorithms reached, the best first."""
    means = {name: scores.mean() for name in results.algorithms if len(scores := results.scores(name, dataset))}
    order = ", ".join(f"{title(name)} {round(means[name])}" for name in sorted(means, key=lambda name: -means[name]))
    name = dataset.removeprefix("genoffline/").replace("/", " ").replace("pointmaze stitch-v0", "Stitching maze")
    for env in ("Hopper", "Walker2d", "HalfCheetah"):
        name = name.replace(env.lower(), env)
    data = f"the data have {results.data(dataset)['normalized_score']:.0f}"
    path = ROOT / "zoo/figures/datasets" / f"{dataset.replace('/', '-')}.json"
    if "maze" not in dataset:
        data += f", their best episode {json.loads(path.read_text())['returns']['score_quartiles'][-1]:.0f}"
    return f"- {name} ({seeds_said(results, dataset)}): {order}; {data}."


def test_what_the_zoos_page_says_of_the_small_benchmark_is_in_its_records() -> None:
    results = results_of("small")
    page = " ".join((ROOT / "zoo" / "README.md").read_text().split())
    hopper, walker = ("genoffline/hopper/medium-replay-v1", "genoffline/walker2d/medium-v1")
    recorded = [dataset for dataset in results.datasets if any(len(results.scores(n, dataset)) for n in results.algorithms)]
    assert len(recorded) >= 6
    for dataset in recorded:
        assert small_digest(results, dataset) in page

    def gain(dataset: str) -> float:
        return float(results.scores("dac_held", dataset).mean() - results.scores("dac", dataset).mean())

    held = (
        f"Held at 0.05, it gains {gain('genoffline/hopper/medium-v1'):.0f} points on Hopper and {gain(walker):.0f} on Walker2d"
    )
    assert held in page
    assert f"Held at 0.05, DAC arrives in {results.scores('dac_held', STITCH).mean():.0f}%" in page

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


TIED_SET = "genoffline/walker2d/medium-replay-v1"
TIED = {
    "td3_bc": "TD3BC, α = 2.5 (paper)",
    "td3_bc_10": "TD3BC, α = 10",
    "td3_bc_40": "TD3BC, α = 40",
    "td3_bc_160": "TD3BC, α = 160",
    "td3_bc_long": "TD3BC, α = 2.5, three times the updates",
    "qdq": "QDQ, λ = 0.8 (table)",
    "qdq_middle": "QDQ, λ = 0.3",
    "qdq_mean": "QDQ, λ = 0.3, the mean in the backup",
    "qdq_plain": "QDQ, λ = 0.3, without its penalty",
    "qdq_loose": "QDQ, λ = 0.05",
    "cped": "CPED, α falling to 1.5",
    "cped_middle": "CPED, α = 0.1",
    "cped_distance": "CPED with the distance, α = 0.36",
    "cped_free": "CPED without its constraint",
    "iql": "IQL",
}


def tied_row(results: Results, name: str) -> str:
    of_seeds = {record["config"]["seed"]: record["final"]["mean"] for record in results.records(name, TIED_SET)}
    return f"| {TIED[name]} | {', '.join(f'{of_seeds[seed]:.1f}' for seed in sorted(of_seeds))} |"


def test_what_the_zoos_page_says_of_tied_actors_is_in_the_records() -> None:
    results, page = results_of("tied"), (ROOT / "zoo" / "README.md").read_text()
    rows = [tied_row(results, name) for name in TIED]
    assert "\n".join(rows) in page and all(row.count(".") for row in rows)
    assert f"imitation {results.scores('bc', TIED_SET).mean():.0f})" in page


def test_what_the_zoos_page_says_of_quiet_dac_and_of_qdq_on_halfcheetah_is_in_the_records() -> None:
    small, tied = results_of("small"), results_of("tied")
    page = " ".join((ROOT / "zoo" / "README.md").read_text().split())
    walker, cheetah = (f"genoffline/{env}/medium-v1" for env in ("walker2d", "halfcheetah"))
    quiet = {dataset: small.scores("dac_quiet", dataset)[0] for dataset in (walker, cheetah)}
    assert f"ends at {quiet[walker]:.1f} there and at {quiet[cheetah]:.1f} on HalfCheetah" in page
    assert all(score > small.scores("bc", dataset).mean() for dataset, score in quiet.items())
    assert f"with 0.1 it ends [at {tied.scores('qdq_tenth', cheetah).mean():.1f}]" in page
