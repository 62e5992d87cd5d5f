"""
Train and evaluate algorithms × datasets × seeds from one YAML plan, and report on them.

`python -m zoo benchmark PLAN -f FOLDER` resumes where it was stopped: it skips finished runs, continues interrupted ones from
their last checkpoint, and reruns those whose settings have changed.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from sb3_genoffline.errors import UserError
from sb3_genoffline.program import PROGRAM

from ..runs.flags import a_folder, new_folder
from ..runs.provenance import command_line
from ..runs.stopping import advised
from .starting import add_job_arguments, starter

if TYPE_CHECKING:
    from .plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo benchmark``"""
    add = parser.add_argument
    add("plan", help="YAML file, such as zoo/benchmarks/cpu.yml")
    add("-f", "--folder", "--log-folder", type=a_folder, default="logs/benchmark", help="folder of the records, logs and runs")
    add_job_arguments(parser)
    add("--retry-failed", action="store_true", help="also rerun those that failed")
    add("--collect", action="store_true", help="collect genoffline datasets that are missing")
    add("--status", action="store_true", help="show what is done and exit")
    add("--report", type=new_folder, metavar="DIR", help="write the report and its records there, and exit")
    add("--records", type=a_folder, metavar="DIR", help="make the report from these records instead of the folder's")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    from .overview import Overview, last_words, print_overview, shown
    from .plan import read_plan
    from .runner import Benchmark, is_running

    if args.records and not args.report:
        raise UserError("--records says what the report is made of: add --report with the folder to write.")
    plan, folder = read_plan(args.plan), Path(args.folder)
    if args.report:
        _report(plan, args)
        return
    benchmark = Benchmark(plan, folder, args.retry_failed)
    if args.status:
        overview = Overview(benchmark, is_running(folder))
        print_overview(overview)
        print(last_words(overview, folder))
        return
    start, parallel = starter(args)
    overview = Overview(benchmark, active=True, parallel=parallel)
    try:
        with shown(overview) as screen, closing(benchmark.run(start, parallel, args.collect)) as events:
            for event in events:
                screen.show(event)
    except KeyboardInterrupt as stop:
        overview.update()
        raise advised(stop, f"{overview.counts()}; to resume, run the same command: {command_line()}") from None
    overview.update()
    print(overview.counts())
    problems = last_words(overview, folder)
    if problems:
        sys.exit(problems)


def _report(plan: Plan, args: argparse.Namespace) -> None:
    from .records import copy_ended
    from .report import write_report

    records = Path(args.report) / "records" if args.records is None else Path(args.records)
    if args.records is None:
        copy_ended(Path(args.folder) / "jobs", records)
    command = f"{PROGRAM} benchmark {args.plan} --records {records} --report {args.report}"
    for file in write_report(plan, records, args.report, command):
        print(f"wrote {file}")
