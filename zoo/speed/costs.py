"""What updates of each algorithm cost a processor: the record behind the matrix of the page on choosing."""

import time
from pathlib import Path
from typing import Any

import torch as th

from sb3_genoffline import ALGOS

from ..benchmark.job import host
from ..runs.provenance import command_line, versions
from ..runs.writing import write_json
from .agents import build

UPDATES = 10_000
"""Whose cost is told."""
_MEASURED, _ROUNDS, _ROWS = 20, 3, 5_000


def cost_of(algo: str, shape: str, setting: str) -> float:
    """
    Processor time, which a busy machine stretches less than the clock's; what was fitted before the updates is left out.

    :param algo: name in ``ALGOS``
    :param shape: of observations and actions
    :param setting: see :func:`~zoo.speed.agents.setting_arguments`; the batches are its own
    :return: seconds of one core for 10,000 updates, from the cheapest round of a few
    """
    model = build(algo, shape, setting, "cpu", _ROWS)
    rounds = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        model.train(_MEASURED, model.batch_size)
        rounds.append(time.process_time() - start)
    return min(rounds) * UPDATES / _MEASURED


def record_costs(path: Path, shape: str, setting: str) -> dict[str, Any]:
    """
    Measure every algorithm of this library on one thread, print the costs, and write them down.

    :param path: of the JSON file
    :param shape: of observations and actions
    :param setting: see :func:`~zoo.speed.agents.setting_arguments`
    :return: what is in the file
    """
    th.set_num_threads(1)
    costs = {}
    for algo, cls in ALGOS.items():
        if cls.__module__.startswith("sb3_genoffline."):
            costs[algo] = round(cost_of(algo, shape, setting), 1)
            print(f"{algo:22}{costs[algo]:10,.0f} s of one core for {UPDATES:,} updates", flush=True)
    record = {"command": command_line(), "shape": shape, "setting": setting, "host": host(), "versions": versions()}
    record["seconds"] = costs
    write_json(path, record)
    return record
