"""Tables and commands that every algorithm's page has say what is on record."""

import json
import re

import numpy as np
import pytest
from recorded import CLIPPED, HOPPER, LEARNED, LEARNING, LIBRARY, ROOT, TITLES, WALKER, dagger, minutes, results_of

from sb3_genoffline import ALGOS
from zoo.benchmark.results import Results, title


def spread(values: np.ndarray) -> str:
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


@pytest.mark.parametrize("algo", sorted({*TITLES.values()}))
def test_results_on_an_algorithms_page_are_the_benchmarks(algo: str, results: Results) -> None:
    page = (LIBRARY / algo / "README.md").read_text()
    data, final = f"{results.data(CLIPPED)['normalized_score']:.1f}", results.scores(algo, CLIPPED)
    both = [results.scores("bc", CLIPPED), final][algo == "bc" :]
    assert f"| walker2d/clipped-noise | {data} | {' | '.join(f'{spread(each)} ({len(each)})' for each in both)} |\n" in page
    spent, updates = minutes(results, algo, CLIPPED), results.records(algo, CLIPPED)[0]["updates"]
    seeds = {1: "one seed", 2: "two seeds"}[len(final)]
    length = f"{updates:,} updates in {spent:.{0 if spent >= 9.95 else 1}f} minutes of processor time"
    assert f"The final score of {seeds}, {length}." in page and not dagger(results, algo, CLIPPED)


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


PARTS = {
    "dac": {"dac": "DAC", "dac_hard": "hard guidance", "dac_min": "minimum of the critics"},
    "qdq": {"qdq": "QDQ", "qdq_free": "QDQ, no penalty"},
    "cped": {
        "cped": "CPED: the released schedule of α",
        "cped_dual": "dual α",
        "cped_held": "α = 5, `dequantization=0.1`",
        "cped_quantile": "dual α, ε the 95% quantile",
        "cped_squash": "dual α, density ends at the bounds",
        "cped_squash_held": "α = 5, density ends at the bounds",
        "cped_distance": "distance, α = 1",
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


def test_where_cpeds_runs_end_is_on_record() -> None:
    page, record = (LIBRARY / "cped" / "README.md").read_text(), json.loads((ROOT / "zoo/figures/cped-nll.json").read_text())
    for name, label in PARTS["cped"].items():
        cells = []
        for dataset in (HOPPER, WALKER):
            runs = [run for run in record["runs"] if (run["setting"], run["dataset"]) == (name, dataset)]
            gaps = [run["nll_pi"] - run["epsilon"] for run in runs if run["nll_pi"] is not None]
            values = [[run[key] for run in runs if run[key] is not None] for key in ("nll_kept", "alpha", "q_mean")]
            each = [(values[0], "{:.2f}"), (gaps, "{:.1f}"), (values[1], "{:.2f}"), (values[2], "{:.0f}")]
            cells += [re.sub("^-(0.0+)$", r"\1", shown.format(np.mean(found))) if found else "–" for found, shown in each]
        assert f"| {label} | {' | '.join(cells)} |" in page, label
