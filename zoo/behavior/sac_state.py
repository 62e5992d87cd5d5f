"""
A SAC training in a few hundred kilobytes, so that another machine can go on with it.

Networks and optimisers are kept as they are. The replay buffer is not: the actors that were kept on the way make another one,
each acting with its own noise for as many steps as training spent around it.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.writing import copy_file, write_text
from . import load_policy, sac
from .rollout import Segment, rollout
from .rungs import replay_weights

N_ENVS = 8
EVERY = 50_000  # between the actors that are kept for the way behind the last rung


def keep(folder: Path, ladder: Path) -> None:
    """
    :param folder: Holds the rungs, if any were chosen; gets ``training/`` with `state.safetensors`, `state.json` and an actor
        every 50,000 steps behind the last rung
    :param ladder: Where the training saved itself
    """
    training = folder / "training"
    training.mkdir(parents=True, exist_ok=True)
    state = json.loads((ladder / "state.json").read_text())
    copy_file(ladder / state.pop("file"), training / "state.safetensors")
    for stale in training.glob("sac_*.safetensors"):
        stale.unlink()
    reached = max(_rungs(folder, state["steps"]), default=sac.SETTINGS["learning_starts"])
    wanted = {t for t in range(EVERY, state["steps"], EVERY) if t > reached} | {state["steps"]}
    for steps in wanted:
        copy_file(ladder / f"{steps}.safetensors", training / f"sac_{steps:07d}.safetensors")
    curve = json.loads((ladder / "curve.json").read_text())
    state |= {"settings": sac.SETTINGS, "learning_curve": [row for row in curve if row[0] <= state["steps"]]}
    write_text(training / "state.json", json.dumps(state) + "\n")


def restore(env_id: str, seed: int, folder: Path, ladder: Path) -> None:
    """
    Put a training into the ladder from which :func:`zoo.behavior.sac.train` goes on; one that has come further stays.

    :param env_id: A registered MuJoCo environment
    :param seed: Seed of the new buffer
    :param folder: Where :func:`keep` put the state
    :param ladder: Where the training goes on
    """
    state: dict[str, Any] = json.loads((folder / "training" / "state.json").read_text())
    steps, starts = state["steps"], sac.SETTINGS["learning_starts"]
    if state["settings"] != sac.SETTINGS:
        raise ValueError(f"{folder} was trained with {state['settings']}; the settings are {sac.SETTINGS} now")
    there = ladder / "state.json"
    if there.exists() and json.loads(there.read_text())["steps"] >= steps:
        return
    ladder.mkdir(parents=True, exist_ok=True)
    rungs = _rungs(folder, steps)
    segments = [Segment(None, "none", min(starts, steps))]
    if steps > starts:
        acting = sorted(t for t in rungs if t >= starts)
        segments += [
            Segment(load_policy(rungs[t]), "policy", n) for t, n in zip(acting, replay_weights(acting, starts), strict=True)
        ]
    buffer: sac.Buffer | None = None
    for episode in rollout(env_id, segments, (seed, steps), N_ENVS):
        observations, length = np.asarray(episode.observations), len(episode.rewards)
        ended = np.zeros(length)
        ended[-1] = episode.terminated
        rows = np.column_stack([observations[:-1], episode.actions, observations[1:], episode.rewards, ended])
        buffer = buffer or sac.Buffer(observations.shape[1], episode.actions.shape[1], sac.SETTINGS["buffer_size"])
        for row in rows:
            buffer.add(row)
    assert buffer is not None and buffer.n_added == steps
    (ladder / "buffer.f32").unlink(missing_ok=True)
    buffer.write(ladder / "buffer.f32", 0)
    for t, path in rungs.items():
        copy_file(path, ladder / f"{t}.safetensors")
    file = f"state-{steps}.safetensors"
    copy_file(folder / "training" / "state.safetensors", ladder / file)
    write_text(ladder / "curve.json", json.dumps(state["learning_curve"]))
    write_text(there, json.dumps({"steps": steps, "n_updates": state["n_updates"], "file": file}))


def _rungs(folder: Path, last: int) -> dict[int, Path]:
    """Training steps to file of all actors that were kept, up to the last step."""
    paths = itertools.chain(folder.glob("sac_*.safetensors"), (folder / "training").glob("sac_*.safetensors"))
    found = {int(path.stem.removeprefix("sac_")): path for path in paths}
    return {steps: found[steps] for steps in sorted(found) if steps <= last}
