"""The datasets we can make: ids and their recipes."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Sequence
from functools import partial

from sb3_genoffline.errors import UserError

from . import antmaze, locomotion, pointmaze
from .recipe import Recipe

NAMESPACE = "genoffline"
Loader = Callable[[str, int | None], Recipe]


def collectible() -> dict[str, Loader]:
    """
    :return: Dataset id to the function that loads its recipe from id and number of steps
    """
    table: dict[str, Loader] = {}
    for name, (folder, level) in locomotion.levels().items():
        table[f"{NAMESPACE}/{name}"] = partial(locomotion.load, folder, level)
    table |= {f"{NAMESPACE}/pointmaze/{name}-v0": partial(pointmaze.load, name) for name in pointmaze.names()}
    table[f"{NAMESPACE}/{antmaze.NAME}-v0"] = antmaze.load
    return table


def load_recipe(dataset_id: str, steps: int | None = None) -> Recipe:
    """
    :param dataset_id: One of :func:`collectible`
    :param steps: Total number of steps; None is the dataset's own number
    :raises UserError: Unknown id, naming the nearest; steps below 1
    """
    table = collectible()
    if dataset_id not in table:
        near = difflib.get_close_matches(dataset_id, table, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"no recipe for dataset {dataset_id!r}.{hint} These can be collected: {', '.join(table)}")
    if steps is not None and steps < 1:
        raise UserError(f"steps is {steps}; collect at least 1")
    return table[dataset_id](dataset_id, steps)


def chosen(names: Sequence[str]) -> list[str]:
    """
    :param names: Ids, patterns (``genoffline/hopper/*``) or ``all``
    :return: The ids they stand for, each once, in order
    :raises UserError: If one stands for nothing we can make
    """
    table = collectible()
    ids: dict[str, None] = {}
    for name in names:
        found = list(table) if name == "all" else fnmatch.filter(table, name)
        if not found:
            load_recipe(name)  # names the nearest
        ids |= dict.fromkeys(found)
    return list(ids)


__all__ = ["NAMESPACE", "Recipe", "chosen", "collectible", "load_recipe"]
