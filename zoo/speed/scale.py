"""How time and memory of an update grow with the work: what `python -m zoo speed --scale` measures, prints and draws."""

import json
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch as th
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sb3_genoffline import ALGOS, load_dataset
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.files.writing import replace_file

from ..plot.figures import new_figure, plain, save_figure
from ..runs.provenance import processor
from .agents import setting_arguments, synthetic_data
from .footprint import agent_for, in_new_process, memory, updates
from .rows import arrays_of, write_arrays

HOPPER = (11, 3)
ROWS = (100_000, 1_000_000, 5_000_000, 20_000_000)
GROWING: dict[str, tuple[str, tuple[int, ...]]] = {
    "observation width": ("obs_dim", (8, 32, 128, 512, 2048)),
    "critics": ("n_critics", (2, 4, 8, 16, 32)),
    "next actions": ("n_q_samples", (1, 2, 4, 8, 16, 32)),
    "batch": ("batch_size", (32, 128, 512, 2048)),
    "network width": ("net_arch", (64, 128, 256, 512, 1024)),
}
"""What grows: the argument it is, and the values. An algorithm that has no such argument is measured without."""
_ROUNDS, _SECONDS = 5, 0.15
_UPDATES_WEIGHED = 4  # in some of them actor and targets rest
_MB = 1e6


class _Storages(TorchDispatchMode):
    """Adds up the tensors that are made inside it and still there, at their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, th.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, th.Tensor):
                self._count(tensor.untyped_storage(), given)
        return result

    def _count(self, storage: Any, given: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in given or key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def update_bytes(model: AnyAlgorithm, update: Callable[[], Any] | None = None) -> int:
    """
    Bytes of an agent's tensors and of what an update of it makes, at its peak.

    :param model: the agent
    :param update: makes one; None: as the agent does
    """
    update = update or partial(model.train, 1, model.batch_size)
    update()
    peaks = []
    for _ in range(_UPDATES_WEIGHED):
        with _Storages() as made:
            update()
        peaks.append(made.peak)
    kept = tree_leaves([model.policy.state_dict(), model.state.state_dict()])
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept if isinstance(t, th.Tensor)}
    return max(peaks) + sum(storages.values())


def changes_for(argument: str, value: int, algo: str) -> dict[str, Any]:
    """Arguments of the agent of a point."""
    if argument == "obs_dim":
        return {}
    if argument == "net_arch":
        kwargs = setting_arguments(algo, "light").get("policy_kwargs") or {}
        return {"policy_kwargs": {**kwargs, "net_arch": [value] * len(kwargs.get("net_arch") or (0, 0))}}
    return {argument: value}


def grow(algo: str, argument: str, values: tuple[int, ...], rounds: int) -> list[dict[str, float]]:
    """Time and memory of an update for each value; the agents take turns."""
    models = []
    for value in values:
        shape = (value, HOPPER[1]) if argument == "obs_dim" else HOPPER
        data = load_dataset(synthetic_data(*shape, 4096))
        models.append(agent_for(algo, data, setting_arguments(algo, "light") | changes_for(argument, value, algo)))
        models[-1].learn_offline(data, 2, log_interval=None)
    repeats = [max(1, min(50, round(_SECONDS / max(1e-4, _seconds(model, 1))))) if rounds > 1 else 1 for model in models]
    times = [[_seconds(model, n) for model, n in zip(models, repeats, strict=True)] for _ in range(rounds)]
    return [
        {"value": value, "ms": median(column) * 1e3, "mb": update_bytes(model) / _MB}
        for value, column, model in zip(values, zip(*times, strict=True), models, strict=True)
    ]


def _seconds(model: AnyAlgorithm, n_updates: int) -> float:
    """Of the processor, an update's."""
    begun = time.process_time()
    model.train(n_updates, model.batch_size)
    return (time.process_time() - begun) / n_updates


def update_of_rows(algo: str, folder: Path, n_rows: int, mapped: bool, n_rounds: int, n_updates: int) -> dict[str, Any]:
    """
    Time of an update of many rows, and memory: at its peak where rows are in memory; where they are mapped, what is no file's.
    """
    key = "RssAnon" if mapped else "VmHWM"
    before = memory("RssAnon" if mapped else "VmRSS")
    data = load_dataset(arrays_of(folder, n_rows, mapped))
    times = updates(algo, data, n_rounds, n_updates, setting_arguments(algo, "light"))
    return {"value": n_rows, "ms": median(times), "mb": (memory(key) - before) / _MB}


def exponents(points: list[dict[str, float]], key: str) -> tuple[float, float]:
    """
    :param points: with ``value`` and what grows with it
    :param key: of that
    :return: slope of a line through all points, both logarithmic, and of one through the last two: x^slope
    """
    x, y = (np.log([max(point[name], 1e-9) for point in points]) for name in ("value", key))
    return float(np.polyfit(x, y, 1)[0]), float((y[-1] - y[-2]) / (x[-1] - x[-2]))


