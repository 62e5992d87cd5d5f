"""
Make Minari datasets from our behaviour policies.

`python -m zoo collect genoffline/hopper/medium-v1` makes one. Several ids, quoted patterns ('genoffline/hopper/*') or `all`
are made one after another, skipping those that exist; if the command is interrupted, the same command resumes.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from sb3_genoffline.program import PROGRAM

from ..recipes import chosen, load_recipe
from ..runs.flags import jobs, positive, seed_number
from ..runs.provenance import command_line
from ..runs.stopping import advised
from .make import AUTHOR, AUTHOR_EMAIL, Progress, is_there, write_dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: Takes the flags of ``python -m zoo collect``
    """
    parser.add_argument(
        "datasets", nargs="+", metavar="dataset", help="ids such as genoffline/hopper/medium-v1, patterns, all"
    )
    parser.add_argument("--steps", type=positive, default=None, help="steps per dataset (default: the level's own number)")
    parser.add_argument("--seed", type=seed_number, default=0, help="seed of environments and action noise")
    parser.add_argument("--n-envs", type=positive, default=8, help="copies of the environment stepped together")
    parser.add_argument(
        "--jobs", type=jobs, default=1, help="processes that share the copies; another number gives other data"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace datasets of the same ids")
    parser.add_argument("-P", "--progress", action="store_true", help="show a progress bar")
    parser.add_argument("--author", default=AUTHOR, help="author named in the dataset")
    parser.add_argument("--author-email", default=AUTHOR_EMAIL, help="author's address named in the dataset")


def main(args: argparse.Namespace) -> None:
    """
    :param args: As parsed with :func:`add_arguments`
    """
    ids = chosen(args.datasets)
    failed = []
    for dataset_id in ids:
        try:
            _make(dataset_id, args)
        except KeyboardInterrupt as stop:
            advice = f"nothing is left of the unfinished {dataset_id}; to resume, run the same command: {command_line()}"
            raise advised(stop, advice) from None
        except Exception as error:
            if len(ids) == 1:
                raise
            failed.append(dataset_id)
            print(f"{PROGRAM} collect: {dataset_id}: {error}", file=sys.stderr, flush=True)
    if failed:
        sys.exit(f"{PROGRAM} collect: {len(failed)} of {len(ids)} datasets could not be made: {', '.join(failed)}")


def _make(dataset_id: str, args: argparse.Namespace) -> None:
    recipe = load_recipe(dataset_id, args.steps)
    if not args.overwrite and is_there(recipe, args.seed):
        print(f"{dataset_id} is there already, {recipe.n_steps} steps of seed {args.seed}: skipped", flush=True)
        return
    with _bar(dataset_id, args.progress) as progress:
        dataset, stats = write_dataset(
            recipe, args.seed, args.n_envs, args.overwrite, progress, args.author, args.author_email, args.jobs
        )
    path = Path(dataset.spec.data_path)
    print(f"{dataset_id} -> {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    print(stats.text(recipe.ref_min_score, recipe.ref_max_score), flush=True)


@contextlib.contextmanager
def _bar(label: str, shown: bool) -> Iterator[Progress | None]:
    if not shown:
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc=label, unit="step", unit_scale=True, file=sys.stderr) as bar:

        def progress(n: int, total: int) -> None:
            bar.total = total
            bar.update(n)

        yield progress
