"""
Gym-MuJoCo: random, medium, medium-replay, medium-expert and expert, as D4RL made them, from the policies of SAC in
`zoo/behavior/<env>/sac/` (-v1); HalfCheetah's of TQC, and one hard set that is named for its actions, from those in
`zoo/behavior/<env>/` (-v0).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym

from ..behavior import load_policy
from ..behavior.episode import Episode
from ..behavior.rollout import Segment, rollout
from .recipe import Recipe

BEHAVIOR = Path(__file__).parents[1] / "behavior"


def levels() -> dict[str, tuple[Path, str]]:
    """
    :return: ``<env>/<level>-v0`` and ``-v1`` to (folder of behaviour policies, level); every `index.json` adds its levels
    """
    table = {}
    for version, pattern in (("v0", "*/index.json"), ("v1", "*/sac/index.json")):
        for index in sorted(BEHAVIOR.glob(pattern)):
            env = index.relative_to(BEHAVIOR).parts[0]
            for level in json.loads(index.read_text()).get("levels", {}):
                table[f"{env}/{level}-{version}"] = (index.parent, level)
    return table


def load_parts(folder: Path, level: str, n_steps: int) -> tuple[list[list[Segment]], str]:
    """
    :param folder: Holds `index.json` and the policies
    :param level: A key of the index's ``levels``
    :param n_steps: Steps in all, shared out by the segments' weights
    :return: The parts, each collected on its own, its segments one after another; sha256 over recipe and policies
    """
    index = json.loads((folder / "index.json").read_text())
    recipe = index["levels"][level]
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
                policy = load_policy(path)
            at += segment["weight"]
            end = round(n_steps * at / total)
            segments.append(Segment(policy, segment["noise"], end - done))
            done = end
        parts.append(segments)
    return parts, digest.hexdigest()


def load(folder: Path, level: str, dataset_id: str, steps: int | None = None) -> Recipe:
    """
    :param folder: Holds `index.json` and the policies
    :param level: A key of the index's ``levels``
    :param dataset_id: The id the dataset will have
    :param steps: Steps in all; None is the level's own number
    """
    index = json.loads((folder / "index.json").read_text())
    entry = index["levels"][level]
    n_steps = entry["steps"] if steps is None else steps
    parts, fingerprint = load_parts(folder, level, n_steps)
    spec = gym.spec(index["env_id"])

    def episodes(seed: int, n_envs: int) -> Iterator[Episode]:
        for number, part in enumerate(parts):
            yield from rollout(index["env_id"], part, seed=(seed, number), n_envs=n_envs)

    return Recipe(
        dataset_id=dataset_id,
        env=spec,
        eval_env=spec,
        n_steps=n_steps,
        algorithm=entry["algorithm"],
        description=entry["description"],
        fingerprint=fingerprint,
        source=f"zoo/behavior/{folder.relative_to(BEHAVIOR)}" if folder.is_relative_to(BEHAVIOR) else folder.name,
        ref_min_score=index["ref_min_score"],
        ref_max_score=index["ref_max_score"],
        episodes=episodes,
    )
