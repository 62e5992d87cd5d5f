"""
Measure the speed of training updates: updates/s, achieved GFLOP/s and the fraction of the matrix-multiply peak of the same
threads in the same run; and steps/s of the fits before the updates, where there are any. Variants take turns, so that a busy
machine slows all alike. `--scale` measures how time and memory of an update grow with the work, `--memory` what data weigh up
to the first update, and `--memory --beyond` updates of data that are larger than a limit of memory.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch as th
from stable_baselines3.common.utils import get_device
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sb3_genoffline import ALGOS
from sb3_genoffline.common.precision import MatmulPrecision, bf16_products, matmul_precision
from sb3_genoffline.errors import UserError

from ..runs.flags import a_folder, algorithm, device, jobs, json_file, picture_file, positive, real
from .agents import SHAPES, build, make_fits, measure, plain_form
from .costs import record_costs
from .footprint import weigh_data
from .scale import measure_scale

PEAK_SIZES = (512, 1024, 2048)
"""Of the square matrices whose products give the peak."""


@dataclass
class Variant:
    """
    One way to run the same update.

    :param name: as printed
    :param update: runs one update
    :param precision: of its matrix products
    """

    name: str
    update: Callable[[], Any]
    precision: MatmulPrecision = "fp32"


class _Products(TorchDispatchMode):
    """Counts the floating-point operations of the matrix products inside it; a multiply-add counts 2."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return result


def update_flops(model: Any, batch_size: int) -> float:
    """
    Floating-point operations of one update, the mean of a few: matrix products only, as they are done.

    :param model: ready to update
    :param batch_size: B
    :return: number of operations, e.g. 14.6e9 for DAC at the paper's setting
    """
    n_updates = max(2, getattr(model, "policy_delay", 1))  # as many as it takes until all parts have learned
    batches = [model.batches.draw(batch_size) for _ in range(n_updates)]
    with _Products() as products:
        for batch in batches:
            model.step(batch, model.draw_noise(len(batch[0])))
    return products.flops * batch_size / sum(len(batch[0]) for batch in batches)


def matmul_peak(device: th.device) -> float:
    """Best float32 matrix-multiply rate seen over a few square sizes, in FLOP/s."""
    best = 0.0
    for size in PEAK_SIZES:
        a, b = th.randn(size, size, device=device), th.randn(size, size, device=device)
        measure(lambda a=a, b=b: a @ b, 2, device)  # type: ignore[misc]
        best = max(best, 2 * size**3 / measure(lambda a=a, b=b: a @ b, 4, device))  # type: ignore[misc]
    return best


