"""
The replay set's ladder beside the real replay buffer, while that one is there.

`python -m zoo.behavior.replay_comparison --env Hopper-v5` writes `replay_comparison.json` into the folder of the rungs:
returns, actions and where the states lie, for the steps up to medium.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.writing import write_text
from . import load_policy, sac
from .rollout import Segment, rollout

N_ENVS = 8
SAMPLE, REFERENCE = 2_000, 20_000


def collect(env_id: str, folder: Path, seed: int = 1) -> np.ndarray:
    """
    :param env_id: Where to act
    :param folder: Holds the rungs and the index with the recipe of medium-replay
    :param seed: Entropy of the episodes
    :return: Rows as in :class:`zoo.behavior.sac.Buffer`, and the number of the episode as one more column
    """
    (part,) = json.loads((folder / "index.json").read_text())["levels"]["medium-replay"]["parts"]
    segments = [
        Segment(None if s["policy"] is None else load_policy(folder / s["policy"]), s["noise"], s["weight"]) for s in part
    ]
    found = []
    for i, episode in enumerate(rollout(env_id, segments, (seed,), N_ENVS)):
        observations, length = np.asarray(episode.observations), len(episode.rewards)
        ended = np.arange(length) == length - 1 if episode.terminated else np.zeros(length)
        columns = (observations[:-1], episode.actions, observations[1:], episode.rewards, ended, np.full(length, i))
        found.append(np.column_stack(columns).astype(np.float32))
    return np.concatenate(found)


def number_episodes(rows: np.ndarray, obs_dim: int, act_dim: int) -> np.ndarray:
    """
    :param rows: Of a buffer, in the order in which they came
    :return: The rows with the number of the episode as one more column; one begins where the state does not follow
    """
    following, observations = rows[:-1, obs_dim + act_dim : 2 * obs_dim + act_dim], rows[1:, :obs_dim]
    begins = np.concatenate([[False], (following != observations).any(axis=1)])
    return np.column_stack([rows, np.cumsum(begins, dtype=np.float32)])


def describe(rows: np.ndarray, obs_dim: int, act_dim: int) -> dict[str, Any]:
    """
    :return: Episodes' returns, over all and by tenths of the steps, and the actions' moments and share at the bounds
    """
    rewards, episode, actions = rows[:, -3], rows[:, -1].astype(int), rows[:, obs_dim : obs_dim + act_dim]
    lengths, returns = np.bincount(episode), np.bincount(episode, weights=rewards)
    tenth = np.minimum(np.cumsum(lengths) * 10 // len(rows), 9)
    return {
        "steps": len(rows),
        "episodes": len(returns),
        "episode_length_mean": _round(lengths.mean()),
        "return_mean": _round(returns.mean()),
        "return_std": _round(returns.std()),
        "return_quantiles_10_50_90": [_round(q) for q in np.quantile(returns, [0.1, 0.5, 0.9])],
        "return_mean_by_tenth_of_the_steps": [
            _round(returns[tenth == i].mean()) if (tenth == i).any() else None for i in range(10)
        ],
        "reward_mean": _round(rewards.mean()),
        "action_mean": [_round(a) for a in actions.mean(axis=0)],
        "action_std": [_round(a) for a in actions.std(axis=0)],
        "share_of_action_components_at_the_bounds": _round((abs(actions) >= 1).mean()),
        "share_of_action_components_beyond_0.9": _round((abs(actions) > 0.9).mean()),
    }


def distances(states: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """
    :return: How far each state is from the nearest of the reference
    """
    squares = (reference**2).sum(axis=1)
    nearest = [
        np.maximum((squares - 2 * block @ reference.T).min(axis=1) + (block**2).sum(axis=1), 0)
        for block in np.split(states, 20)
    ]
    return np.asarray(np.sqrt(np.concatenate(nearest)))


def coverage(real: np.ndarray, ladder: np.ndarray, obs_dim: int, seed: int = 0) -> dict[str, Any]:
    """
    How far the states of one set are from the other's, in standard deviations of the real ones, beside how far real states are
    from other real ones (of other episodes: neighbours in time are near by nature).

    :param real: Rows with the number of the episode
    :param ladder: The same
    :param obs_dim: Width of an observation
    :param seed: Draws the states that are looked at
    """
    generator = np.random.default_rng(seed)
    scale = real[:, :obs_dim].std(axis=0) + 1e-6

    def draw(rows: np.ndarray, size: int) -> np.ndarray:
        return rows[generator.choice(len(rows), size), :obs_dim] / scale

    parity = real[:, -1] % 2 == 0
    even, odd = real[parity], real[~parity]
    pairs = {
        "real_to_other_real": (draw(even, SAMPLE), draw(odd, REFERENCE)),
        "real_to_ladder": (draw(even, SAMPLE), draw(ladder, REFERENCE)),
        "ladder_to_real": (draw(ladder, SAMPLE), draw(odd, REFERENCE)),
    }
    found = {name: distances(*pair) for name, pair in pairs.items()}
    return {name: [_round(q) for q in np.quantile(d, [0.1, 0.5, 0.9])] for name, d in found.items()}


def compare(env_id: str, folder: Path, ladder: Path) -> dict[str, Any]:
    """
    :param env_id: Where the training was
    :param folder: Holds the rungs and their index
    :param ladder: Holds the training's buffer
    """
    made = collect(env_id, folder)
    rungs = json.loads((folder / "index.json").read_text())["rungs"]
    (medium,) = (rung for rung in rungs if rung["role"] == "medium")
    policy, n_steps = load_policy(folder / medium["file"]), medium["steps"]
    assert n_steps <= sac.SETTINGS["buffer_size"]
    n, k = policy.obs_dim, policy.act_dim
    width = 2 * n + k + 2
    real = np.fromfile(ladder / "buffer.f32", np.float32, n_steps * width).reshape(n_steps, width)
    real = number_episodes(real, n, k)
    alone = list(rollout(env_id, [Segment(policy, "policy", 20_000)], (2,), N_ENVS))
    actions = np.concatenate([episode.actions for episode in alone])
    return {
        "real_buffer": describe(real, n, k),
        "ladder": describe(made, n, k),
        "distance_of_states_quantiles_10_50_90": coverage(real, made, n),
        "medium_share_of_action_components_at_the_bounds": _round((abs(actions) >= 1).mean()),
    }


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Hopper-v5")
    parser.add_argument("--seed", type=int, default=1, help="of the training")
    args = parser.parse_args()
    folder = Path(__file__).parent / args.env.rpartition("-")[0].lower() / "sac"
    found = compare(args.env, folder, Path("logs/behavior") / f"{args.env}-sac-{args.seed}")
    write_text(folder / "replay_comparison.json", json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
