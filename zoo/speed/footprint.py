"""What data weigh: the peak of memory up to the first update, and updates of data that are larger than a limit of memory."""

import contextlib
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch as th

from sb3_genoffline import ALGOS, load_dataset
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.data.blocks import is_mapped
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.writing import replace_file

from .agents import setting_arguments
from .rows import arrays_of, n_bytes, write_arrays, write_hdf5

SOURCES = {
    "a .npz file": "npz",
    "an .hdf5 file": "hdf5",
    "arrays, read-only": "read-only",
    "arrays that can be written to": "writable",
}
"""Where data come from, as printed and as :func:`peak_to_first_update` takes it."""
_HOPPER = (11, 3)
_FEW = 1000
_MB = 1e6


def memory(key: str) -> int:
    """
    :param key: of /proc/self/status: ``VmHWM``, the peak of what is in memory, ``VmRSS``, ``RssAnon``, what is no file's
    :return: bytes; where there is no such file, the peak that ``resource`` knows
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)


def in_new_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """
    :param function: at the top of a module
    :param arguments: of the function
    :return: what it returns in a process that has done nothing before, with one thread
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), th.set_num_threads, (1,)) as pool:
        return pool.submit(function, *arguments).result()


def agent_for(algo: str, data: OfflineDataset, changes: dict[str, Any] | None = None) -> AnyAlgorithm:
    """A small agent that learns from the first update on, fitted for one step."""
    cls = ALGOS[algo]
    starts = {name: 0 for name in cls.argument_table().arguments if name.endswith(("_start", "warmup_steps"))}
    setting = setting_arguments(algo, "tiny") | starts | (changes or {})
    model = cls(next(iter(cls.policy_aliases)), (data.observation_space, data.action_space), seed=0, device="cpu", **setting)
    model.set_dataset(data)
    if model.uses_fitted_model():
        model.begin_fits()
        for fit in model.fits.left or ():
            fit.n_steps = 1
    return model


def peak_to_first_update(algo: str, source: str, folder: Path) -> dict[str, Any]:
    """
    :param algo: name in ``ALGOS``
    :param source: a value of :data:`SOURCES`
    :param folder: holds ``data.npz``, ``data.hdf5`` and the ``.npy`` files of the arrays
    :return: ``peak``: memory of this process at its peak, beyond what it had when all was imported, in bytes
    """
    before = memory("VmRSS")
    if source in ("npz", "hdf5"):
        given: Any = folder / f"data.{source}"
    else:
        given = arrays_of(folder, mapped=False, read_only=source == "read-only")
    data = load_dataset(given)
    agent_for(algo, data).learn_offline(data, 1, log_interval=None)
    return {"peak": memory("VmHWM") - before}


def updates(
    algo: str, data: OfflineDataset, n_rounds: int, n_updates: int, changes: dict[str, Any] | None = None
) -> list[float]:
    """
    :return: milliseconds of processor time that an update takes, the thread that gathers batches included, round by round
    """
    model = agent_for(algo, data, changes)
    model.learn_offline(data, n_updates, log_interval=None)
    found = []
    for _ in range(n_rounds):
        begun = time.process_time()
        model.learn_offline(data, n_updates, log_interval=None, reset_num_timesteps=False)
        found.append((time.process_time() - begun) / n_updates * 1e3)
    return found


def limited_updates(algo: str, path: Path, limit: float | None, n_rounds: int, n_updates: int) -> dict[str, Any]:
    """
    :param algo: name in ``ALGOS``
    :param path: of the data
    :param limit: bytes of memory that is no file's (``RLIMIT_DATA``); None: no limit
    :param n_rounds: that are timed
    :param n_updates: of a round
    :return: ``ms`` of processor and ``wall_ms`` of an update, whether rows are ``mapped``, ``anonymous`` memory in the end
    """
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), resource.getrlimit(resource.RLIMIT_DATA)[1]))
    data = load_dataset(path)
    model = agent_for(algo, data, {"policy_kwargs": {"net_arch": [256, 256]}, "batch_size": 256})
    model.learn_offline(data, n_updates, log_interval=None)
    found: dict[str, list[float]] = {"ms": [], "wall_ms": []}
    for _ in range(n_rounds):
        cpu, wall = time.process_time(), time.perf_counter()
        model.learn_offline(data, n_updates, log_interval=None, reset_num_timesteps=False)
        found["ms"].append((time.process_time() - cpu) / n_updates * 1e3)
        found["wall_ms"].append((time.perf_counter() - wall) / n_updates * 1e3)
    return {name: round(median(numbers), 4) for name, numbers in found.items()} | {
        "mapped": is_mapped(data.observations),
        "anonymous": memory("RssAnon"),
        "rows": len(data),
    }


