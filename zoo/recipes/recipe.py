"""What a dataset of ours is made of, whoever acts in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gymnasium.envs.registration import EnvSpec

from ..behavior.episode import Episode


@dataclass(frozen=True)
class Recipe:
    """
    A dataset that can be collected.

    :param dataset_id: Minari id
    :param env: The environment the data come from
    :param eval_env: The environment agents are evaluated in
    :param n_steps: Steps in all
    :param algorithm: Who acts, in a few words
    :param description: One or two sentences for the metadata
    :param fingerprint: sha256 of what the data depend on besides seed, sizes and library versions
    :param source: The files of this repository that made it, for the metadata
    :param ref_min_score: Return that counts as 0, if known
    :param ref_max_score: Return that counts as 100, if known
    :param episodes: ``episodes(seed, n_envs)`` collects whole episodes, ``n_steps`` steps together, in the order in which
        they end; the same arguments give the same episodes
    """

    dataset_id: str
    env: EnvSpec
    eval_env: EnvSpec
    n_steps: int
    algorithm: str
    description: str
    fingerprint: str
    source: str
    ref_min_score: float | None
    ref_max_score: float | None
    episodes: Callable[[int, int], Iterator[Episode]] = field(repr=False)


def fingerprint_of(env: EnvSpec, eval_env: EnvSpec, controller: dict[str, Any]) -> str:
    """
    The fingerprint of data that a controller makes. It is of numbers, not of source files, which change without the data.

    :param env: The environment the data come from
    :param eval_env: The environment agents are evaluated in
    :param controller: Every number it goes by, and a ``recipe`` number for what its code does, plain data
    """
    content = [env.to_json(), eval_env.to_json(), controller]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
