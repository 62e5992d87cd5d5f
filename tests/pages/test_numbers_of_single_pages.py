"""Numbers that only one algorithm's page has are those of the records."""

import json
import re

import numpy as np
import pytest
from recorded import HOPPER, LEARNING, LIBRARY, ROOT, WALKER, plan_of, results_of

from zoo.runs.hyperparameters import load_hyperparameters


def test_dacs_page_says_what_an_update_costs_beside_td3_bcs() -> None:
    times = json.loads((ROOT / "zoo" / "figures" / "beside-plain.json").read_text())["algorithms"]
    cpu, paper = (times["dac"][setting]["ms"] / times["td3_bc"][setting]["ms"] for setting in ("cpu", "paper"))
    page = (LIBRARY / "dac" / "README.md").read_text()
    assert 1.7 < cpu < 2 and "nearly twice the processor time of TD3+BC's" in page
    assert f"[{paper:.0f} times](../../zoo/README.md#beside-the-plain-form) at the papers' settings" in page


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


def test_the_profiles_noise_in_acting_is_the_better_one_on_sets_that_no_benchmark_uses() -> None:
    page, folder = (LIBRARY / "dac" / "README.md").read_text(), ROOT / "zoo" / "figures" / "acting-noise"
    means = {}
    for env, name in (("hopper", "Hopper"), ("walker2d", "Walker2d")):
        results = json.loads((folder / f"dac-{env}-medium-expert.json").read_text())["results"]
        scores = {found["acting_noise_scale"]: found["normalized_score"] for found in results}
        cells = " | ".join(f"{scores[scale]:.1f}" for scale in (1, 0.5, 0.25, 0.1, 0))
        assert f"| {name} medium-expert-v1 | {cells} |" in page
        assert {found["n_eval_episodes"] for found in results} == {20} and results[0]["eval_seed"] < 10_000
        used = {dataset for plan in ("cpu", "small", "claims", "learning", "tied") for dataset in plan_of(plan).datasets}
        assert results[0]["dataset"] == f"genoffline/{env}/medium-expert-v1" not in used
        means[env] = scores
    for env, name in (("hopper", "Hopper"), ("walker2d", "Walker2d")):
        replay = json.loads((folder / f"{env}-medium-replay.json").read_text())["results"]
        scores = {found["acting_noise_scale"]: found["normalized_score"] for found in replay}
        assert (
            f"| {name} medium-replay-v1 | {' | '.join(f'{scores[scale]:.1f}' for scale in (1, 0.5, 0.25, 0.1, 0))} |" in page
        )
        assert scores[1] > scores[0.1] > scores[0]
    final = {
        (name, kind): results_of("small").scores(name, f"genoffline/walker2d/{kind}-v1")[0]
        for name in ("dac_quiet", "dac_held")
        for kind in ("medium", "medium-replay")
    }
    assert (
        f"ends at {final['dac_quiet', 'medium']:.1f} on Walker2d medium-v1, DAC (held) with all its noise at "
        f"{final['dac_held', 'medium']:.1f}; on Walker2d medium-replay-v1 they end at "
        f"{final['dac_quiet', 'medium-replay']:.1f} and {final['dac_held', 'medium-replay']:.1f}."
    ) in " ".join(page.split())
    both = {scale: means["hopper"][scale] + means["walker2d"][scale] for scale in means["hopper"]}
    assert all(both[0.1] > both[scale] for scale in (0.25, 0.5, 1)) and abs(both[0] - both[0.1]) < 4
    assert load_hyperparameters("dac", "genoffline/hopper/medium-v1", "cpu").plain["acting_noise_scale"] == 0.1
    for elsewhere in ("genoffline/hopper/medium-replay-v1", "own.npz"):
        assert "acting_noise_scale" not in load_hyperparameters("dac", elsewhere, "cpu").plain


