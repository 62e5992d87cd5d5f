"""Putting datasets together and taking them apart, whole episodes at a time."""

import itertools
import math
import numbers
import warnings
from collections.abc import Sequence

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.flattening import spaces_differ
from sb3_genoffline.errors import UserError

_COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")


def combine(*datasets: OfflineDataset, id: str | None = None) -> OfflineDataset:
    """
    Join the episodes of several datasets, in the order given, with their environments and reference scores.

    What is unknown in one (no environment, no scores) is taken from the others; what differs is an error, but for versions
    and settings of one environment (Hopper-v4 with Hopper-v5, other ``kwargs`` or step limits): that is a warning, and the
    first dataset's is kept. Observation bounds are widened to hold both.

    :param datasets: At least one.
    :param id: Id of the result; None keeps the id they share, if they do.
    :raises UserError: For anything else, such as a list of them.
    :raises UserError: If there is none, or spaces, reference scores or environments differ, naming the first that does.
    """
    if not datasets:
        raise UserError("combine() got no dataset; give at least one.")
    for other in datasets:
        if not isinstance(other, OfflineDataset):
            raise UserError(
                f"combine() got a {type(other).__name__}; it takes datasets one by one: combine(a, b), or combine(*[a, b])."
            )
    first = datasets[0]
    for number, other in enumerate(datasets):
        for name in ("observation_space", "action_space"):
            difference = spaces_differ(getattr(first, name), getattr(other, name))
            if difference is not None:
                raise UserError(f"The {name} of {_name(other, number)} differs from that of {_name(first, 0)}: {difference}.")
    evaluated = [d.eval_env_spec or d.env_spec for d in datasets]
    return first.replace(
        **{name: np.concatenate([getattr(d, name) for d in datasets]) for name in _COLUMNS},
        episode_ends=np.concatenate([d.episode_ends + offset for d, offset in zip(datasets, _offsets(datasets), strict=True)]),
        observation_space=spaces.Box(
            np.min([d.observation_space.low for d in datasets], axis=0),
            np.max([d.observation_space.high for d in datasets], axis=0),
        ),
        id=id if id is not None or any(d.id != first.id for d in datasets) else first.id,
        env_spec=_shared_spec(datasets, [d.env_spec for d in datasets], "env_spec"),
        eval_env_spec=_shared_spec(datasets, evaluated, "eval_env_spec") if any(d.eval_env_spec for d in datasets) else None,
        **{name: _shared_score(datasets, name) for name in ("ref_min_score", "ref_max_score")},
    )


def split(dataset: OfflineDataset, sizes: Sequence[float], seed: int) -> tuple[OfflineDataset, ...]:
    """
    Split into disjoint parts of whole episodes, drawn at random; each keeps the environments, reference scores and id.

    :param dataset: What to split.
    :param sizes: One entry per part, either all fractions of the episodes (floats that add up to 1 at most) or all numbers of
        episodes (ints). Episodes that are left over are in no part.
    :param seed: The same seed gives the same parts.
    :return: The parts; episodes keep their order.
    :raises UserError: If a part would be empty, or the parts do not fit into the dataset.
    """
    if isinstance(sizes, numbers.Number):
        raise UserError(f"sizes is {sizes}; give one entry per part, such as (0.9, 0.1) or (90, 10).")
    n, sizes = dataset.n_episodes, list(sizes)
    counts = all(isinstance(size, numbers.Integral) for size in sizes)
    if not sizes or not (counts or all(isinstance(size, float | np.floating) for size in sizes)):
        raise UserError(f"sizes is {sizes}; give all fractions (0.9, 0.1) or all numbers of episodes (90, 10).")
    if min(sizes) < 0 or math.fsum(sizes) > (n if counts else 1 + 1e-9):
        raise UserError(
            f"sizes {sizes} add up to {math.fsum(sizes):g}. None may be negative, fractions add up to 1 at most, and numbers "
            f"of episodes to {n}, which is all there are."
        )
    cumulative = np.cumsum([0, *sizes])
    bounds = cumulative.astype(np.int64) if counts else np.round(cumulative * n).astype(np.int64)
    empty = np.flatnonzero(np.diff(bounds) == 0)
    if len(empty):
        raise UserError(f"sizes[{empty[0]}] = {sizes[empty[0]]} of {n} episodes is none; every part needs at least one.")
    shuffled = np.random.default_rng(seed).permutation(n)
    return tuple(dataset.select_episodes(np.sort(shuffled[start:end])) for start, end in itertools.pairwise(bounds))


def _name(dataset: OfflineDataset, number: int) -> str:
    return f"dataset {number + 1} ({dataset.id})" if dataset.id else f"dataset {number + 1}"


def _offsets(datasets: Sequence[OfflineDataset]) -> np.ndarray:
    return np.cumsum([0, *(len(d) for d in datasets[:-1])])


def _shared_spec(datasets: Sequence[OfflineDataset], specs: Sequence[EnvSpec | None], field: str) -> EnvSpec | None:
    """The first spec that is known; the others must be of the same environment."""
    known = [(number, spec) for number, spec in enumerate(specs) if spec is not None]
    if not known:
        return None
    at, kept = known[0]
    for number, spec in known[1:]:
        here, there = _name(datasets[at], at), _name(datasets[number], number)
        if (spec.namespace, spec.name) != (kept.namespace, kept.name):
            raise UserError(
                f"{there} belongs to {spec.id}, but {here} to {kept.id} ({field}): data of different environments cannot be "
                f"combined. If they do belong together, say so: dataset.replace({field}=gym.spec({kept.id!r}))."
            )
        if spec != kept:
            what = f"is {spec.id}" if spec.id != kept.id else "has other settings"
            warnings.warn(f"The {field} of {there} {what}; that of {here} is kept: {kept}.", stacklevel=3)
    return kept


def _shared_score(datasets: Sequence[OfflineDataset], field: str) -> float | None:
    known = [(number, getattr(d, field)) for number, d in enumerate(datasets) if getattr(d, field) is not None]
    for number, score in known:
        at, kept = known[0]
        if not math.isclose(score, kept, rel_tol=1e-6, abs_tol=1e-9):
            raise UserError(
                f"{field} is {score:g} in {_name(datasets[number], number)}, but {kept:g} in {_name(datasets[at], at)}: their "
                f"scores are on different scales. Choose one: dataset.replace({field}=...)."
            )
    return known[0][1] if known else None
