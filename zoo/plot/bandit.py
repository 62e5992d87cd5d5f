"""The 2-D bandit of the DAC paper: where soft, hard and denoised guidance put their actions."""

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.flags import jobs, picture_file, positive, seed_number
from ..runs.provenance import versions
from ..runs.writing import write_json
from ..toys.bandit import METHODS, SETS, critic_surface, make_agent, make_data, measure, sample, train_agent, true_q
from .figures import new_figure, save_figure

MATCHED = "denoised, clamped sampler"
STYLES: dict[str, dict[str, Any]] = {
    "soft": {"marker": "^", "color": "magenta"},
    "hard": {"marker": "x", "color": "blue"},
    "denoised": {"marker": "x", "color": "darkorange"},
    MATCHED: {"marker": "+", "color": "green"},
    "bc": {"marker": ".", "color": "black", "alpha": 0.5},
}
N_MEASURED = 1000
N_DRAWN = 100
LIMIT = 1.5


def run_method(method: str, index: int, steps: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """
    Train one method on one data set.

    :param method: see :data:`zoo.toys.bandit.METHODS`
    :param index: of the data set
    :param steps: updates
    :param seed: of the agent and its batches
    :return: what :func:`zoo.toys.bandit.measure` says and the ``samples`` by name (``denoised`` has a second variant); with
        ``soft`` also the critics on the grid as ``surface``
    """
    started = time.perf_counter()
    data = make_data(index)
    model = make_agent(method, steps, seed=520 + seed)  # type: ignore[arg-type]
    metrics = train_agent(model, data, steps, seed)
    common = {"eta": metrics.get("eta"), "bc_loss": metrics["bc_loss"], "seconds": round(time.perf_counter() - started, 1)}
    results = {}
    for name, clip in {method: None, MATCHED: True}.items() if method == "denoised" else [(method, None)]:
        samples = sample(model, N_MEASURED, seed, clip)
        results[name] = {**measure(samples, data), **common, "samples": samples}
    if method == "soft":
        results[method]["surface"] = critic_surface(model, _grid())
    return results


def run_all(
    sets: Sequence[int],
    methods: Sequence[str],
    steps: int,
    seed: int = 0,
    jobs: int = 1,
    verbose: bool = True,
    denoised_steps: int | None = None,
) -> dict[int, dict[str, dict[str, Any]]]:
    """
    Every method on every set.

    :param jobs: processes that share the work
    :param verbose: print the numbers as they come
    :param denoised_steps: updates of the denoised agents (None: ``steps``)
    :return: by set, what :func:`run_method` returns
    """
    results: dict[int, dict[str, dict[str, Any]]] = {index: {} for index in sets}

    def keep(index: int, found: dict[str, dict[str, Any]]) -> None:
        results[index] |= found
        for name, numbers in found.items() if verbose else ():
            eta = "" if numbers["eta"] is None else f", eta {numbers['eta']:.3f}"
            print(
                f"set {index} {name}: mean Q {numbers['mean_q']:.3f}, OOD {numbers['ood']:.2f}, nearest "
                f"{numbers['nearest']:.3f}{eta}, {numbers['seconds']:.0f} s",
                flush=True,
            )

    own_steps = {"denoised": steps if denoised_steps is None else denoised_steps}
    work = [
        (method, index, own_steps.get(method, steps), seed)
        for method in sorted(methods, key=lambda m: m != "denoised")
        for index in sets
    ]
    if jobs <= 1:
        for arguments in work:
            keep(arguments[1], run_method(*arguments))
        return results
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_one_thread) as pool:
        futures = {pool.submit(run_method, *arguments): arguments[1] for arguments in work}
        for future in as_completed(futures):
            keep(futures[future], future.result())
    return results


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _grid() -> np.ndarray:
    """(100, 100, 2) actions."""
    axis = np.linspace(-LIMIT, LIMIT, 100)
    return np.stack(np.meshgrid(axis, axis), axis=-1)