def weigh_data(
    algo: str, n_rows: int | None, limit: float | None, n_floats: int, folder: Path, output: str | None, smoke: bool
) -> dict[str, Any]:
    """
    What ``python -m zoo speed --memory`` does.

    :param algo: name in ``ALGOS``
    :param n_rows: of the data; None: a million, or as many as are four times the limit
    :param limit: GB of memory that data shall be larger than; None: data in memory are weighed
    :param n_floats: of a row of these
    :param folder: where data are written to meanwhile
    :param output: JSON file to write; None: none
    :param smoke: few rows, in this process and without a limit, to try the command
    :return: the record
    """
    do = (lambda function, *arguments: function(*arguments)) if smoke else in_new_process
    with tempfile.TemporaryDirectory(dir=folder, prefix="rows-") as place, own_cache(Path(place) / "cache"):
        if limit is None:
            record = weigh_in_memory(do, algo, n_rows or (300 if smoke else 1_000_000), Path(place))
        else:
            rows = n_rows or (300 if smoke else int(4 * limit * 1e9 / (4 * n_floats)))
            record = go_beyond(do, algo, rows, n_floats, limit, Path(place), smoke)
    print(weight_table(record))
    if output is not None:
        file = Path(output).with_suffix(".json")
        replace_file(file, (json.dumps(record, indent=1) + "\n").encode())
        print(f"wrote {file}")
    return record


@contextlib.contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """A flat cache that goes with the data."""
    before = os.environ.get("SB3_GENOFFLINE_CACHE")
    os.environ["SB3_GENOFFLINE_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("SB3_GENOFFLINE_CACHE")
        if before is not None:
            os.environ["SB3_GENOFFLINE_CACHE"] = before


def weigh_in_memory(do: Callable[..., dict[str, Any]], algo: str, n_rows: int, place: Path) -> dict[str, Any]:
    """The peak for each source of :data:`SOURCES`, and for next to no data."""
    for size, name in ((n_rows, "data"), (min(_FEW, n_rows), "few")):
        folder = place / name
        folder.mkdir()
        write_arrays(folder, size, *_HOPPER)
        write_hdf5(folder / "data.hdf5", size, *_HOPPER)
        np.savez(folder / "data.npz", **arrays_of(folder))
    own = do(peak_to_first_update, algo, "read-only", place / "few")["peak"]
    peaks = {name: do(peak_to_first_update, algo, source, place / "data")["peak"] for name, source in SOURCES.items()}
    return {"algo": algo, "rows": n_rows, "raw": n_bytes(n_rows, *_HOPPER), "agent": own, "peaks": peaks}


def go_beyond(
    do: Callable[..., dict[str, Any]], algo: str, n_rows: int, n_floats: int, limit: float, place: Path, smoke: bool
) -> dict[str, Any]:
    """Updates of mapped rows under a limit, and without one of as many rows as stay in memory."""
    action_dim = 6 if n_floats % 2 else 7  # the rest is two observations and a reward
    obs_dim = (n_floats - 1 - action_dim) // 2
    if obs_dim < 1:
        raise UserError(f"--floats {n_floats} are too few for a row: two observations, an action and a reward.")
    in_memory = min(n_rows, int(0.4e9 / (4 * n_floats)))
    counts = (1, 5) if smoke else (5, 100)
    found = {}
    for name, size, bound in (("in memory", in_memory, None), ("beyond memory", n_rows, None if smoke else limit * 1e9)):
        path = place / f"{name.replace(' ', '-')}.hdf5"
        write_hdf5(path, size, obs_dim, action_dim)
        found[name] = do(limited_updates, algo, path, bound, *counts)
        path.unlink()
    sizes = {"floats": n_floats, "raw": n_bytes(n_rows, obs_dim, action_dim), "limit": limit * 1e9}
    return {"algo": algo, "rows": n_rows, **sizes, "updates": found}


def weight_table(record: dict[str, Any]) -> str:
    """
    :param record: of :func:`weigh_data`
    :return: as it is printed, and stands on the page
    """
    raw, rows = record["raw"] / _MB, f"{record['rows']:,} rows"
    if "peaks" in record:
        shares = {name: (peak - record["agent"]) / record["raw"] for name, peak in record["peaks"].items()}
        lines = [f"{record['algo']}, {rows} of Hopper's sizes: {raw:.0f} MB of arrays"]
        lines.append(f"{'source':32}{'peak MB':>9}{'its data ÷ raw':>16}")
        lines += [f"{name:32}{peak / _MB:9.0f}{shares[name]:16.2f}" for name, peak in record["peaks"].items()]
        return "\n".join([*lines, f"{'(an agent with next to no data)':32}{record['agent'] / _MB:9.0f}"])
    limit = f"{record['limit'] / 1e9:g} GB of memory"
    lines = [f"{record['algo']}, {rows} of {record['floats']} floats: {raw / 1e3:.1f} GB of arrays, {limit}"]
    lines.append(f"{'rows':>28}{'mapped':>8}{'cpu ms':>9}{'wall ms':>9}{'MB':>7}{'rate':>7}")
    base = record["updates"]["in memory"]["ms"]
    for name, found in record["updates"].items():
        numbers = f"{found['ms']:9.2f}{found['wall_ms']:9.2f}{found['anonymous'] / _MB:7.0f}{base / found['ms']:7.0%}"
        lines.append(f"{name:14}{found['rows']:14,}{'yes' if found['mapped'] else 'no':>8}{numbers}")
    return "\n".join(lines)
