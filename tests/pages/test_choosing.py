"""The page on choosing an algorithm: its matrix is what the classes say, its scores are the benchmark's."""

import csv
import inspect
import json
import re
from functools import cache
from pathlib import Path

import pytest
from worlds import make_agent

from sb3_genoffline import ALGOS
from sb3_genoffline.common.keywords import AllArguments
from sb3_genoffline.data import REWARD_TRANSFORMS
from sb3_genoffline.deploy.onnx_file import draws_of
from sb3_genoffline.testing import observations
from zoo.benchmark.plan import read_plan
from zoo.benchmark.records import Cell, read_cells

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "sb3_genoffline" / "README.md").read_text()
COSTS = json.loads((ROOT / "zoo" / "speed" / "costs.json").read_text())
OURS = {name: cls for name, cls in ALGOS.items() if cls.__module__.startswith("sb3_genoffline.")}
SETS = {
    "Hopper medium-replay-v1": ("small", "genoffline/hopper/medium-replay-v1"),
    "Walker2d medium-v1": ("learning", "genoffline/walker2d/medium-v1"),
    "HalfCheetah medium-replay-v1": ("small", "genoffline/halfcheetah/medium-replay-v1"),
    "Walker2d clipped noise": ("cpu", "genoffline/walker2d/clipped-noise-v0"),
    "stitching": ("small", "genoffline/pointmaze/stitch-v0"),
}


def draws_to_act(algo: str) -> bool:
    """Whether the best known action depends on random numbers."""
    agent, actions = make_agent(algo), []
    for seed in (1, 2):
        agent.set_acting_seed(seed)
        actions.append(agent.predict(observations(), deterministic=True)[0].tolist())
    return actions[0] != actions[1]


def onnx_file_of(algo: str) -> str:
    """The inputs that it has beside observations."""
    agent = make_agent(algo)
    inputs = ["the history"] if agent.policy.acting_module(True).memory else []
    inputs += sorted({f"`{drawn.kind}`" for drawn in draws_of(agent)})
    return ": ".join(["yes", *filter(None, [", ".join(inputs)])])


def cost_of_updates(algo: str) -> str:
    """The record's, to two digits."""
    return f"{float(format(COSTS['seconds'][algo], '.2g')):,.0f} s"


def row_of(algo: str) -> str:
    """The line of the matrix that an algorithm has to have."""
    cls = OURS[algo]
    policies = ", ".join(f'`"{name}"`' for name in cls.policy_aliases if name != "MlpPolicy" or len(cls.policy_aliases) == 1)
    fitted = next(iter(cls.policy_aliases.values())).fitted_model  # type: ignore[attr-defined]
    switched_off = "; ".join(
        f"{label}: " + ", ".join(f"`{name}={value!r}`" for name, value in values.items())
        for label, values in cls.baselines.items()
    )
    cells = (
        f"[{cls.__name__}]({algo}/README.md)",
        policies,
        f"`{fitted}`" if fitted else "–",
        "yes" if cls.goes_online else "no",
        "yes" if draws_to_act(algo) else "no",
        onnx_file_of(algo),
        "yes" if cls.graph else "no",
        f"{cls.default_gradient_steps:,}",
        cost_of_updates(algo),
        switched_off.replace("'", '"') or "–",
    )
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("algo", OURS)
def test_the_matrix_says_what_the_classes_say(algo: str) -> None:
    assert row_of(algo) in PAGE.splitlines()


def test_the_matrix_has_no_other_rows() -> None:
    assert len(re.findall(r"^\| \[\w+\]\(\w+/README\.md\) \| `", PAGE, re.MULTILINE)) == len(OURS)


def test_the_command_that_measured_the_costs_is_beside_them() -> None:
    assert COSTS["seconds"].keys() == OURS.keys()
    assert f"`{COSTS['command']}`" in PAGE and f"on {COSTS['host'].partition(',')[0]}" in PAGE


