"""
Compare the rate of `python -m zoo collect` with the bare simulator's: `python -m zoo.collect.rate <dataset>`.

Bare is the same number of copies going through the same states, by the same actions from the same seeds, without a policy and
without storage: in gymnasium's `SyncVectorEnv`, and in a plain loop over unwrapped environments. All take turns in one
process, and seconds are the processor's, so other programs disturb them little. The best of the turns counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from unittest.mock import patch

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from sb3_genoffline.errors import UserError
from sb3_genoffline.files.writing import scratch_folder

from ..behavior.episode import Episode
from ..behavior.rollout import _Slot
from ..recipes import NAMESPACE, load_recipe, locomotion
from .make import collect


def measurable() -> list[str]:
    """
    :return: Datasets whose copies act in one unbroken row: Gym-MuJoCo levels of one part. Medium-expert's copies begin anew
        halfway, and mazes are collected without ``env.step``
    """
    names = []
    for name, (folder, level) in locomotion.levels().items():
        if len(json.loads((folder / "index.json").read_text())["levels"][level]["parts"]) == 1:
            names.append(f"{NAMESPACE}/{name}")
    return names


def behavior_actions(dataset_id: str, steps: int, n_envs: int) -> np.ndarray:
    """
    :param dataset_id: One of :func:`measurable`
    :param steps: Steps in all
    :param n_envs: Copies of the environment
    :return: ``(steps // n_envs, n_envs, act_dim)`` what ``collect`` does with seed 0
    """
    stream: list[np.ndarray] = []
    step = _Slot.step

    def recording(slot: _Slot, action: np.ndarray) -> Episode | None:
        stream.append(action.copy())
        return step(slot, action)

    with patch.object(_Slot, "step", recording):
        for _ in load_recipe(dataset_id, steps).episodes(0, n_envs):
            pass
    return np.stack(stream).reshape(-1, n_envs, len(stream[0]))


def seconds_of_vector(env: EnvSpec, actions: np.ndarray, seeds: list[int]) -> float:
    """Stepping a ``SyncVectorEnv``, made as a user makes it."""
    envs = SyncVectorEnv([lambda: gym.make(env)] * len(seeds), autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=[*seeds])
    started = time.process_time()
    for action in actions:
        envs.step(action)
    seconds = time.process_time() - started
    envs.close()
    return seconds


def seconds_of_loop(env: EnvSpec, actions: np.ndarray, seeds: list[int]) -> float:
    """Stepping unwrapped environments."""
    envs = [gym.make(env).unwrapped for _ in seeds]
    for copy, seed in zip(envs, seeds, strict=True):
        copy.reset(seed=seed)
    lengths = [0] * len(envs)
    started = time.process_time()
    for sweep in actions:
        for i, copy in enumerate(envs):
            _, _, terminated, truncated, _ = copy.step(sweep[i])
            lengths[i] += 1
            if terminated or truncated or lengths[i] == env.max_episode_steps:
                copy.reset()
                lengths[i] = 0
    return time.process_time() - started


def seconds_of_collect(dataset_id: str, steps: int, n_envs: int) -> float:
    """The whole of ``collect``: environments made, acting, stepping, writing."""
    with scratch_folder("rate") as folder, patch.dict(os.environ, MINARI_DATASETS_PATH=str(folder)):
        started = time.process_time()
        collect(dataset_id, steps=steps, n_envs=n_envs)
        return time.process_time() - started


def rates(dataset_id: str, steps: int, n_envs: int, repeats: int) -> dict[str, float]:
    """
    :param dataset_id: One of :func:`measurable`
    :param steps: Steps of each turn; rounded down to whole sweeps over the copies
    :param n_envs: Copies of the environment
    :param repeats: Turns
    :return: Steps per second of processor time: ``vector``, ``loop``, ``collect``
    :raises UserError: If the dataset cannot be measured, naming those that can
    """
    if dataset_id not in measurable():
        load_recipe(dataset_id)  # names the nearest of a misspelt one
        raise UserError(f"the rate of {dataset_id} cannot be compared; these can be: {', '.join(measurable())}")
    steps -= steps % n_envs
    env = load_recipe(dataset_id, steps).env
    actions = behavior_actions(dataset_id, steps, n_envs)
    env_seed, _ = np.random.SeedSequence([0, 0]).spawn(2)
    seeds = [int(seed) for seed in env_seed.generate_state(n_envs)]
    turns: dict[str, Callable[[], float]] = {
        "vector": lambda: seconds_of_vector(env, actions, seeds),
        "loop": lambda: seconds_of_loop(env, actions, seeds),
        "collect": lambda: seconds_of_collect(dataset_id, steps, n_envs),
    }
    best = dict.fromkeys(turns, np.inf)
    for _ in range(repeats):
        for name, turn in turns.items():
            best[name] = min(best[name], turn())
    return {name: steps / seconds for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="dataset", help="Gym-MuJoCo levels, except medium-expert")
    parser.add_argument("--steps", type=int, default=16_000)
    parser.add_argument("--n-envs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    for dataset_id in args.datasets:
        try:
            found = rates(dataset_id, args.steps, args.n_envs, args.repeats)
        except ValueError as error:
            sys.exit(f"collect.rate: {error}")
        print(
            f"{dataset_id}, steps per CPU-second: SyncVectorEnv {found['vector']:,.0f}, plain loop {found['loop']:,.0f}, "
            f"collect {found['collect']:,.0f}, which is {found['collect'] / found['vector']:.0%} of SyncVectorEnv, "
            f"{found['collect'] / found['loop']:.0%} of the plain loop",
            flush=True,
        )


if __name__ == "__main__":
    main()
