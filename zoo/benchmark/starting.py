"""Flags that say how many jobs work at a time and where, and what starts one."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from ..runs.flags import jobs, niceness, share_of_gpus

if TYPE_CHECKING:
    from .runner import Starter


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of every command that runs jobs"""
    add = parser.add_argument
    add("--jobs", type=jobs, help="runs at a time (default: 1; on a Ray cluster, what fits)")
    add("--threads", type=jobs, default=1, help="threads of each run")
    add("--nice", type=niceness, default=10, help="how much the runs yield to other processes")
    add("--ray", metavar="ADDRESS", help="run on the Ray cluster there; `local` starts one on this machine")
    add("--gpus", type=share_of_gpus, default=0.0, help="GPUs of each run on a Ray cluster; 0.25 lets four share one")


def starter(args: argparse.Namespace, **options: Any) -> tuple[Starter, int]:
    """
    :param args: as parsed with :func:`add_job_arguments`
    :param options: of :class:`~zoo.benchmark.runner.LocalProcess`
    :return: what starts a job, and how many work at a time
    """
    from .runner import LocalProcess

    if args.ray is None:
        return partial(LocalProcess, threads=args.threads, nice=args.nice, **options), args.jobs or 1
    from .cluster import RayProcess, connect

    processors = connect(args.ray)
    start = partial(RayProcess, threads=args.threads, nice=args.nice, gpus=args.gpus, **options)
    return start, args.jobs or max(1, processors // args.threads)
