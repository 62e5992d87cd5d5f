"""How fast updates and the steps of fits are: variants that take turns, beside the peak of the same threads."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch as th
from stable_baselines3.common.utils import get_device
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sb3_genoffline import ALGOS
from sb3_genoffline.common.precision import MatmulPrecision, bf16_products, matmul_precision
from sb3_genoffline.errors import UserError

from ..runs.provenance import processor
from .agents import build, make_fits, measure, plain_form
from .plain_parts import PlainParts

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
    source, form = build(args.algo, args.shape, args.setting, args.device), plain_form(ALGOS[args.algo])
    name, plain = "plain (shared parts)", None
    if form is not None:
        try:
            name, plain = "plain (reference form)", form(source)
        except UserError as error:
            print(f"no plain form of this setting: {error}")
    plain = plain or PlainParts(source)

    def plain_update() -> None:
        batch = source.batches.draw(args.batch_size)
        plain.update(batch, source.draw_noise(len(batch[0])))

    found.insert(0, Variant(name, plain_update))
    if args.bf16:
        print(bf16_products())
        found += [Variant(f"{variant.name}, bf16", variant.update, "bf16") for variant in found]
    return found


def time_updates(args: argparse.Namespace) -> dict[str, Any]:
    """
    Time the variants in turn.

    :param args: flags of ``python -m zoo speed``
    :return: the record: plain data
    """
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
    first = seconds[candidates[0].name]
    return {
        "algo": args.algo,
        "setting": args.setting,
        "shape": args.shape,
        "batch_size": args.batch_size,
        "device": str(hardware),
        "threads": args.num_threads,
        "processor": processor(),
        "torch": str(th.__version__),
        "flops": flops,
        "peak": max(peaks),
        "variants": [
            {
                "name": variant.name,
                "seconds": median(seconds[variant.name]),
                "times_faster": median(a / b for a, b in zip(first, seconds[variant.name], strict=True)),
            }
            for variant in candidates
        ],
        "fits": [{"name": fit.name, "seconds": median(seconds[fit.name]), "n_steps": fit.n_steps} for fit in fits],
    }


def updates_table(record: dict[str, Any]) -> str:
    """
    :param record: of :func:`time_updates`
    :return: as it is printed, and stands on a page
    """
    flops, peak, timed = record["flops"], record["peak"], record["variants"]
    lines = [
        f"{record['algo']}, {record['setting']} setting, {record['shape']}, batch {record['batch_size']}, {record['device']}, "
        f"{record['threads']} thread(s), {record['processor']}, torch {record['torch']}",
        f"{flops / 1e9:.4g} GFLOP an update; matrix-multiply peak of the same threads {peak / 1e9:.0f} GFLOP/s",
        f"{'variant':28}{'ms':>9}{'updates/s':>11}{'GFLOP/s':>9}{'of peak':>9}{'vs ' + timed[0]['name'].split(' ')[0]:>10}",
    ]
    for each in timed:
        taken, achieved = each["seconds"], flops / each["seconds"]
        lines.append(
            f"{each['name']:28}{taken * 1e3:9.1f}{1 / taken:11.2f}{achieved / 1e9:9.1f}{achieved / peak:9.0%}"
            f"{each['times_faster']:9.2f}x"
        )
    for fit in record["fits"]:
        taken, n_steps = fit["seconds"], fit["n_steps"]
        lines.append(
            f"fit {fit['name']:24}{taken * 1e3:9.2f}{1 / taken:11.1f}  steps/s; its {n_steps:,} steps take "
            f"{n_steps * taken / 60:,.1f} min"
        )
    return "\n".join(lines)
