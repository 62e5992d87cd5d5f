"""Records of benchmarks, and what pages call the algorithms and datasets of them."""

import re
from functools import cache
from pathlib import Path

import numpy as np

from zoo.benchmark.plan import Plan, read_plan
from zoo.benchmark.records import read_cells
from zoo.benchmark.results import Results

ROOT = Path(__file__).parents[1]
BENCHMARK = ROOT / "zoo" / "benchmarks" / "cpu"
LIBRARY = ROOT / "sb3_genoffline"
INSPECTIONS = sorted((ROOT / "zoo" / "figures" / "datasets").glob("*.json"))
HOPPER, WALKER = "genoffline/hopper/medium-replay-v1", "genoffline/walker2d/medium-v1"
TITLES = {"TD3+BC": "td3_bc", "TD3BC": "td3_bc"} | {
    name: name.lower() for name in ("BC", "IQL", "CQL", "AWAC", "SPOT", "DQL", "DAC", "QDQ", "CPED")
}
NAMES = "|".join(map(re.escape, TITLES))
SAID = re.compile(rf"((?:\b(?:{NAMES})(?:, | and )?)+) (\d+(?:\.\d)?(?: to \d+)?†?)")
"""``AWAC and IQL 6 to 7``, ``SPOT 39†``"""
CLIPPED, STITCH = "genoffline/walker2d/clipped-noise-v0", "genoffline/pointmaze/stitch-v0"


@cache
def plan_of(name: str) -> Plan:
    return read_plan(BENCHMARK.with_name(f"{name}.yml"))


@cache
def results_of(name: str) -> Results:
    """Of a benchmark, from its committed records."""
    plan = plan_of(name)
    return Results(plan.algorithms, plan.datasets, read_cells(plan, BENCHMARK.with_name(name) / "records"))


def said_of(text: str) -> list[tuple[str, str]]:
    """(algorithm, number) of all that a text says."""
    return [(TITLES[name], number) for names, number in SAID.findall(text) for name in re.split(", | and ", names) if name]


def minutes(results: Results, algo: str, dataset: str) -> float:
    return float(np.mean([record["seconds"]["cpu"] for record in results.records(algo, dataset)]) / 60)


def dagger(results: Results, algo: str, dataset: str) -> str:
    """What marks runs that were made with other settings than the plan has now."""
    return "†" if any(cell.outdated for cell in results.at(algo, dataset)) else ""


LEARNING = results_of("learning")
LEARNED = [algo for algo in LEARNING.algorithms if algo != "bc" and LEARNING.records(algo)]
