"""
Measure the speed of training updates: updates/s, achieved GFLOP/s and the fraction of the matrix-multiply peak of the same
threads in the same run; and steps/s of the fits before the updates, where there are any. Variants take turns, so that a busy
machine slows all alike. `--beside-plain` times every algorithm; `--scale` measures how time and memory of an update grow with
the work, `--memory` what data weigh up to the first update, and `--memory --beyond` updates of data that are larger than a
limit of memory.
"""

import argparse
from pathlib import Path

import torch as th

from sb3_genoffline import ALGOS

from ..runs.flags import a_folder, algorithm, device, jobs, json_file, picture_file, positive, real
from ..runs.writing import write_json
from .agents import SHAPES
from .beside_plain import record_beside_plain
from .costs import record_costs
from .footprint import weigh_data
from .scale import measure_scale
from .updates import time_updates, updates_table


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
    what.add_argument(
        "--beside-plain",
        type=json_file,
        metavar="JSON",
        help="time an update of each algorithm beside its plain form (minutes)",
    )
    what.add_argument("--memory", action="store_true", help="measure what data weigh up to the first update (2 minutes)")
    parser.add_argument("--beyond", type=real, metavar="GB", help="with --memory: data that are larger than this limit")
    parser.add_argument("--rows", type=positive, help="of the data of --scale (at most) and --memory")
    parser.add_argument("--floats", type=positive, default=100, help="of a row, with --beyond")
    parser.add_argument("--folder", type=a_folder, default=".", help="where data are written to, for as long as it takes")
    parser.add_argument("--smoke", action="store_true", help="try --scale or --memory, tiny and in this process")
    parser.add_argument("-o", "--output", type=picture_file, help="record to write, as JSON; of --scale also PNG and SVG")


def main(args: argparse.Namespace) -> None:
    """Time the variants in turn and print the table, or do what is asked for instead."""
    th.set_num_threads(args.num_threads)
    if args.costs is not None:
        record_costs(Path(args.costs), args.shape, args.setting)
        return
    if args.beside_plain is not None:
        record_beside_plain(Path(args.beside_plain), args.shape)
        return
    if args.scale:
        measure_scale(args.algo, args.rows, Path(args.folder), args.output or "scale.png", args.smoke)
        return
    if args.memory:
        weigh_data(args.algo, args.rows, args.beyond, args.floats, Path(args.folder), args.output, args.smoke)
        return
    record = time_updates(args)
    print(updates_table(record))
    if args.output:
        file = Path(args.output).with_suffix(".json")
        write_json(file, record)
        print(f"wrote {file}")
