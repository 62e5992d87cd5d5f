"""
A trot for gymnasium's ant that goes whichever way it is told, for the AntMaze recipe.

`python -m zoo.behavior.gait --seed 0` starts from a guess, tunes the nine numbers of the trot in the open by the cross-entropy
method, under headings that change on the way, and writes them with their learning curve into `zoo/behavior/antmaze/`. The same
seed gives the same file on the same machine and versions.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.writing import write_json

FILE = Path(__file__).parent / "antmaze" / "gait.json"
STEP = 0.05  # s, of five steps of the simulation
FRAME_SKIP = 5
LEGS = np.pi / 4 + np.pi / 2 * np.arange(4)  # where they point, radians from the torso's front
SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [1.0, -1.0], [1.0, 1.0]])  # two of the four ankles turn the other way
STANDING = (0.2, 1.0)  # m, height of the torso
HEADING_STEPS = (60, 120)
STEPS = 200
TOP_SPEED = 3.0  # m/s; faster earns nothing
FALL = 0.3  # m/s, what a fall costs
POPULATION, ELITE, COPIES, INERTIA = 32, 8, 2, 0.3


@dataclass(frozen=True)
class Trot:
    """
    Diagonal legs swing together, half a cycle after the other two. Each hip sweeps its foot against the heading while it
    stands and forward while it is lifted; a spring and a damper lead the joints there. The legs are all alike, so the ant
    trots in any direction, with another leg first. Its clock is the number of steps since the start of the episode.

    :param frequency: Cycles per second
    :param stroke: Amplitude of the hips, radians
    :param stance: Angle of the ankles on the ground, radians downwards
    :param lift: By how much a swinging ankle is raised, radians
    :param reach: Amplitude with which legs that point along the heading stretch and bend, radians
    :param yaw: Turns the torso until the heading is halfway between two legs, radians of hip per radian
    :param stiffness: Action per radian off the target
    :param damping: Action per radian per second
    :param lag: Phase of the lift, radians
    """

    frequency: Any = 2.5
    stroke: Any = 0.6
    stance: Any = 0.95
    lift: Any = 0.45
    reach: Any = -0.15
    yaw: Any = 0.2
    stiffness: Any = 3.0
    damping: Any = 0.15
    lag: Any = -0.7

    def act(self, observations: np.ndarray, headings: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """
        :param observations: ``(n, 27)`` of gymnasium's ant without contact forces: height, quaternion, joints, and velocities
        :param headings: ``(n,)`` direction to walk in, radians from the world's x axis
        :param steps: ``(n,)`` steps since the start
        :return: ``(n, 8)`` float32 actions in [-1, 1]
        """
        ahead = headings - _yaw(observations[:, 1:5])
        legs = LEGS - ahead[:, None]
        between = (ahead[:, None] + np.pi / 4) % (np.pi / 2) - np.pi / 4
        phases = 2 * np.pi * STEP * self.frequency * steps[:, None] + np.pi * (np.arange(4) % 2)
        hips = (self.yaw * between - self.stroke * np.sin(legs)) * np.cos(phases)
        lifts = self.lift * np.maximum(0.0, -np.sin(phases + self.lag))
        ankles = self.stance - lifts + self.reach * np.cos(legs) * np.cos(phases)
        errors = np.stack([hips, ankles], axis=2) - observations[:, 5:13].reshape(-1, 4, 2) * SIGNS
        speeds = observations[:, 19:27].reshape(-1, 4, 2) * SIGNS
        stiffness, damping = (np.reshape(value, (-1, 1, 1)) for value in (self.stiffness, self.damping))
        torques = np.clip(stiffness * errors - damping * speeds, -1.0, 1.0) * SIGNS
        return np.roll(torques, 1, axis=1).reshape(-1, 8).astype(np.float32)  # the actuators begin with the fourth leg

    @classmethod
    def load(cls, path: Path = FILE) -> Trot:
        """
        :param path: Written by this module's ``main``
        """
        return cls(**json.loads(path.read_text())["trot"])


def _yaw(quaternions: np.ndarray) -> np.ndarray:
    """``(n, 4)``, the scalar first -> ``(n,)`` direction of the torso's front."""
    w, x, y, z = quaternions.T
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def walk(trot: Trot, n_ants: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Ants in the open, each with headings of its own, for 10 s. The simulator steps all of them in one call, with an integrator
    four times as fast as the maze's.

    :param trot: Its numbers may be columns ``(n_ants, 1)``
    :param n_ants: How many
    :param seed: Of starts and headings
    :return: ``(n_ants,)`` mean speed along the heading in m/s, at most :data:`TOP_SPEED` counted in a step, and how many falls
    """
    import gymnasium.envs.mujoco
    import mujoco
    from mujoco import rollout

    model = mujoco.MjModel.from_xml_path(str(Path(gymnasium.envs.mujoco.__file__).parent / "assets" / "ant.xml"))
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    data, rng = mujoco.MjData(model), np.random.default_rng(seed)
    states = np.zeros((n_ants, 30))  # time, 15 positions, 14 velocities
    fresh, ages, left = np.ones(n_ants, dtype=bool), *np.zeros((2, n_ants), dtype=int)
    headings, speeds, falls = np.zeros((3, n_ants))
    for _ in range(STEPS):
        states[fresh, 1:16] = model.qpos0 + rng.uniform(-0.1, 0.1, (fresh.sum(), 15))
        states[fresh, 16:] = 0.1 * rng.standard_normal((fresh.sum(), 14))
        ages[fresh] = 0
        turn = left == 0
        headings[turn] = rng.uniform(-np.pi, np.pi, turn.sum())
        left[turn] = rng.integers(*HEADING_STEPS, turn.sum())
        actions = trot.act(states[:, 3:], headings, ages)
        before = states[:, 1:3].copy()
        states = rollout.rollout(model, data, states, np.repeat(actions[:, None], FRAME_SKIP, axis=1))[0][:, -1]
        along = ((states[:, 1:3] - before) * np.stack([np.cos(headings), np.sin(headings)], axis=1)).sum(axis=1) / STEP
        speeds += np.minimum(along, TOP_SPEED)
        fresh = ~((states[:, 3] > STANDING[0]) & (states[:, 3] < STANDING[1]))
        falls += fresh
        ages += 1
        left -= 1
    return speeds / STEPS, falls


def tune(seed: int, n_generations: int) -> tuple[Trot, list[list[float]]]:
    """
    The cross-entropy method: draw trots around the mean, keep the fastest that do not fall, move mean and spread towards them.

    :param seed: Of everything
    :param n_generations: How often
    :return: The mean of the last generation; rows of (generation, speed of the best in m/s, mean speed and mean number of
        falls of the :data:`ELITE` best)
    """
    rng, curve = np.random.default_rng(seed), []
    mean = np.array([getattr(Trot, field.name) for field in fields(Trot)])
    least = 0.01 * np.array([0.6, 0.3, 0.15, 0.2, 0.2, 0.2, 1.0, 0.1, 0.5])
    spread = 100 * least
    for generation in range(n_generations):
        drawn = mean + spread * rng.standard_normal((POPULATION, len(mean)))
        drawn[0] = mean
        columns = np.repeat(drawn, COPIES, axis=0).T[:, :, None]
        speeds, falls = walk(Trot(*columns), POPULATION * COPIES, seed=1_000 * seed + generation)
        speeds, falls = (values.reshape(POPULATION, COPIES).mean(axis=1) for values in (speeds, falls))
        best = np.argsort(FALL * falls - speeds)[:ELITE]
        mean = INERTIA * mean + (1 - INERTIA) * drawn[best].mean(axis=0)
        spread = INERTIA * spread + (1 - INERTIA) * drawn[best].std(axis=0) + least
        row = [speeds[best[0]], speeds[best].mean(), falls[best].mean()]
        curve.append([generation, *(round(float(value), 2) for value in row)])
        print(*curve[-1], flush=True)
    return Trot(*(round(float(value), 4) for value in mean)), curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-generations", type=int, default=40)
    parser.add_argument("--output", type=Path, default=FILE)
    args = parser.parse_args()
    started = time.process_time()
    trot, curve = tune(args.seed, args.n_generations)
    speeds, falls = walk(trot, 100, seed=999_999)
    card = {
        "trot": asdict(trot),
        "body": "gymnasium's ant.xml",
        "algorithm": "cross-entropy method",
        "in_the_open": {"speed": round(float(speeds.mean()), 2), "falls_in_10_s": round(float(falls.mean()), 2), "ants": 100},
        "seed": args.seed,
        "cpu_seconds": round(time.process_time() - started),
        "versions": {name: version(name) for name in ("gymnasium", "mujoco", "numpy")} | {"python": platform.python_version()},
        "command": f"python -m zoo.behavior.gait --seed {args.seed} --n-generations {args.n_generations}",
        "learning_curve": {"columns": ["generation", "best_speed", "elite_speed", "elite_falls"], "rows": curve},
    }
    write_json(args.output, card)
    print(json.dumps(card["in_the_open"]))


if __name__ == "__main__":
    main()