def final_scores(benchmark: str) -> dict[tuple[str, str], str]:
    """By dataset and algorithm, as the page rounds them."""
    with (ROOT / "zoo/benchmarks" / benchmark / "scores.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["score"] == "final"]
    return {(row["dataset"], row["algorithm"]): f"{float(row['mean']):.0f}" for row in rows}


@cache
def cells_of(benchmark: str) -> list[Cell]:
    """Of the committed records."""
    plan = ROOT / "zoo" / "benchmarks" / f"{benchmark}.yml"
    return read_cells(read_plan(plan), plan.with_suffix("") / "records")


def mark_of(benchmark: str, dataset: str, algo: str) -> str:
    """† where runs were made with other settings than the plan has now; ¹ of the profile cpu where there is one seed."""
    cells = [each for each in cells_of(benchmark) if (each.name, each.dataset) == (algo, dataset)]
    if any(each.outdated for each in cells):
        return "†"
    return "¹" if benchmark == "learning" and sum(each.record is not None and not each.reason for each in cells) == 1 else ""


def test_scores_of_the_table_are_the_benchmarks() -> None:
    checked = 0
    for name, (benchmark, dataset) in SETS.items():
        final = final_scores(benchmark)
        for cell in re.findall(rf"{name}, data \d+: ([^|]*)", PAGE) + re.findall(rf"{name}: ([^|]*)", PAGE):
            part = re.split(r"\. |; (?=[A-Z]\w+:|[A-Z]\w+ and)|processor", cell)[0]
            for names, score, mark in re.findall(r"((?:[A-Z][\w+]+(?:, | and )?)+) (\d+)([†¹]?)", part):
                for each in re.split(", | and ", names):
                    algo = {"TD3+BC": "td3_bc"}.get(each) or next(a for a, cls in ALGOS.items() if cls.__name__ == each)
                    assert final[dataset, algo] == score, (name, each)
                    assert mark == mark_of(benchmark, dataset, algo), (name, each)
                    checked += 1
    assert checked >= 22


def test_pairs_of_scores_in_the_table_are_the_benchmarks() -> None:
    names, checked = {algo: cls.__name__ for algo, cls in ALGOS.items()}, 0
    for start, cells in re.findall(r"^\|[^|]*\|([^|]*)\| ((?:cpu: [^|]*; )?small: [^|]*)\|$", PAGE, re.MULTILINE):
        alone = [algo for algo, name in names.items() if f"[{name}](" in start]
        for label, cell in re.findall(r"(cpu|small): (.*?)(?=; small: |$)", cells):
            final = final_scores({"cpu": "learning", "small": "small"}[label])
            rests = {algo: re.split(rf"\b{names[algo]} ", cell, maxsplit=1)[1:] for algo in alone}
            found = [(algo, rest[0]) for algo, rest in rests.items() if rest] or [(alone[0], cell)]
            for algo, said in found:
                hopper, both, walker = re.findall(r"^[^\d]*(\d+)¹?(?: \(seeds[^)]*\))?( and )?(\d+)?", said)[0]
                marked = bool(re.search(r"^[^\d]*\d+¹", said))
                assert marked == (label == "cpu" and mark_of("learning", "genoffline/hopper/medium-replay-v1", algo) == "¹")
                assert hopper == final["genoffline/hopper/medium-replay-v1", algo], (label, algo)
                assert not both or walker == final["genoffline/walker2d/medium-v1", algo], (label, algo)
                checked += 1 + bool(both)
    assert checked >= 31 and f"{final_scores('small')['genoffline/pointmaze/stitch-v0', 'diffuser']}% (data" in PAGE
    for benchmark in ("learning", "small"):
        pair = [
            final_scores(benchmark)[f"genoffline/{name}", "bc"] for name in ("hopper/medium-replay-v1", "walker2d/medium-v1")
        ]
        assert f"(BC {' and '.join(pair)})" in " ".join(PAGE.split())


def test_the_page_was_checked_with_the_pinned_stable_baselines3() -> None:
    pinned = re.search(r"^stable_baselines3==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE | re.IGNORECASE)
    assert pinned is not None and f"checked with SB3 {pinned[1]})" in PAGE


def test_arguments_that_migrants_are_told_of_exist() -> None:
    tables = PAGE[PAGE.index("## Coming from d3rlpy") : PAGE.index("## Coming from stable-baselines3")]
    here = [line.split(" | ")[-1] for line in tables.splitlines() if line.startswith("|")]
    told = re.findall(r"`(\w+)\(([^()`]*=[^()`]*)\)`", " ".join(here))
    names = {cls.__name__: cls for cls in OURS.values()}
    checked = 0
    for algorithm, arguments in told:
        if algorithm in names:
            for argument in re.findall(r"(\w+)=", arguments):
                assert (
                    argument in inspect.signature(names[algorithm]).parameters
                    or argument in names[algorithm].argument_table().arguments
                    or argument in AllArguments.__annotations__
                )
                checked += 1
    assert checked >= 5
    for name in re.findall(r"reward_transform[=:]\"?(\w+)", " ".join(here)):
        assert name in REWARD_TRANSFORMS
