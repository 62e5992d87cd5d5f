"""Which actors of a training become medium, expert and the replay set's rungs, and the recipes of the levels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from sb3_genoffline.data.scores import normalized_score
from sb3_genoffline.errors import UserError

from .policy import Noise, Policy
from .rollout import evaluate

DATASET_STEPS = 1_000_000  # the size of D4RL's sets
AS_TRAINED = "with the noise it was trained with"
Scores = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Standard:
    """
    What a level asks of an actor; scores are normalised, 0 random and 100 expert.

    :param noises: The amounts of noise an actor is scored with, by name; ``deterministic`` is none
    :param expert_kind: The noise the expert collects with, a key of ``noises``
    :param medium: Medium scores between these at every amount of noise, at best the middle
    :param expert: The expert scores at least this, without noise and as it collects; None looks for none
    :param not_expert: No rung of the replay set plays better than this, with or without its noise
    :param n_episodes: Of a score that chooses
    """

    noises: dict[str, Noise]
    expert_kind: str
    medium: tuple[float, float] = (33.0, 48.0)
    expert: float | None = 95.0
    not_expert: float = 55.0
    n_episodes: int = 20

    @property
    def expert_noise(self) -> Noise:
        return self.noises[self.expert_kind]

    def kinds_beside(self, deterministic: float) -> list[str]:
        """:return: The noises that an actor of this score without noise is scored with too, as far as it can be chosen"""
        if deterministic <= max(self.not_expert, self.medium[1]):
            return [kind for kind in self.noises if kind != "deterministic"]
        return [self.expert_kind] if self.expert is not None and deterministic >= self.expert else []

    def answered_by(self, scores: Scores) -> bool:
        """Whether earlier scores, of another standard perhaps, are what this one asks for."""
        first = scores.get("deterministic")
        wanted = [] if first is None else ["deterministic", *self.kinds_beside(first["normalized"])]
        return bool(wanted) and all(kind in scores and scores[kind]["n_episodes"] == self.n_episodes for kind in wanted)


def score(policy: Policy, env_id: str, noise: Noise, n_episodes: int = 20, seed: int = 10_000) -> dict[str, Any]:
    """
    :return: Return over fixed seeds, and its place on D4RL's scale
    """
    returns = evaluate(policy, env_id, noise, n_episodes, seed)
    return {
        "noise": noise,
        "mean": round(float(returns.mean()), 1),
        "std": round(float(returns.std()), 1),
        "normalized": round(float(normalized_score(env_id, returns.mean())), 1),
        "n_episodes": n_episodes,
    }


def score_candidate(policy: Policy, env_id: str, standard: Standard) -> Scores:
    """
    :return: The score without noise, and with the other amounts as far as the actor can still be chosen
    """
    scores = {"deterministic": score(policy, env_id, "none", standard.n_episodes)}
    others = standard.kinds_beside(scores["deterministic"]["normalized"])
    return scores | {kind: score(policy, env_id, standard.noises[kind], standard.n_episodes) for kind in others}


def choose_medium(scores: dict[int, Scores], standard: Standard) -> int:
    """
    Medium is the actor that is nearest to the middle of the medium band at every amount of noise: a policy that is an expert
    without its noise would be beaten by plain imitation.

    :param scores: Training steps to what :func:`score_candidate` found
    :param standard: What the levels ask
    :return: Training steps of medium
    :raises UserError: if no actor is in the band
    """
    middle = sum(standard.medium) / 2

    def off(steps: int) -> float:
        distances = [abs(s["normalized"] - middle) for s in scores[steps].values()]
        return max(distances) if len(distances) == len(standard.noises) else np.inf

    medium = min(scores, key=off)
    if off(medium) > middle - standard.medium[0]:
        raise UserError(
            f"no actor scores within {standard.medium} at every amount of noise; take another seed or more timesteps"
        )
    return medium


def choose_expert(scores: dict[int, Scores], standard: Standard) -> int | None:
    """
    :param scores: Training steps to what :func:`score_candidate` found
    :param standard: What the levels ask
    :return: Training steps of the actor whose worse score, without noise and as it collects, is best; None if none is asked
    :raises UserError: if no actor is good enough
    """
    if standard.expert is None:
        return None

    def worst(steps: int) -> float:
        kinds = ("deterministic", standard.expert_kind)
        return min(scores[steps][kind]["normalized"] if kind in scores[steps] else -np.inf for kind in kinds)

    expert = max(scores, key=worst)
    if worst(expert) < standard.expert:
        raise UserError(
            f"no actor scores {standard.expert} without noise and with {standard.expert_noise!r}; "
            "take another seed or more timesteps"
        )
    return expert


def choose_rungs(scores: dict[int, Scores], medium: int, n_rungs: int, standard: Standard, start: int = 0) -> list[int]:
    """
    :return: Training steps of ``n_rungs`` actors, evenly spaced from ``start`` to medium; at each place the nearest actor that
        is not an expert in disguise
    """

    def best(found: Scores) -> float:
        return max(float(s["normalized"]) for s in found.values())

    full = len(standard.noises)
    usable = [t for t, s in scores.items() if start <= t <= medium and len(s) == full and best(s) <= standard.not_expert]
    wanted = np.linspace(start, medium, n_rungs)
    return sorted({min(usable, key=lambda steps: (abs(steps - place), steps)) for place in wanted} | {medium})


def replay_weights(rungs: list[int], start: int = 0) -> list[int]:
    """
    :param rungs: Training steps of the rungs, the last one medium
    :param start: When the first rung began to act
    :return: For each rung the steps that training spent nearer to it than to another
    """
    borders = [start, *((a + b) // 2 for a, b in itertools.pairwise(rungs)), rungs[-1]]
    return [b - a for a, b in itertools.pairwise(borders)]


def levels(
    files: dict[int, str], rungs: list[int], medium: int, algo: str, library: str = "sb3-contrib", n_uniform: int = 0
) -> dict[str, Any]:
    """
    :param files: Training steps to file name
    :param rungs: Training steps of the replay set's actors
    :param medium: Training steps of medium
    :param algo: What the actors were trained with, ``"TRPO"``
    :param library: Whose implementation
    :param n_uniform: Steps of uniform actions with which training began; no rung is earlier
    :return: The recipes `zoo/recipes` reads: parts are collected on their own, segments of a part one after another
    """
    weights = replay_weights(rungs, n_uniform)
    uniform = {"policy": None, "noise": "none", "weight": n_uniform}
    library = f"{algo} ({library})"
    return {
        "random": {
            "description": "Actions uniform over the action space.",
            "algorithm": "uniform random",
            "steps": DATASET_STEPS,
            "parts": [[{"policy": None, "noise": "none", "weight": 1}]],
        },
        "medium": {
            "description": f"One {algo} policy of about a third of expert level, {AS_TRAINED}.",
            "algorithm": library,
            "steps": DATASET_STEPS,
            "parts": [[{"policy": files[medium], "noise": "policy", "weight": 1}]],
        },
        "medium-replay": {
            "description": f"The way to medium: {len(rungs)} {algo} policies from untrained to medium, each {AS_TRAINED} and "
            "acting for as many steps as training spent around it.",
            "algorithm": library,
            "steps": n_uniform + sum(weights),
            "parts": [
                [uniform] * (n_uniform > 0)
                + [{"policy": files[t], "noise": "policy", "weight": weight} for t, weight in zip(rungs, weights, strict=True)]
            ],
        },
    }


def expert_levels(medium: dict[str, Any], file: str, noise: Noise, maker: str) -> dict[str, Any]:
    """
    :param medium: The recipe of the level medium
    :param file: Of the expert
    :param noise: With which the expert acts
    :param maker: What the expert was trained by, ``"TRPO (sb3-contrib)"``
    :return: The recipes of the levels that need an expert
    """
    how = AS_TRAINED if isinstance(noise, str) else f"its mean action plus Gaussian noise of standard deviation {noise}"
    expert = [{"policy": file, "noise": noise, "weight": 1}]
    makers = list(dict.fromkeys((medium["algorithm"], maker)))
    return {
        "medium-expert": {
            "description": "Half from the medium policy, half from the expert, as in the sets of those names.",
            "algorithm": " and ".join(makers),
            "steps": DATASET_STEPS,
            "parts": [*medium["parts"], expert],
        },
        "expert": {
            "description": f"One {maker.partition(' ')[0]} policy of expert level: {how}.",
            "algorithm": maker,
            "steps": DATASET_STEPS,
            "parts": [expert],
        },
    }
