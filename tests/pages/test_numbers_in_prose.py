"""What pages say in sentences is what the records beside them hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.ope import metrics
from zoo.benchmark.plan import read_plan
from zoo.benchmark.records import read_cells
from zoo.benchmark.results import Results

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "zoo" / "figures"
SMALL, CPU = ROOT / "zoo" / "benchmarks" / "small.yml", ROOT / "zoo" / "benchmarks" / "cpu.yml"


def said(page: str) -> str:
    """A page of the library or the zoo, on one line."""
    return " ".join((ROOT / page).read_text().split())


def record(name: str) -> Any:
    return json.loads((FIGURES / name).read_text())


def results(path: Path) -> Results:
    plan = read_plan(path)
    return Results(plan.algorithms, plan.datasets, read_cells(plan, path.with_suffix("") / "records"))


def test_what_the_page_on_judging_says_of_the_glucose_log() -> None:
    page, found = said("sb3_genoffline/ope/README.md"), record("judge.json")
    fqe = {name: each["value"] for name, each in found["policies"].items()}
    truth = {name: each["value"] for name, each in found["truth"].items()}
    assert f"trains {len(fqe)} agents" in page and found["settings"]["patients"] == 400
    chosen, best = max(fqe, key=fqe.__getitem__), max(truth, key=truth.__getitem__)
    place = sorted(fqe, key=lambda name: -fqe[name]).index(best) + 1
    assert (chosen, best, place) == ("dac_1@1800", "td3_bc_1", 3)
    assert f"its best (DAC after 1,800 updates) is worth {truth[chosen]:.1f};" in page
    assert f"the true best (TD3+BC), {truth[best]:.1f}, comes third" in page
    assert f"**Its intervals are far too narrow**: {found['intervals_that_hold']:.0%} contain the truth, not 90." in page
    worst = min(truth, key=truth.__getitem__)
    assert worst == "cql_1@600"
    assert f"CQL after 600 updates has {fqe[worst]:.1f} and is worth −{-truth[worst]:.1f}." in page
    assert f"It carries the warning that {found['policies'][worst]['far']:.0%} of its actions are far" in page
    low = [truth[name] - fqe[name] for name in fqe if fqe[name] < truth[name]]
    assert len(low) > len(fqe) / 2 and np.quantile(low, 0.25) > 0.5 and np.quantile(low, 0.9) < 3.5  # "too low by 1 to 3"
    assert max(each["ess"] for each in found["policies"].values()) < 3  # "effectively uses one or two episodes"
    weighed = max(found["policies"], key=lambda name: found["policies"][name]["wdr"])
    assert weighed.startswith("iql") and f"its own best (IQL) is worth {truth[weighed]:.1f}." in page
    own = found["figures"]["critic"]
    assert own["rank_correlation"] > max(found["figures"][name]["rank_correlation"] for name in ("fqe", "wdr"))
    assert f"though its values are off by {own['absolute_error']:.0f}: the {len(found['estimates']['critic'])} agents" in page


def test_what_the_page_on_judging_says_of_hopper() -> None:
    page, found = said("sb3_genoffline/ope/README.md"), record("judge-hopper.json")
    fqe = {name: each["value"] for name, each in found["policies"].items()}
    truth = {name: found["truth"][name]["value"] for name in fqe}
    algos = {name.rpartition("_")[0] for name in fqe}
    assert f"the last agents of {len(fqe)} runs" in page and f"({len(algos)} algorithms, one or two seeds" in page
    good = np.array([value for value in truth.values() if value > 220])
    assert f"{len(good)} of the {len(truth)} are worth between {good.min():.0f} and {good.max():.0f}" in page
    error = metrics.absolute_error(np.array([*fqe.values()]), np.array([*truth.values()]), rescaled=False)
    assert f"a standard deviation of {good.std():.0f}, where the estimates err by {error:.0f}" in page
    chosen = max(fqe, key=fqe.__getitem__)
    assert chosen == "mcq_2" and f"The choice it leads to (MCQ, seed 1: worth {truth[chosen]:.0f})" in page
    assert sorted(fqe, key=fqe.__getitem__)[:2] in (["bc_1", "bc_2"], ["bc_2", "bc_1"])
    assert f"and the data's value, {found['data_value']:.0f}, lies below all" in page and found["data_value"] < min(
        fqe.values()
    )
    assert f"Its intervals hold the truth for {found['intervals_that_hold']:.0%} of the agents" in page
    for name in ("iql_1", "uwac_1"):
        assert f"{fqe[name] - truth[name]:.0f}" == "48" and f"{truth[name]:.0f}" == "173"
    returns = {name: found["truth"][name]["mean_return"] for name in fqe}
    place = sorted(returns, key=lambda name: -returns[name]).index(chosen) + 1
    by_value = sorted(truth, key=lambda name: -truth[name]).index(chosen) + 1
    assert (
        place == 4
        and f"MCQ's seed 1 has the fourth largest return ({returns[chosen]:,.0f}) and is {by_value}th by value" in page
    )


def test_what_dacs_page_says_of_the_bandit() -> None:
    sets = record("bandit.json")["sets"].values()
    soft, hard = ([100 * each[kind]["ood"] for each in sets] for kind in ("soft", "hard"))
    page = said("sb3_genoffline/dac/README.md")
    assert f"soft guidance puts {min(soft):.0f} to {max(soft):.0f}% of its actions outside the data" in page
    assert f"hard guidance {min(hard):.0f} to {max(hard):.0f}%" in page


def test_how_dacs_multiplier_falls() -> None:
    eta = dict(record("dac-eta.json")["rows"])
    assert f"lets η fall to {eta[2000]:.3f} within 2,000 updates" in said("sb3_genoffline/dac/README.md")


def test_what_cpeds_page_says_of_clipped_noise_and_of_the_maze() -> None:
    page, walks = said("sb3_genoffline/cped/README.md"), record("cped-walks.json")["agents"]
    clipped = [record(f"cped-clipped/distance-{seed}.json") for seed in (0, 1)]
    means = " and ".join(f"{found['last_evaluations']['mean']:.1f}" for found in clipped)
    assert f"the last five evaluations average {means} (seeds 0 and 1," in page and [c["seed"] for c in clipped] == [0, 1]
    distance = [record(f"cped-maze/distance-{seed}.json") for seed in range(3)]
    likelihood = record("cped-maze/likelihood-0.json")
    for found in (*distance, likelihood):
        assert (found["n_eval_episodes"], found["eval_seed"], found["gradient_steps"]) == (20, 20_000, 20_000)
    assert [found["seed"] for found in distance] == [0, 1, 2]
    assert {found["success_rate"] for found in distance} == {1.0} and likelihood["success_rate"] == 0.0
    assert "in 20 of 20 episodes for each of three seeds, with the likelihood (one seed) in none" in page
    assert [found["success"] for found in walks.values()] == [0.0, 1.0]


def test_what_the_zoos_page_says_of_speed_and_of_online_training() -> None:
    page, speed = said("zoo/README.md"), record("speed-dac.json")
    plain, ours = speed["variants"]
    for variant, name in ((plain, "plain (reference form)"), (ours, "eager")):
        seconds, rate = variant["seconds"], speed["flops"] / variant["seconds"]
        cells = [f"{1000 * seconds:.1f}", f"{1 / seconds:.2f}", f"{rate / 1e9:.1f}", f"{rate / speed['peak']:.0%}"]
        row = " ".join([name, *cells, f"{variant['times_faster']:.2f}x"])
        assert row in page, row
    peak = f"{speed['peak'] / 1e9:.0f} GFLOP/s"
    assert f"{speed['flops'] / 1e9:.2f} GFLOP an update; matrix-multiply peak of the same threads {peak}" in page
    (dropped,) = [run for run in record("online.json")["runs"] if (run["algorithm"], run["way"]) == ("dac", "dropped")]
    assert f"DAC after a dip of {dropped['start'] - dropped['lowest']:.0f} points" in page


def test_what_the_data_page_says_of_the_stitching_data() -> None:
    found, page = record("datasets/genoffline-pointmaze-stitch-v0.json")["actions"], said("sb3_genoffline/data/README.md")
    assert f"{np.mean(found['clipped']):.0%} of action components sit exactly at a bound" in page
    assert f"{np.mean(found['held']):.0%} of them stay at the bound in the next step" in page


def test_what_bcs_and_diffusers_pages_say_of_mazes_and_guides() -> None:
    small = results(SMALL)
    (bc,) = small.records("bc", "genoffline/pointmaze/stitch-v0")
    at = dict(zip(bc["final"]["checkpoints"], bc["final"]["scores"], strict=True))
    episodes = bc["last"]["n_eval_episodes"]
    text = f"after 12,000 updates in {at[12_000]:.0f}% of {episodes} episodes, after 18,000 in {at[18_000]:.0f}%."
    assert text in said("sb3_genoffline/bc/README.md")
    page = said("sb3_genoffline/diffuser/README.md")
    (maze,) = small.records("diffuser", "genoffline/pointmaze/stitch-v0")
    shares = [f"{score:.0f}" for score in maze["final"]["scores"]]
    assert f"arrives in {', '.join(shares[:-1])} and {shares[-1]}% of the episodes" in page
    assert maze["final"]["checkpoints"][0] == 3000 and maze["final"]["checkpoints"][-1] == 5000
    hopper, walker = ("genoffline/hopper/medium-replay-v1", "genoffline/walker2d/medium-v1")
    scores = small.scores("diffuser", hopper)
    data = {dataset: small.data(dataset)["normalized_score"] for dataset in (hopper, walker)}  # type: ignore[index]
    assert f"it does what the data do, no more ({scores.mean():.1f} of 100, two seeds; data {data[hopper]:.1f})" in page
    assert len(scores) == 2
    assert f"it ends at {small.scores('diffuser', walker).mean():.1f} (one seed; data {data[walker]:.0f})" in page
    guided = ", ".join(f"{each['normalized_score']:.1f}" for each in record("diffuser-guide.json")["results"][:-1])
    last = record("diffuser-guide.json")["results"][-1]["normalized_score"]
    assert f"that agent's normalised scores are {guided} and {last:.1f}" in page


def test_what_diffusers_page_says_of_walker2ds_last_evaluations() -> None:
    runs = results(ROOT / "zoo" / "benchmarks" / "learning.yml").records("diffuser", "genoffline/walker2d/medium-v1")
    first, second = ([f"{score:.0f}" for score in run["final"]["scores"]] for run in runs)
    one, two = (f"{', '.join(scores[:-1])} and {scores[-1]}" for scores in (first, second))
    text = f"seed 0's last five evaluations are {one}, seed 1's {two}."
    assert text in said("sb3_genoffline/diffuser/README.md")


def test_what_decision_transformers_page_says_of_the_maze() -> None:
    agents = record("stitch-target-return.json")["agents"].values()
    assert {(each["episodes"], each["success"], each["gradient_steps"]) for each in agents} == {(30, 0.0, 2500)}
    assert "after 2,500 updates with the profile `cpu` 0 of 30 episodes arrive" in said(
        "sb3_genoffline/decision_transformer/README.md"
    )
    best = record("datasets/genoffline-hopper-medium-replay-v1.json")["returns"]["quartiles"][-1]
    assert f"data's best return, {best:.0f}, gains nothing" in said("sb3_genoffline/decision_transformer/README.md")


def test_how_large_a_published_agent_is() -> None:
    folder = ROOT / "hub_models" / "dac-hopper-medium-replay-v1"
    size = sum((folder / name).stat().st_size for name in ("manifest.json", "config.json", "model.safetensors")) / 1e6
    assert f"({size:.1f} MB for a DAC agent" in said("sb3_genoffline/hub/README.md")


def test_how_long_the_benchmark_of_ten_algorithms_took() -> None:
    runs = results(CPU).records()
    hours = sum(run["seconds"]["cpu"] for run in runs) / 3600
    assert f"has {len(runs)} runs, {hours:.1f} hours of processor time" in said("zoo/README.md")


def test_how_alike_the_checkpoints_of_a_run_are() -> None:
    found: dict[str, list[float]] = {"hopper": [], "walker2d": []}
    for path in (ROOT / "zoo" / "benchmarks").glob("*/records/*.json"):
        record = json.loads(path.read_text())
        name = record["config"]["dataset"].split("/")[1]
        if name not in found or not record.get("final"):
            continue
        last, best = record["last"], record["best"]
        is_another = best["gradient_steps"] in record["final"]["checkpoints"][:-1]
        if is_another and min(np.std(last["returns"]), np.std(best["returns"])) > 0:
            found[name].append(float(np.corrcoef(last["returns"], best["returns"])[0, 1]))
    hopper, walker = (float(np.mean(found[name])) for name in ("hopper", "walker2d"))
    page = said("zoo/README.md")
    assert f"the correlation is {hopper:.1f} on Hopper, {walker:.1f} on Walker2d" in page
    assert f"up to {np.sqrt(1 + 4 * hopper):.1f} times as large" in page
