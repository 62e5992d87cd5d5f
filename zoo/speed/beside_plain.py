"""What an update of each algorithm costs beside its plain form: the record behind the table of the zoo's page."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch as th

from sb3_genoffline import ALGOS
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.errors import UserError

from ..benchmark.job import host
from ..runs.provenance import command_line, versions
from ..runs.writing import write_json
from .agents import build, plain_form
from .plain_parts import PlainParts
from .scale import update_bytes

SETTINGS = ("paper", "cpu")
_ROUNDS, _SECONDS, _ROWS = 5, 0.3, 5_000
_MB = 1e6
Update = Callable[[], Any]


def plain_update(algo: str, shape: str, setting: str) -> tuple[Update, AnyAlgorithm | None]:
    """
    :param algo: name in ``ALGOS``
    :param shape: of observations and actions
    :param setting: see :func:`~zoo.speed.agents.setting_arguments`
    :return: makes one update in the algorithm's own plain form, where it has one for this setting, else with plain parts; and
        the agent with such parts
    """
    source, form = build(algo, shape, setting, "cpu", _ROWS), plain_form(ALGOS[algo])
    if form is not None:
        try:
            own = form(source)
        except UserError:  # of LayerNorm, say
            pass
        else:
            return lambda: _drawn(source, own.update), None
    parts = PlainParts(source)
    return lambda: _drawn(source, parts.update), source


def _drawn(model: Any, update: Callable[[Any, Any], Any]) -> None:
    batch = model.batches.draw(model.batch_size)
    update(batch, model.draw_noise(len(batch[0])))


def compared(algo: str, shape: str, setting: str) -> dict[str, Any]:
    """Time and memory of an update, ours and plain, which take turns; time is the processor's."""
    ours = build(algo, shape, setting, "cpu", _ROWS)
    plain, with_parts = plain_update(algo, shape, setting)
    ways: list[Update] = [lambda: ours.train(1, ours.batch_size), plain]
    repeats = [max(1, round(_SECONDS / max(1e-4, _seconds(way, 1)))) for way in ways]
    times = [[_seconds(way, n) for way, n in zip(ways, repeats, strict=True)] for _ in range(_ROUNDS)]
    mine, theirs = (median(column) for column in zip(*times, strict=True))
    found: dict[str, Any] = {
        "form": "whole" if with_parts is None else "parts",
        "ms": mine * 1e3,
        "plain_ms": theirs * 1e3,
        "times_faster": median(slow / fast for fast, slow in times),
        "mb": update_bytes(ours) / _MB,
    }
    if with_parts is not None:
        found["plain_mb"] = update_bytes(with_parts, plain) / _MB
    return found


def _seconds(run: Update, n: int) -> float:
    begun = time.process_time()
    for _ in range(n):
        run()
    return (time.process_time() - begun) / n


def record_beside_plain(path: Path, shape: str) -> dict[str, Any]:
    """
    Measure every algorithm of this library on one thread, print the table, and write it down.

    :param path: of the JSON file
    :param shape: of observations and actions
    :return: what is in the file
    """
    th.set_num_threads(1)
    found: dict[str, Any] = {}
    for algo, cls in ALGOS.items():
        if cls.__module__.startswith("sb3_genoffline."):
            found[algo] = {setting: compared(algo, shape, setting) for setting in SETTINGS}
            print(_row(algo, found[algo]), flush=True)
    record = {"command": command_line(), "shape": shape, "host": host(), "versions": versions(), "algorithms": found}
    write_json(path, record)
    return record


def beside_plain_table(record: dict[str, Any]) -> str:
    """
    :param record: of :func:`record_beside_plain`
    :return: as it is printed, and stands on the page
    """
    head = f"{'':22}" + "".join(f"{setting + ': ms':>14}{'plain':>9}{'ratio':>7}{'MB':>8}{'plain':>8}" for setting in SETTINGS)
    return "\n".join([head.rstrip(), *(_row(algo, found) for algo, found in record["algorithms"].items())])


def _row(algo: str, found: dict[str, Any]) -> str:
    row = f"{algo:22}"
    for each in found.values():
        plain_mb = f"{each['plain_mb']:8.1f}" if "plain_mb" in each else f"{'–':>8}"
        mark = "*" if each["form"] == "whole" else " "
        row += f"{each['ms']:14.2f}{each['plain_ms']:9.2f}{each['times_faster']:6.2f}{mark}{each['mb']:8.1f}{plain_mb}"
    return row.rstrip()
