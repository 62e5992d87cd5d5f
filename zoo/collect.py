"""`python -m zoo collect genoffline/hopper/medium-v0`: make a Minari dataset from our behaviour policies."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import json
import math
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
from zoo.behavior.policy import BehaviorPolicy
from zoo.behavior.rollout import Episode, Segment, rollout

if TYPE_CHECKING:
    from minari import MinariDataset

BEHAVIOR = Path(__file__).parent / "behavior"
NAMESPACE = "genoffline"
AUTHOR = "sb3-genoffline maintainers"
AUTHOR_EMAIL = "maintainers@sb3-genoffline.example"
Progress = Callable[[int, int], None]


def collectible() -> dict[str, tuple[Path, str]]:
    """
    :return: Dataset id to (folder of behaviour policies, level); every `zoo/behavior/<env>/index.json` adds its levels
    """
    table = {}
    for index in sorted(BEHAVIOR.glob("*/index.json")):
        for level in json.loads(index.read_text())["levels"]:
            table[f"{NAMESPACE}/{index.parent.name}/{level}-v0"] = (index.parent, level)
    return table


@dataclass
class Recipe:
    """
    What a dataset is made of.

    :param dataset_id: Minari id
    :param level: The part of the id after the environment
    :param index: The env's `index.json`
    :param parts: Each part is collected on its own, its segments one after another
    :param fingerprint: sha256 over the parts and their policies: what the data depend on besides seed and sizes
    """

    dataset_id: str
    level: str
    index: dict[str, Any]
    parts: list[list[Segment]]
    fingerprint: str

    @property
    def n_steps(self) -> int:
        return sum(segment.n_steps for part in self.parts for segment in part)


def load_recipe(dataset_id: str, steps: int | None = None) -> Recipe:
    """
    :param dataset_id: One of :func:`collectible`
    :param steps: Total number of steps; None is the level's own number
    """
    table = collectible()
    if dataset_id not in table:
        near = difflib.get_close_matches(dataset_id, table, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"no recipe for dataset {dataset_id!r}.{hint} These can be collected: {', '.join(table)}")
    folder, level = table[dataset_id]
    index = json.loads((folder / "index.json").read_text())
    recipe = index["levels"][level]
    steps = recipe["steps"] if steps is None else steps
    if steps < 1:
        raise ValueError(f"steps is {steps}; collect at least 1")
    digest = hashlib.sha256(json.dumps([index["env_id"], recipe["parts"]]).encode())
    parts, at, done = [], 0.0, 0
    total = math.fsum(segment["weight"] for part in recipe["parts"] for segment in part)
    for part in recipe["parts"]:
        segments = []
        for segment in part:
            policy = None
            if segment["policy"] is not None:
                path = folder / segment["policy"]
                digest.update(path.read_bytes())
                policy = BehaviorPolicy.load(path)
            at += segment["weight"]
            end = round(steps * at / total)
            segments.append(Segment(policy, segment["noise"], end - done))
            done = end
        parts.append(segments)
    return Recipe(dataset_id, level, index, parts, digest.hexdigest())


@dataclass
class Statistics:
    """What was collected, counted while it is written."""

    returns: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0

    def add(self, episode: Episode) -> None:
        self.returns.append(float(episode.rewards.sum()))
        self.steps += len(episode.rewards)

    def text(self, ref_min: float, ref_max: float) -> str:
        r = np.array(self.returns)
        score = float(scale_returns(r.mean(), ref_min, ref_max))
        return (
            f"steps {self.steps}  episodes {len(r)}  seconds {self.seconds:.1f}  steps/s {self.steps / self.seconds:.0f}\n"
            f"return {r.mean():.1f} ± {r.std():.1f} (min {r.min():.1f}, max {r.max():.1f})  normalised score {score:.1f}"
        )


def _episodes(recipe: Recipe, seed: int, n_envs: int, stats: Statistics, progress: Progress | None) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    for number, part in enumerate(recipe.parts):
        for episode in rollout(recipe.index["env_id"], part, seed=(seed, number), n_envs=n_envs):
            n = len(episode.rewards)
            terminations, truncations = np.zeros((2, n), dtype=bool)
            terminations[-1], truncations[-1] = episode.terminated, episode.truncated
            yield EpisodeBuffer(
                observations=cast(Any, episode.observations),
                actions=cast(Any, episode.actions),
                rewards=cast(Any, episode.rewards),
                terminations=cast(Any, terminations),
                truncations=cast(Any, truncations),
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
    level = recipe.index["levels"][recipe.level]
    return f"{level['description']} Seed {seed}, {n_envs} copies of the environment, {recipe.n_steps} steps."


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

    :param dataset_id: One of :func:`collectible`, ``"genoffline/hopper/medium-v0"``
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
                env=recipe.index["env_id"],
                eval_env=recipe.index["env_id"],
                algorithm_name=recipe.index["levels"][recipe.level]["algorithm"],
                author=author,
                author_email=author_email,
                code_permalink=f"sb3-genoffline {__version__}: zoo/behavior/{target.parent.name}, sha256 {recipe.fingerprint}",
                ref_min_score=recipe.index["ref_min_score"],
                ref_max_score=recipe.index["ref_max_score"],
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
    print(stats.text(recipe.index["ref_min_score"], recipe.index["ref_max_score"]))
