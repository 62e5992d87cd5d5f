"""
Train TQC and keep its actors on the way: the behaviour policies of environments where TRPO stays below expert level.

`python -m zoo.behavior.tqc --env HalfCheetah-v5 --seed 1 -n 700000 --folder logs/behavior/halfcheetah` takes hours, writes an
actor every 10,000 steps and its whole state every 50,000, and goes on where it stopped when it is called again.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from zoo.behavior.squashed import SquashedPolicy

# rl-zoo's MuJoCo settings for TQC; the actor is narrower (128), since it is the actor that is kept and published
TQC_SETTINGS: dict[str, Any] = {
    "learning_starts": 10_000,
    "batch_size": 256,
    "learning_rate": 3e-4,
    "buffer_size": 1_000_000,
    "policy_kwargs": {"net_arch": {"pi": [128, 128], "qf": [256, 256]}, "optimizer_kwargs": {"fused": True}},
}
EVERY, SAVE_EVERY = 10_000, 50_000


def train(env_id: str, seed: int, n_timesteps: int, folder: Path) -> None:
    """
    :param env_id: A registered MuJoCo environment
    :param seed: Seed of networks, environment and sampling
    :param n_timesteps: Environment steps in all, those of earlier calls included
    :param folder: Gets ``tqc_<steps>.safetensors``, ``curve.json`` and the state to resume from
    """
    import torch
    from sb3_contrib import TQC
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    state, buffer, curve_file = folder / "state.zip", folder / "buffer.pkl", folder / "curve.json"
    env = make_vec_env(env_id, n_envs=1, seed=seed)
    curve: list[list[float]] = []
    if state.exists():
        model = TQC.load(state, env=env, device="cpu")
        model.load_replay_buffer(buffer)
        curve = [row for row in json.loads(curve_file.read_text()) if row[0] <= model.num_timesteps]
    else:
        model = TQC("MlpPolicy", env, seed=seed, device="cpu", **TQC_SETTINGS)
        SquashedPolicy.from_sb3(model).save(folder / file_name(0))

    class Keep(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps % EVERY == 0:
                SquashedPolicy.from_sb3(model).save(folder / file_name(self.num_timesteps))
                curve.append([self.num_timesteps, round(float(np.mean([e["r"] for e in model.ep_info_buffer or []])), 1)])
                _replace(curve_file, lambda path: path.write_text(json.dumps(curve)))
                print(*curve[-1], flush=True)
            if self.num_timesteps % SAVE_EVERY == 0:
                _replace(buffer, model.save_replay_buffer)
                _replace(state, model.save)
            return True

    model.learn(n_timesteps - model.num_timesteps, callback=Keep(), reset_num_timesteps=False)


def _replace(path: Path, write: Any) -> None:
    temporary = path.with_name(f"new-{path.name}")
    write(temporary)
    os.replace(temporary, path)


def file_name(steps: int) -> str:
    return f"tqc_{steps:07d}.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="HalfCheetah-v5", help="a MuJoCo environment")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-n", "--n-timesteps", type=int, default=700_000)
    parser.add_argument("--folder", type=Path, required=True, help="where the actors and the state to resume from go")
    args = parser.parse_args()
    train(args.env, args.seed, args.n_timesteps, args.folder)


if __name__ == "__main__":
    main()
