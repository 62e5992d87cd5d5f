"""
Train the behaviour policies of one environment and keep a ladder of them.

`python -m zoo.behavior.train --env Hopper-v5 --seed 1` trains TRPO, scores the actor after every few updates with and without
its noise, picks the rungs and writes them with an `index.json` into `zoo/behavior/<name>/`. The same seed gives the same
files on the same machine and versions.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.data.scores import normalized_score, reference_scores
from zoo.behavior.gaussian import GaussianPolicy
from zoo.behavior.policy import Noise
from zoo.behavior.rollout import evaluate

# rl-zoo's MuJoCo settings for TRPO (2 x 1024 steps per update there), with the steps spread over 8 environments
TRPO_SETTINGS: dict[str, Any] = {
    "n_envs": 8,
    "n_steps": 256,
    "batch_size": 128,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "sub_sampling_factor": 1,
    "cg_max_steps": 25,
    "cg_damping": 0.1,
    "n_critic_updates": 20,
    "learning_rate": 1e-3,
    "net_arch": [64, 64],
}
DATASET_STEPS = 1_000_000  # the size of D4RL's sets
MEDIUM = (33.0, 48.0)  # normalised, with and without noise
EXPERT = 95.0
EXPERT_NOISE = 0.1  # the expert acts with its mean plus so much; its own spread would make it a medium policy
CHECK_SEED = 20_000  # medium and expert are scored again on seeds they were not chosen by
NOISES: dict[str, Noise] = {"deterministic": "none", "little_noise": EXPERT_NOISE, "half_noise": 0.3, "stochastic": "policy"}
NOT_EXPERT = 55.0  # no rung of the replay ladder may play better than this, with or without its noise

Ladder = dict[int, GaussianPolicy]


def train(env_id: str, seed: int, n_timesteps: int) -> tuple[Ladder, list[list[float]]]:
    """
    :param env_id: A registered MuJoCo environment
    :param seed: Seed of the networks, the environments and the sampling
    :param n_timesteps: Environment steps, all copies together
    :return: The actor before each update, by environment steps so far; the learning curve as [steps, mean return of the last
        100 episodes as collected]
    """
    import torch
    from sb3_contrib import TRPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)  # sums in another order on other threads would be another policy
    settings = dict(TRPO_SETTINGS)
    env = VecNormalize(make_vec_env(env_id, n_envs=settings.pop("n_envs"), seed=seed), gamma=settings["gamma"])
    policy_kwargs = {"net_arch": settings.pop("net_arch")}
    model = TRPO("MlpPolicy", env, policy_kwargs=policy_kwargs, seed=seed, device="cpu", **settings)
    ladder: Ladder = {}
    curve: list[list[float]] = []

    class Keep(BaseCallback):
        def _on_rollout_start(self) -> None:
            ladder[self.num_timesteps] = GaussianPolicy.from_sb3(model, env)
            if model.ep_info_buffer:
                curve.append([self.num_timesteps, round(float(np.mean([e["r"] for e in model.ep_info_buffer])), 1)])

        def _on_step(self) -> bool:
            return True

    model.learn(n_timesteps, callback=Keep())
    ladder[model.num_timesteps] = GaussianPolicy.from_sb3(model, env)
    return ladder, curve


def score(policy: GaussianPolicy, env_id: str, noise: Noise, n_episodes: int = 20, seed: int = 10_000) -> dict[str, Any]:
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


def score_candidate(policy: GaussianPolicy, env_id: str) -> dict[str, Any]:
    """
    :return: The score without noise, and with the other amounts of ``NOISES`` as far as the actor can still be chosen
    """
    scores = {"deterministic": score(policy, env_id, "none")}
    if scores["deterministic"]["normalized"] <= NOT_EXPERT:
        others = [kind for kind in NOISES if kind != "deterministic"]
    else:
        others = ["little_noise"] if scores["deterministic"]["normalized"] >= EXPERT else []
    return scores | {kind: score(policy, env_id, NOISES[kind]) for kind in others}


def choose(scores: dict[int, dict[str, Any]]) -> tuple[int, int]:
    """
    Medium is the actor that is nearest to the middle of the medium band at every amount of noise: a policy that is an expert
    without its noise would be beaten by plain imitation. Expert is the one whose worse score, without noise and with little,
    is best.

    :param scores: Training steps to what :func:`score_candidate` found
    :return: Training steps of medium and of expert
    """
    middle = sum(MEDIUM) / 2

    def off(steps: int) -> float:
        distances = [abs(s["normalized"] - middle) for s in scores[steps].values()]
        return max(distances) if len(distances) == len(NOISES) else np.inf

    def worst(steps: int) -> float:
        kinds = ("deterministic", "little_noise")
        return min(scores[steps][kind]["normalized"] if kind in scores[steps] else -np.inf for kind in kinds)

    medium, expert = min(scores, key=off), max(scores, key=worst)
    problems = []
    if off(medium) > middle - MEDIUM[0]:
        problems.append(f"no actor scores within {MEDIUM} at every amount of noise")
    if worst(expert) < EXPERT:
        problems.append(f"no actor scores {EXPERT} without noise and with {EXPERT_NOISE}")
    if problems:
        raise ValueError(f"{' and '.join(problems)}; take another seed or more timesteps")
    return medium, expert


def choose_rungs(scores: dict[int, dict[str, Any]], medium: int, n_rungs: int) -> list[int]:
    """
    :return: Training steps of ``n_rungs`` actors, evenly spaced from the first one to medium; at each place the nearest actor
        that is not an expert in disguise
    """
    usable = [t for t, s in scores.items() if t <= medium and len(s) == len(NOISES) and _best(s) <= NOT_EXPERT]
    wanted = np.linspace(0, medium, n_rungs)
    return sorted({min(usable, key=lambda steps: (abs(steps - place), steps)) for place in wanted})


def _best(scores: dict[str, Any]) -> float:
    return max(float(s["normalized"]) for s in scores.values())


def replay_weights(rungs: list[int]) -> list[int]:
    """
    :param rungs: Training steps of the rungs, the last one medium
    :return: For each rung the steps that training spent nearer to it than to another
    """
    borders = [0, *((a + b) // 2 for a, b in itertools.pairwise(rungs)), rungs[-1]]
    return [b - a for a, b in itertools.pairwise(borders)]


def levels(rungs: list[int], medium: int, expert: int) -> dict[str, Any]:
    """
    :return: The recipes `zoo/collect.py` reads: parts are collected on their own, segments of a part one after another
    """
    medium_segment = {"policy": file_name(medium), "noise": "policy", "weight": 1}
    expert_segment = {"policy": file_name(expert), "noise": EXPERT_NOISE, "weight": 1}
    weights = replay_weights(rungs)
    trpo, as_trained = "TRPO (sb3-contrib)", "with the noise it was trained with"
    return {
        "random": {
            "description": "Actions uniform over the action space.",
            "algorithm": "uniform random",
            "steps": DATASET_STEPS,
            "parts": [[{"policy": None, "noise": "none", "weight": 1}]],
        },
        "medium": {
            "description": f"One TRPO policy of about a third of expert level, {as_trained}.",
            "algorithm": trpo,
            "steps": DATASET_STEPS,
            "parts": [[medium_segment]],
        },
        "medium-replay": {
            "description": f"The way to medium: {len(rungs)} TRPO policies from untrained to medium, each {as_trained} and "
            "acting for as many steps as training spent around it.",
            "algorithm": trpo,
            "steps": sum(weights),
            "parts": [
                [
                    {"policy": file_name(steps), "noise": "policy", "weight": weight}
                    for steps, weight in zip(rungs, weights, strict=True)
                ]
            ],
        },
        "medium-expert": {
            "description": "Half from the medium policy, half from the expert, as in the sets of those names.",
            "algorithm": trpo,
            "steps": DATASET_STEPS,
            "parts": [[medium_segment], [expert_segment]],
        },
        "expert": {
            "description": "One TRPO policy of expert level: its mean action plus Gaussian noise of standard deviation "
            f"{EXPERT_NOISE}.",
            "algorithm": trpo,
            "steps": DATASET_STEPS,
            "parts": [[expert_segment]],
        },
    }


def file_name(steps: int) -> str:
    return f"trpo_{steps:07d}.safetensors"


def write(folder: Path, env_id: str, seed: int, ladder: Ladder, curve: list[list[float]], args: argparse.Namespace) -> None:
    """Score the ladder, pick the rungs and write them with their index into ``folder``."""
    scores: dict[int, dict[str, Any]] = {}
    for steps in list(ladder)[:: args.score_every]:
        scores[steps] = score_candidate(ladder[steps], env_id)
        print(steps, {kind: s["normalized"] for kind, s in scores[steps].items()}, flush=True)
    medium, expert = choose(scores)
    rungs = choose_rungs(scores, medium, args.n_rungs)
    roles = {medium: "medium", expert: "expert"}
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("trpo_*.safetensors"):
        stale.unlink()
    entries = []
    for steps in sorted({*rungs, expert}):
        ladder[steps].save(folder / file_name(steps))
        entry: dict[str, Any] = {"file": file_name(steps), "steps": steps, "role": roles.get(steps, "replay")}
        entry["std"] = [round(float(s), 3) for s in ladder[steps].std("policy")]
        if steps in roles:
            entry |= {kind: score(ladder[steps], env_id, noise, 40, CHECK_SEED) for kind, noise in NOISES.items()}
        else:
            entry |= scores[steps]
        entries.append(entry)
    low, high = reference_scores(env_id)
    index = {
        "env_id": env_id,
        "ref_min_score": low,
        "ref_max_score": high,
        "algorithm": "TRPO (sb3-contrib)",
        "seed": seed,
        "n_timesteps": max(ladder),
        "settings": TRPO_SETTINGS | {"normalize": True},
        "versions": {n: version(n) for n in ("sb3_contrib", "stable_baselines3", "torch", "gymnasium", "mujoco", "numpy")}
        | {"python": platform.python_version()},
        "command": f"python -m zoo.behavior.train --env {env_id} --seed {seed} --n-timesteps {args.n_timesteps}",
        "rungs": entries,
        "levels": levels(rungs, medium, expert),
        "learning_curve": {"columns": ["steps", "return_mean_of_last_100_episodes"], "rows": curve[4::5]},
        "scored": {"columns": ["steps", *NOISES], "rows": [[t, *_row(s)] for t, s in scores.items()]},
    }
    temporary = folder / "index.json.tmp"
    temporary.write_text(json.dumps(index, indent=1) + "\n")
    os.replace(temporary, folder / "index.json")


def _row(scores: dict[str, Any]) -> list[float | None]:
    return [scores[kind]["normalized"] if kind in scores else None for kind in NOISES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Hopper-v5", help="a MuJoCo environment with known reference returns")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--n-timesteps", type=int, default=300_000)
    parser.add_argument("--n-rungs", type=int, default=11, help="policies from random to medium")
    parser.add_argument("--score-every", type=int, default=3, help="score the actor after every so many updates")
    parser.add_argument("--folder", type=Path, default=None, help="default: zoo/behavior/<name of the env>")
    args = parser.parse_args()
    folder = args.folder or Path(__file__).parent / args.env.rpartition("-")[0].lower()
    started = time.process_time()
    ladder, curve = train(args.env, args.seed, args.n_timesteps)
    print(f"trained {max(ladder)} steps in {time.process_time() - started:.0f} CPU-seconds")
    write(folder, args.env, args.seed, ladder, curve, args)


if __name__ == "__main__":
    main()