def measure_scale(algo: str, n_rows: int | None, folder: Path, output: str, smoke: bool) -> dict[str, Any]:
    """
    What ``python -m zoo speed --scale`` does.

    :param algo: name in ``ALGOS``
    :param n_rows: the most that are tried; None: 20 million
    :param folder: where data are written to meanwhile
    :param output: picture to write; the record is a JSON file beside it
    :param smoke: tiny, in this process, to try the command
    :return: the record
    """
    begun, rounds = time.perf_counter(), 1 if smoke else _ROUNDS
    most = n_rows or (400 if smoke else ROWS[-1])
    axes: dict[str, Any] = {}
    for name, (argument, values) in GROWING.items():
        if argument in ("obs_dim", "net_arch") or argument in ALGOS[algo].argument_table().arguments:
            axes[name] = grow(algo, argument, values[:2] if smoke else values, rounds)
    axes = dict(rows_axes(algo, most, folder, smoke)) | axes
    record = {
        "algo": algo,
        "base": {name: value for name, value in setting_arguments(algo, "light").items() if _is_number(value)},
        "processor": processor(),
        "torch": th.__version__,
        "seconds": round(time.perf_counter() - begun),
        "axes": {name: [{key: _short(n) for key, n in point.items()} for point in found] for name, found in axes.items()},
    }
    print(scale_table(record))
    picture = Path(output)
    replace_file(picture.with_suffix(".json"), (json.dumps(record, indent=1) + "\n").encode())
    for file in [picture.with_suffix(".json"), *draw_scale(record, picture)]:
        print(f"wrote {file}")
    return record


def rows_axes(algo: str, most: int, folder: Path, smoke: bool) -> Iterator[tuple[str, list[dict[str, float]]]]:
    """Updates of more and more rows, in memory and mapped, each in a process of its own."""
    do: Callable[..., dict[str, Any]] = (lambda function, *given: function(*given)) if smoke else in_new_process
    numbers = [n for n in ROWS if n < most] + [most] if not smoke else [most // 4, most]
    with tempfile.TemporaryDirectory(dir=folder, prefix="rows-") as place:
        write_arrays(Path(place), most, *HOPPER)
        for name, mapped in (("rows, in memory", False), ("rows, mapped", True)):
            counts = (1, 2) if smoke else (_ROUNDS, 50)
            yield name, [do(update_of_rows, algo, Path(place), n, mapped, *counts) for n in numbers]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(number: float) -> float:
    return number if isinstance(number, int) else float(f"{number:.4g}")


def scale_table(record: dict[str, Any]) -> str:
    """
    :param record: of :func:`measure_scale`
    :return: as it is printed, and stands on the page
    """
    lines = [
        f"{record['algo']}, {record['processor']}, one thread, torch {record['torch']}",
        f"{'':19}{'from … to':>19}{'ms an update':>17}{'exponent':>10}{'at end':>8}{'MB':>17}{'exponent':>10}{'at end':>8}",
    ]
    for name, points in record["axes"].items():
        line = f"{name:19}{_from_to(points, 'value', ','):>19}"
        for key in ("ms", "mb"):
            whole, end = exponents(points, key)
            line += f"{_from_to(points, key, '.4g'):>17}{whole:10.2f}{end:8.2f}"
        lines.append(line)
    return "\n".join(lines)


def _from_to(points: list[dict[str, float]], key: str, form: str) -> str:
    return f"{points[0][key]:{form}} … {points[-1][key]:{form}}"


def draw_scale(record: dict[str, Any], output: str | Path) -> list[Path]:
    """
    Draw time and memory of an update against what grows, as multiples of its smallest value, both logarithmic.

    :param record: of :func:`measure_scale`
    :param output: file name; a PNG and an SVG are written
    :return: the files
    """
    figure, panels = new_figure(2, 5.4, 5.2)
    for panel, key, title in zip(panels, ("ms", "mb"), ("processor time of an update, ms", "memory, MB"), strict=True):
        for name, points in record["axes"].items():
            values = np.array([point["value"] for point in points], dtype=float)
            label = f"{name}: {exponents(points, key)[1]:.2f}"
            panel.loglog(
                values / values[0], [max(point[key], 1e-9) for point in points], "o-", markersize=4, label=plain(label)
            )
        panel.set(xlabel="times the smallest value", ylabel=title)
        panel.legend(fontsize="small", title="exponent at the end", loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
    figure.suptitle(plain(f"{record['algo']}: what an update costs as the work grows"), fontsize="medium")
    return save_figure(figure, output)