def test_what_the_choice_among_candidates_does_on_one_policys_data_is_on_record() -> None:
    page, folder = (LIBRARY / "dac" / "README.md").read_text(), ROOT / "zoo" / "figures" / "acting-noise"
    published = json.loads((ROOT / "hub_models" / "dac-walker2d-medium-v1" / "results.json").read_text())
    for name, setting, values, beginning in (
        ("walker2d-medium-candidates", "n_action_samples", (1, 2, 10), "| score"),
        ("walker2d-medium", "acting_noise_scale", (1, 0.5, 0.25, 0.1, 0), "| score"),
    ):
        results = json.loads((folder / f"{name}.json").read_text())["results"]
        scores = {found[setting]: found["normalized_score"] for found in results}
        assert f"{beginning} | {' | '.join(f'{scores[value]:.1f}' for value in values)} |\n" in page
        facts = {(found["n_eval_episodes"], found["dataset_fingerprint"], found["gradient_steps"]) for found in results}
        assert facts == {(20, published["dataset_fingerprint"], published["gradient_steps"])}
        assert results[0]["eval_seed"] < 10_000
    held, bc = (
        np.mean([record["final"]["mean"] for record in results_of("small").records(name, "genoffline/walker2d/medium-v1")])
        for name in ("dac_held", "bc")
    )
    assert f"ends at {held:.1f} in small networks and imitation at {bc:.1f}." in " ".join(page.split())


@pytest.mark.parametrize(
    ("algo", "env", "label"),
    [
        ("dac", "hopper", "DAC, Hopper"),
        ("dac", "walker2d", "DAC, Walker2d"),
        ("dql", "hopper", "DQL, Hopper"),
        ("idql", "hopper", "IDQL, Hopper"),
        ("idql", "walker2d", "IDQL, Walker2d"),
        ("sfbc", "hopper", "SfBC, Hopper"),
    ],
)
def test_what_noise_in_acting_does_to_other_algorithms_is_on_record(algo: str, env: str, label: str) -> None:
    results = json.loads((ROOT / f"zoo/figures/acting-noise/{algo}-{env}-medium-expert.json").read_text())["results"]
    scores = {found["acting_noise_scale"]: found["normalized_score"] for found in results}
    cells = " | ".join(f"{scores[scale]:.1f}" for scale in (1, 0.5, 0.25, 0.1, 0))
    assert f"| {label} | {cells} |\n" in (LIBRARY / "README.md").read_text()
    facts = {(found["algo"], found["dataset"], found["n_eval_episodes"], found["eval_seed"]) for found in results}
    assert facts == {(algo, f"genoffline/{env}/medium-expert-v1", 20, 1000)}


def test_how_often_diffuser_arrives_is_in_its_record() -> None:
    page, record = (
        (LIBRARY / "diffuser" / "README.md").read_text(),
        json.loads((ROOT / "zoo/figures/plans-guide.json").read_text()),
    )
    found = {each["guide_scale"]: each["normalized_score"] for each in record["results"]}
    assert f"| `guide_scale` | {' | '.join(f'{scale:g}' for scale in found)} |" in page
    assert f"| arrives | {' | '.join(f'{score:.0f}%' for score in found.values())} |" in page
    assert {each["n_eval_episodes"] for each in record["results"]} == {10}


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


def test_what_is_said_of_unusual_actions_is_in_the_pictures_records() -> None:
    page, record = (
        (LIBRARY / "qdq" / "README.md").read_text(),
        json.loads((ROOT / "zoo/figures/qdq-uncertainty.json").read_text()),
    )
    for label, name, shown in (
        ("H of the data's actions", "data", "{:.1f}"),
        ("of the policy's", "policy", "{:.1f}"),
        ("of random ones", "random", "{:.1f}"),
        ("AUC of random against the data's", "auc", "{:.2f}"),
        ("random ones above the data's 95% quantile", "above_q95", "{:.0%}"),
    ):
        cells = [
            ", ".join(shown.format(run[name]) for run in record["runs"] if run["dataset"] == dataset)
            for dataset in (HOPPER, WALKER)
        ]
        assert f"| {label} | {' | '.join(cells)} |" in page
    assert [run["seed"] for run in record["runs"]] == [0, 1, 2, 0, 1, 2]
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
