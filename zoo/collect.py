"""`python -m zoo collect genoffline/hopper/medium-v0`: make a Minari dataset from our behaviour policies."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sb3_genoffline import __version__
from sb3_genoffline.data.scores import scale_returns
from zoo.episodes import Episode
from zoo.recipes import Recipe, load_recipe

if TYPE_CHECKING:
    from minari import MinariDataset

AUTHOR = "sb3-genoffline maintainers"
AUTHOR_EMAIL = "maintainers@sb3-genoffline.example"
Progress = Callable[[int, int], None]


@dataclass
class Statistics:
    """What was collected, counted while it is written."""

    returns: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0

    def add(self, episode: Episode) -> None:
        self.returns.append(float(episode.rewards.sum()))
        self.steps += len(episode.rewards)

    def text(self, ref_min: float | None, ref_max: float | None) -> str:
        r = np.array(self.returns)
        lines = (
            f"steps {self.steps}  episodes {len(r)}  seconds {self.seconds:.1f}  steps/s {self.steps / self.seconds:.0f}\n"
            f"return {r.mean():.1f} ± {r.std():.1f} (min {r.min():.1f}, max {r.max():.1f})"
        )
        if ref_min is None or ref_max is None:
            return lines
        return f"{lines}  normalised score {float(scale_returns(r.mean(), ref_min, ref_max)):.1f}"


def _episodes(recipe: Recipe, seed: int, n_envs: int, stats: Statistics, progress: Progress | None) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    for episode in recipe.episodes(seed, n_envs):
        n = len(episode.rewards)
        terminations, truncations = np.zeros((2, n), dtype=bool)
        terminations[-1], truncations[-1] = episode.terminated, episode.truncated
        yield EpisodeBuffer(
            observations=cast(Any, episode.observations),
            actions=cast(Any, episode.actions),
            rewards=cast(Any, episode.rewards),
            terminations=cast(Any, terminations),
            truncations=cast(Any, truncations),
            infos=cast(Any, episode.infos),
        )
        stats.add(episode)
        if progress is not None:
            progress(n, recipe.n_steps)


@contextlib.contextmanager
def _minari_root(folder: Path) -> Iterator[None]:
    """Let Minari write below another root."""
    old = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        yield
    finally:
        if old is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = old


def _description(recipe: Recipe, seed: int, n_envs: int) -> str:
    return f"{recipe.description} Seed {seed}, {n_envs} copies of the environment, {recipe.n_steps} steps."


def collect(
    dataset_id: str,
    steps: int | None = None,
    seed: int = 0,
    n_envs: int = 8,
    overwrite: bool = False,
    progress: Progress | None = None,
    author: str = AUTHOR,
    author_email: str = AUTHOR_EMAIL,
) -> MinariDataset:
    """
    Make one of our datasets and put it into Minari's local root (``MINARI_DATASETS_PATH`` or ``~/.minari/datasets``).
    Episodes go to disk as they end, below a hidden folder that becomes the dataset only when it is whole. The same
    ``dataset_id``, ``steps``, ``seed`` and ``n_envs`` give the same arrays on the same machine.

    :param dataset_id: One of :func:`zoo.recipes.collectible`, ``"genoffline/hopper/medium-v0"``
    :param steps: Total number of steps; None is the level's own number
    :param seed: Seed of the environments and of the action noise
    :param n_envs: Copies of the environment stepped together
    :param overwrite: Replace a dataset of the same id
    :param progress: Called after each episode with (steps of the episode, steps in all)
    :param author: Goes into the metadata
    :param author_email: Goes into the metadata
    :return: The new dataset; its ``spec`` and ``storage.metadata`` hold what was asked for
    :raises ValueError: Unknown id, steps or n_envs below 1
    :raises FileExistsError: There is such a dataset already and ``overwrite`` is False
    """
    return _collect(dataset_id, steps, seed, n_envs, overwrite, progress, author, author_email)[0]


def _collect(
    dataset_id: str,
    steps: int | None,
    seed: int,
    n_envs: int,
    overwrite: bool,
    progress: Progress | None,
    author: str,
    author_email: str,
) -> tuple[MinariDataset, Statistics, Recipe]:
    import minari
    from minari.namespace import create_namespace, list_local_namespaces
    from minari.storage.datasets_root_dir import get_dataset_path

    recipe = load_recipe(dataset_id, steps)
    if n_envs < 1:
        raise ValueError(f"n_envs is {n_envs}; use at least 1")
    if seed < 0:
        raise ValueError(f"seed is {seed}; use a number >= 0")
    target = Path(get_dataset_path(dataset_id))
    if target.exists() and not overwrite:
        raise FileExistsError(f"{_existing(dataset_id, target)}; pass --overwrite (overwrite=True) to replace it")
    root = Path(get_dataset_path())
    stats = Statistics()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=".collecting-", dir=root) as temporary:
        with _minari_root(Path(temporary)), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            minari.create_dataset_from_buffers(
                dataset_id,
                cast(Any, _episodes(recipe, seed, n_envs, stats, progress)),  # Minari only iterates over it, once
                env=recipe.env,
                eval_env=recipe.eval_env,
                algorithm_name=recipe.algorithm,
                author=author,
                author_email=author_email,
                code_permalink=f"sb3-genoffline {__version__}: {recipe.source}, sha256 {recipe.fingerprint}",
                ref_min_score=recipe.ref_min_score,
                ref_max_score=recipe.ref_max_score,
                description=_description(recipe, seed, n_envs),
                requirements=[f"{name}=={version(name)}" for name in ("gymnasium", "mujoco")],
            )
        namespace = dataset_id.rpartition("/")[0]
        if namespace not in list_local_namespaces():
            create_namespace(namespace)
        _put(Path(temporary) / dataset_id, target, Path(temporary) / "replaced", overwrite)
    stats.seconds = time.perf_counter() - started
    return minari.load_dataset(dataset_id), stats, recipe


def _put(source: Path, target: Path, old: Path, overwrite: bool) -> None:
    """Move a finished dataset to its place; whatever happens, there is a whole one there: the old or the new."""
    if overwrite and target.exists():
        os.replace(target, old)
        try:
            os.replace(source, target)
        except BaseException:
            os.replace(old, target)
            raise
    else:
        os.replace(source, target)  # fails if another process has put one there meanwhile


def _existing(dataset_id: str, target: Path) -> str:
    try:
        steps = json.loads((target / "data" / "metadata.json").read_text())["total_steps"]
    except (OSError, ValueError, KeyError):
        return f"there is something at {target} that is not a whole dataset"
    return f"dataset {dataset_id} exists already, with {steps} steps, at {target}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: Takes the flags of ``python -m zoo collect``
    """
    parser.add_argument("dataset", help="what to collect, such as genoffline/hopper/medium-v0")
    parser.add_argument("--steps", type=int, default=None, help="steps in all (default: the level's own number)")
    parser.add_argument("--seed", type=int, default=0, help="seed of environments and action noise")
    parser.add_argument("--n-envs", type=int, default=8, help="copies of the environment stepped together")
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset of the same id")
    parser.add_argument("-P", "--progress", action="store_true", help="show a progress bar")
    parser.add_argument("--author", default=AUTHOR, help="author named in the dataset")
    parser.add_argument("--author-email", default=AUTHOR_EMAIL, help="author's address named in the dataset")


def main(args: argparse.Namespace) -> None:
    """
    :param args: As parsed with :func:`add_arguments`
    """
    bar: Any = None
    progress: Progress | None = None
    if args.progress:
        from tqdm import tqdm

        bar = tqdm(unit="step", unit_scale=True, file=sys.stderr)

        def progress(n: int, total: int) -> None:
            bar.total = total
            bar.update(n)

    try:
        dataset, stats, recipe = _collect(
            args.dataset, args.steps, args.seed, args.n_envs, args.overwrite, progress, args.author, args.author_email
        )
    finally:
        if bar is not None:
            bar.close()
    print(f"{args.dataset} -> {dataset.spec.data_path}")
    print(stats.text(recipe.ref_min_score, recipe.ref_max_score))
