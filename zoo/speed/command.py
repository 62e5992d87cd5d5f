"""
Measure the speed of training updates: updates/s, achieved GFLOP/s and the fraction of the matrix-multiply peak of the same
threads in the same run; and steps/s of the fits before the updates, where there are any. Variants take turns, so that a busy
machine slows all alike.
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
from sb3_genoffline.errors import UserError

from ..runs.flags import algorithm, device, jobs, json_file, positive
from .agents import SHAPES, build, make_fits, measure, plain_form
from .costs import record_costs

PEAK_SIZES = (512, 1024, 2048)
"""Of the square matrices whose products give the peak."""


@dataclass
class Variant:
    """
    One way to run the same update.

    :param name: as printed
    :param update: runs one update
    :param onednn: let oneDNN multiply float32 matrices (faster on some AMD CPUs)
    """

    name: str
    update: Callable[[], Any]
    onednn: bool = False


def set_onednn(enabled: bool) -> None:
    """PyTorch's public switch that sends float32 products to oneDNN. It permits bf16 arithmetic where the CPU has it (AMX)."""
    th.backends.mkldnn.matmul.fp32_precision = "bf16" if enabled else "ieee"  # type: ignore[attr-defined]


def onednn_is_exact() -> bool:
    """Whether the switch keeps float32 accuracy here: the error of a product against float64 stays that of float32."""
    generator = th.Generator().manual_seed(0)
    a, b = (th.randn(512, 512, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    set_onednn(True)
    error = ((a @ b).double() - exact).abs().max().item()
    set_onednn(False)
    return error < 1e-3  # float32 errs by about 1e-4 here, bf16 by more than 0.1


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
    if args.onednn:
        if not onednn_is_exact():
            raise UserError("--onednn computes in bf16 on this CPU, which is not the same mathematics: leave the flag out.")
        found += [Variant(f"{variant.name}, oneDNN", variant.update, onednn=True) for variant in found]
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
    parser.add_argument(
        "--costs", type=json_file, metavar="JSON", help="instead: CPU time of 10,000 updates of every algorithm"
    )
    parser.add_argument("--onednn", action="store_true", help="also time every variant with oneDNN's float32 products")


def main(args: argparse.Namespace) -> None:
    """Time the variants in turn and print the table."""
    if args.costs is not None:
        record_costs(Path(args.costs), args.shape, args.setting)
        return
    th.set_num_threads(args.num_threads)
    hardware = get_device(args.device)
    candidates = variants(args)
    fits = make_fits(args.algo, args.shape, args.setting, args.device)
    fitting = [Variant(fit.name, fit.update) for fit in fits]
    flops = update_flops(build(args.algo, args.shape, args.setting, "cpu"), args.batch_size)
    seconds: dict[str, list[float]] = {variant.name: [] for variant in [*candidates, *fitting]}
    peaks: list[float] = []
    for round_number in range(-1, args.rounds):  # the first round warms up
        for variant in [*candidates, *fitting]:
            set_onednn(variant.onednn)
            taken = measure(variant.update, args.updates if round_number >= 0 else 2, hardware)
            if round_number >= 0:
                seconds[variant.name].append(taken)
        set_onednn(False)
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
