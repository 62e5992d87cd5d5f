"""
Write a synthetic log of insulin doses as CSV, as a hospital would have it, for the page that goes from such a log to a
decision (zoo/glucose/README.md). The patients are those of genoffline/Glucose-v0.
"""

import argparse
from pathlib import Path

from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short

from ..runs.flags import csv_file, positive, seed_number
from .log import write_log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo glucose``"""
    add = parser.add_argument
    add(
        "output",
        type=csv_file,
        nargs="?",
        default="glucose.csv",
        metavar="FILE",
        help="CSV file to write (default: glucose.csv)",
    )
    add("--patients", type=positive, default=400, help="patients (default: 400)")
    add("--overwrite", action="store_true", help="even if the file exists")
    add("--seed", type=seed_number, default=0, help="seed of all random numbers")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    if Path(args.output).exists() and not args.overwrite:
        raise UserError(f"{short(args.output)} exists. Give another name, or --overwrite to write it anew.")
    n_rows = write_log(args.output, args.patients, args.seed)
    print(f"wrote {args.output}: {n_rows:,} half hours of {args.patients:,} patients")