def plot_bandit(
    output: str | Path,
    sets: Sequence[int] = SETS,
    methods: Sequence[str] = ("soft", "hard", "denoised"),
    steps: int = 20_000,
    seed: int = 0,
    matched: bool = False,
    jobs: int = 1,
    verbose: bool = True,
    denoised_steps: int | None = None,
) -> list[Path]:
    """
    Train and draw: a panel per data set with its points coloured by Q, the contours of the soft agent's critics, and 100
    samples per method. The numbers go into a JSON file beside the picture.

    :param output: file name; a PNG, an SVG and a JSON file are written
    :param sets: data sets
    :param methods: guidance kinds, ``"bc"`` for imitation
    :param steps: updates per agent
    :param seed: of agents and batches
    :param matched: also draw the samples of ``denoised`` from a sampler that clamps as its training does
    :param jobs: processes that share the work
    :param verbose: print the numbers
    :param denoised_steps: updates of the denoised agents, whose gradient through the chain costs eight times as much (None:
        ``steps``)
    """
    everything = run_all(sets, methods, steps, seed, jobs, verbose, denoised_steps)
    figure, panels = new_figure(len(sets), 3.4, 3.7)
    table: dict[str, Any] = {
        "steps": steps,
        "denoised_steps": denoised_steps or steps,
        "seed": seed,
        "versions": versions(),
        "sets": {},
    }
    points = None
    for index, axes in zip(sets, panels, strict=True):
        data = make_data(index)
        results = {name: everything[index][name] for name in STYLES if name in everything[index]}
        points = axes.scatter(*data.actions.T, c=true_q(data.actions), s=4, cmap="viridis", vmin=-1.6, vmax=0.0)
        if "soft" in results:
            grid = _grid()
            axes.contour(
                grid[..., 0], grid[..., 1], results["soft"]["surface"], 8, linestyles="dashed", linewidths=0.6, colors="gray"
            )
        for name, found in results.items():
            if name != MATCHED or matched:
                drawn = np.clip(found["samples"][:N_DRAWN], -LIMIT + 0.05, LIMIT - 0.05)
                axes.scatter(*drawn.T, s=14, linewidths=0.8, label=name, **STYLES[name])
        axes.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal", title=f"set {index}")
        numbers = {
            name: {key: value for key, value in found.items() if key not in ("samples", "surface")}
            for name, found in results.items()
        }
        table["sets"][str(index)] = {"data_mean_q": float(true_q(data.actions).mean()), **numbers}
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(STYLES), fontsize="small")
    figure.colorbar(points, ax=panels, label="Q", shrink=0.8)
    files = save_figure(figure, output)
    numbers_file = files[0].with_suffix(".json")
    write_json(numbers_file, table)
    return [*files, numbers_file]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo plot bandit``"""
    add = parser.add_argument
    add("--steps", type=positive, default=20_000, help="updates per agent")
    add(
        "--denoised-steps",
        type=positive,
        help="updates of the denoised agents, which cost eight times as much (default: --steps)",
    )
    add("--sets", type=positive, nargs="+", choices=SETS, default=list(SETS), help="data sets")
    add("--methods", nargs="+", choices=METHODS, default=["soft", "hard", "denoised"], help="what to train; bc is imitation")
    add("--matched", action="store_true", help="also draw denoised with a sampler that clamps as its training does")
    add("--seed", type=seed_number, default=0, help="of agents and batches")
    add("--jobs", type=jobs, default=1, help="processes that share the work, of one thread each")
    add("-o", "--output", type=picture_file, default="bandit.png", help="file to write, as PNG, SVG and JSON")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    _one_thread()  # the nets are too small for more
    numbers = (args.sets, args.methods, args.steps, args.seed, args.matched, args.jobs)
    for file in plot_bandit(args.output, *numbers, denoised_steps=args.denoised_steps):
        print(f"wrote {file}")
