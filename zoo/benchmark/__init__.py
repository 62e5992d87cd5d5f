"""
Train and evaluate algorithms × datasets × seeds from one YAML plan, and report on them.

`python -m zoo benchmark PLAN -f FOLDER` goes on where it was stopped: a finished run is not run again, an interrupted one
continues from its last checkpoint, one whose settings changed is run anew.
"""

import argparse
import sys
from functools import partial
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo benchmark``"""
    add = parser.add_argument
    add("plan", help="YAML file, such as zoo/benchmarks/cpu.yml")
    add("-f", "--folder", "--log-folder", default="logs/benchmark", help="of the records, logs and runs")
    add("--jobs", type=int, default=1, help="runs at a time")
    add("--threads", type=int, default=1, help="threads of each run")
    add("--nice", type=int, default=10, help="how much the runs yield to other processes")
    add("--retry-failed", action="store_true", help="also run those that failed before")
    add("--collect", action="store_true", help="collect datasets of ours that are not there yet")
    add("--status", action="store_true", help="show what is done, and end")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    from zoo.benchmark.overview import Overview, last_words, print_overview, shown
    from zoo.benchmark.plan import read_plan
    from zoo.benchmark.runner import Benchmark, LocalProcess, is_running, terminable

    if args.jobs < 1 or args.threads < 1:
        raise ValueError(f"--jobs {args.jobs} and --threads {args.threads} must be at least 1.")
    plan, folder = read_plan(args.plan), Path(args.folder)
    benchmark = Benchmark(plan, folder, args.retry_failed)
    if args.status:
        overview = Overview(benchmark, is_running(folder))
        print_overview(overview)
        print(last_words(overview, folder))
        return
    start = partial(LocalProcess, threads=args.threads, nice=args.nice)
    overview = Overview(benchmark, active=True, parallel=args.jobs)
    try:
        with terminable(), shown(overview) as screen:
            for event in benchmark.run(start, args.jobs, args.collect):
                screen.show(event)
    except KeyboardInterrupt:
        overview.update()
        print(f"zoo benchmark: interrupted, {overview.counts()}; the same command goes on", file=sys.stderr)
        sys.exit(130)
    overview.update()
    print(overview.counts())
    problems = last_words(overview, folder)
    if problems:
        sys.exit(problems)
