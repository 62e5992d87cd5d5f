"""TQC, for HalfCheetah; its actors are SAC's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.files.writing import replaced

from ..runs.stopping import Stopped, stoppable
from ..runs.writing import write_text
from .squashed import SquashedPolicy

# rl-zoo's MuJoCo settings; the actor is narrower (128), since it is the actor that is kept and published
SETTINGS: dict[str, Any] = {
    "learning_starts": 10_000,
    "batch_size": 256,
    "learning_rate": 3e-4,
    "buffer_size": 1_000_000,
    "policy_kwargs": {"net_arch": {"pi": [128, 128], "qf": [256, 256]}, "optimizer_kwargs": {"fused": True}},
}
EVERY = 10_000


def train(env_id: str, seed: int, n_timesteps: int, ladder: Path) -> None:
    """
    Takes hours; the whole state is saved every 10,000 steps, and when a signal ends the training (see
    :mod:`zoo.runs.stopping`); a later call with the same folder goes on from there.

    :param env_id: A registered MuJoCo environment
    :param seed: Seed of networks, environment and sampling
    :param n_timesteps: Environment steps in all, those of earlier calls included
    :param ladder: Folder that gets the actor every 10,000 steps, ``<steps>.safetensors``, and ``curve.json``: [steps, mean
        return of the last 100 episodes as collected]
    """
    import torch
    from sb3_contrib import TQC
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    state, buffer, curve_file = ladder / "state.zip", ladder / "buffer.pkl", ladder / "curve.json"
    env = make_vec_env(env_id, n_envs=1, seed=seed)
    curve: list[list[float]] = []
    if state.exists():
        model = TQC.load(state, env=env, device="cpu")
        model.load_replay_buffer(buffer)
        curve = [row for row in json.loads(curve_file.read_text()) if row[0] <= model.num_timesteps]
    else:
        model = TQC("MlpPolicy", env, seed=seed, device="cpu", **SETTINGS)
        SquashedPolicy.from_sb3(model).save(ladder / "0.safetensors")

    class Keep(BaseCallback):
        def _on_step(self) -> bool:
            asked = stop.number is not None
            if self.num_timesteps % EVERY == 0 or asked:
                SquashedPolicy.from_sb3(model).save(ladder / f"{self.num_timesteps}.safetensors")
                curve.append([self.num_timesteps, round(float(np.mean([e["r"] for e in model.ep_info_buffer or []])), 1)])
                write_text(curve_file, json.dumps(curve))
                writers: dict[Path, Callable[[Any], None]] = {buffer: model.save_replay_buffer, state: model.save}
                for path, write in writers.items():
                    with replaced(path) as file:
                        write(file)
            return not asked

    with _compiled_loss(), stoppable() as stop, stop.later():
        model.learn(max(0, n_timesteps - model.num_timesteps), callback=Keep(), reset_num_timesteps=False)
    if stop.number is not None:
        raise Stopped(stop.number)


@contextmanager
def _compiled_loss() -> Iterator[None]:
    """TQC's loss over all pairs of quantiles as one fused kernel; a dozen passes over them are two thirds of an update."""
    import torch
    from sb3_contrib.tqc import tqc

    eager = tqc.quantile_huber_loss
    tqc.quantile_huber_loss = torch.compile(eager)
    try:
        yield
    finally:
        tqc.quantile_huber_loss = eager
