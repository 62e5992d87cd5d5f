"""A Minari dataset from a recipe, written while it is collected."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sb3_genoffline import __version__
from sb3_genoffline.data import write_minari
from sb3_genoffline.data.scores import scale_returns
from sb3_genoffline.errors import UserError

from ..behavior.episode import Episode
from ..recipes import Recipe, load_recipe
from .workers import episodes_of_jobs

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

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


def collect(
    dataset_id: str,
    steps: int | None = None,
    seed: int = 0,
    n_envs: int = 8,
    overwrite: bool = False,
    progress: Progress | None = None,
    author: str = AUTHOR,
    author_email: str = AUTHOR_EMAIL,
    jobs: int = 1,
) -> MinariDataset:
    """
    Make one of our datasets and put it into Minari's local root (``MINARI_DATASETS_PATH`` or ``~/.minari/datasets``).
    Episodes go to disk as they end, below a hidden folder that becomes the dataset only when it is whole. The same
    ``dataset_id``, ``steps``, ``seed``, ``n_envs`` and ``jobs`` give the same arrays on the same machine.

    :param dataset_id: One of :func:`zoo.recipes.collectible`, ``"genoffline/hopper/medium-v1"``
    :param steps: Total number of steps; None is the level's own number
    :param seed: Seed of the environments and of the action noise
    :param n_envs: Copies of the environment stepped together
    :param overwrite: Replace a dataset of the same id
    :param progress: Called after each episode with (steps of the episode, steps in all)
    :param author: Goes into the metadata
    :param author_email: Goes into the metadata
    :param jobs: Processes among which the copies are shared out; with more than one, a script that calls this needs
        ``if __name__ == "__main__":``
    :return: The new dataset; its ``spec`` and ``storage.metadata`` hold what was asked for
    :raises UserError: Unknown id, steps or n_envs below 1, jobs below 1 or above n_envs
    :raises UserError: There is such a dataset already and ``overwrite`` is False, or another process is making it
    """
    return write_dataset(load_recipe(dataset_id, steps), seed, n_envs, overwrite, progress, author, author_email, jobs)[0]


def write_dataset(
    recipe: Recipe,
    seed: int,
    n_envs: int,
    overwrite: bool,
    progress: Progress | None,
    author: str,
    author_email: str,
    jobs: int,
) -> tuple[MinariDataset, Statistics]:
    if n_envs < 1:
        raise UserError(f"n_envs is {n_envs}; use at least 1")
    if seed < 0:
        raise UserError(f"seed is {seed}; use a number >= 0")
    if not 1 <= jobs <= n_envs:
        raise UserError(f"jobs is {jobs}; use at least 1 and at most one for each of the {n_envs} copies (n_envs)")
    stats = Statistics()
    started = time.perf_counter()
    where = f"{n_envs} copies of the environment" + (f" in {jobs} processes" if jobs > 1 else "")
    with contextlib.closing(_episodes(recipe, seed, n_envs, jobs)) as episodes:
        buffers = _buffers(episodes, recipe.n_steps, stats, progress)
        dataset = write_minari(
            recipe.dataset_id,
            buffers,
            env=recipe.env,
            eval_env=recipe.eval_env,
            overwrite=overwrite,
            algorithm_name=recipe.algorithm,
            author=author,
            author_email=author_email,
            code_permalink=f"sb3-genoffline {__version__}: {recipe.source}, sha256 {recipe.fingerprint}",
            ref_min_score=recipe.ref_min_score,
            ref_max_score=recipe.ref_max_score,
            description=f"{recipe.description} Seed {seed}, {where}, {recipe.n_steps} steps.",
            requirements=[f"{name}=={version(name)}" for name in ("gymnasium", "mujoco")],
            collection=_request(recipe, seed) | {"n_envs": n_envs, "jobs": jobs},
        )
    stats.seconds = time.perf_counter() - started
    return dataset, stats


def _episodes(recipe: Recipe, seed: int, n_envs: int, jobs: int) -> Generator[Episode, None, None]:
    if jobs == 1:
        yield from recipe.episodes(seed, n_envs)
    else:
        yield from episodes_of_jobs(recipe.dataset_id, recipe.n_steps, seed, n_envs, jobs)


def _buffers(
    episodes: Iterable[Episode], n_steps: int, stats: Statistics, progress: Progress | None
) -> Iterator[EpisodeBuffer]:
    from minari.data_collector import EpisodeBuffer

    for episode in episodes:
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
            progress(n, n_steps)


def _request(recipe: Recipe, seed: int) -> dict[str, Any]:
    """What makes a dataset the one that was asked for; how many copies and processes made it does not."""
    return {"steps": recipe.n_steps, "seed": seed, "recipe": recipe.fingerprint}


def is_there(recipe: Recipe, seed: int) -> bool:
    """
    Whether the dataset that is asked for is on this machine.

    :raises UserError: If there is another one of its id
    """
    from minari.storage.datasets_root_dir import get_dataset_path

    target = Path(get_dataset_path(recipe.dataset_id))
    if not target.exists():
        return False
    try:
        metadata = json.loads((target / "data" / "metadata.json").read_text())
        there, steps = metadata.get("collection", {}), metadata["total_steps"]
    except (OSError, ValueError, KeyError):
        raise UserError(
            f"there is something at {target} that is not a whole dataset; pass --overwrite to replace it"
        ) from None
    wanted = _request(recipe, seed)
    differences = [
        f"another {name}" if name == "recipe" else f"{name} {there.get(name, 'unknown')} instead of {wanted[name]}"
        for name in wanted
        if there.get(name) != wanted[name]
    ]
    if differences:
        raise UserError(
            f"dataset {recipe.dataset_id} exists already, with {steps} steps, at {target}, but made with "
            f"{', '.join(differences)}; pass --overwrite to replace it"
        )
    return True