def variants(args: argparse.Namespace) -> list[Variant]:
    """
    What to time, by the flags.

    :raises UserError: for a flag that the algorithm or this CPU has no use for
    """
    model = build(args.algo, args.shape, args.setting, args.device)
    found = [Variant("eager", lambda: model.train(1, args.batch_size))]
    form = plain_form(ALGOS[args.algo])
    if form is not None:
        source = build(args.algo, args.shape, args.setting, args.device)
        try:
            plain = form(source)
        except UserError as error:
            print(f"no plain form of this setting: {error}")
        else:

            def plain_update() -> None:
                batch = source.replay_buffer.sample(args.batch_size)
                plain.update(batch, source.draw_noise(len(batch.rewards)))

            found.insert(0, Variant("plain (reference form)", plain_update))
    if args.bf16:
        print(bf16_products())
        found += [Variant(f"{variant.name}, bf16", variant.update, "bf16") for variant in found]
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``python -m zoo speed``."""
    parser.add_argument("--algo", type=algorithm, default="dac", help=f"algorithm: {', '.join(ALGOS)}")
    parser.add_argument("--setting", default="paper", help="paper, light (for a CPU), a profile, or a dataset with an entry")
    parser.add_argument("--shape", default="hopper", choices=sorted(SHAPES), help="observation and action sizes")
    parser.add_argument("--batch-size", type=positive, default=256)
    parser.add_argument("--updates", type=positive, default=5, help="updates a variant makes in one round")
    parser.add_argument("--rounds", type=positive, default=5, help="rounds; the median counts")
    parser.add_argument("--num-threads", type=jobs, default=1, help="CPU threads")
    parser.add_argument("--device", type=device, default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--bf16", action="store_true", help="also time every variant with matmul_precision='bf16'")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--scale", action="store_true", help="measure how time and memory of an update grow (5 minutes)")
    what.add_argument(
        "--costs", type=json_file, metavar="JSON", help="measure the CPU time of 10,000 updates of each algorithm"
    )
    what.add_argument("--memory", action="store_true", help="measure what data weigh up to the first update (2 minutes)")
    parser.add_argument("--beyond", type=real, metavar="GB", help="with --memory: data that are larger than this limit")
    parser.add_argument("--rows", type=positive, help="of the data of --scale (at most) and --memory")
    parser.add_argument("--floats", type=positive, default=100, help="of a row, with --beyond")
    parser.add_argument("--folder", type=a_folder, default=".", help="where data are written to, for as long as it takes")
    parser.add_argument("--smoke", action="store_true", help="try --scale or --memory, tiny and in this process")
    parser.add_argument("-o", "--output", type=picture_file, help="of --scale: table, PNG, SVG, JSON; of --memory: JSON")


def main(args: argparse.Namespace) -> None:
    """Time the variants in turn and print the table, or do what is asked for instead."""
    th.set_num_threads(args.num_threads)
    if args.costs is not None:
        record_costs(Path(args.costs), args.shape, args.setting)
        return
    if args.scale:
        measure_scale(args.algo, args.rows, Path(args.folder), args.output or "scale.png", args.smoke)
        return
    if args.memory:
        weigh_data(args.algo, args.rows, args.beyond, args.floats, Path(args.folder), args.output, args.smoke)
        return
    hardware = get_device(args.device)
    candidates = variants(args)
    fits = make_fits(args.algo, args.shape, args.setting, args.device)
    fitting = [Variant(fit.name, fit.update) for fit in fits]
    flops = update_flops(build(args.algo, args.shape, args.setting, "cpu"), args.batch_size)
    seconds: dict[str, list[float]] = {variant.name: [] for variant in [*candidates, *fitting]}
    peaks: list[float] = []
    for round_number in range(-1, args.rounds):  # the first round warms up
        for variant in [*candidates, *fitting]:
            with matmul_precision(variant.precision):
                taken = measure(variant.update, args.updates if round_number >= 0 else 2, hardware)
            if round_number >= 0:
                seconds[variant.name].append(taken)
        peaks.append(matmul_peak(hardware))
    peak = max(peaks)
    first = candidates[0].name
    print(
        f"{args.algo}, {args.setting} setting, {args.shape}, batch {args.batch_size}, {hardware}, {args.num_threads} thread(s)"
    )
    print(f"{flops / 1e9:.4g} GFLOP an update; matrix-multiply peak of the same threads {peak / 1e9:.0f} GFLOP/s")
    print(f"{'variant':28}{'ms':>9}{'updates/s':>11}{'GFLOP/s':>9}{'of peak':>9}{'vs ' + first.split(' ')[0]:>10}")
    for variant in candidates:
        times = seconds[variant.name]
        taken = median(times)
        ratio = median(a / b for a, b in zip(seconds[first], times, strict=True))
        achieved = flops / taken
        print(f"{variant.name:28}{taken * 1e3:9.1f}{1 / taken:11.2f}{achieved / 1e9:9.1f}{achieved / peak:9.0%}{ratio:9.2f}x")
    for fit in fits:
        taken = median(seconds[fit.name])
        print(
            f"fit {fit.name:24}{taken * 1e3:9.2f}{1 / taken:11.1f}  steps/s; its {fit.n_steps:,} steps take "
            f"{fit.n_steps * taken / 60:,.1f} min"
        )
