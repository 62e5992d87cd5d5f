"""One agent: its training on the data, and what becomes of it online. Stopped, it goes on from its last evaluation."""

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from torch import Tensor

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.sampling import TransitionSampler
from sb3_genoffline.data.scores import ScoreScale
from sb3_genoffline.registry import load_agent

from ..runs.envs import EnvFactory, eval_envs
from ..runs.evaluations import scores_of
from ..runs.learning import train
from ..runs.provenance import versions
from ..runs.reading import read_json
from ..runs.scoring import EVAL_SEED
from ..runs.writing import write_json
from .plan import EXPLORING, ONLINE, SAC_SETTINGS, SCRATCH, Plan


class HalfOnline(TransitionSampler):
    """Half of each batch are online rows, as soon as there are some; both halves are drawn with replacement."""

    buffer: OfflineBuffer

    def next_indices(self, batch_size: int) -> Tensor:
        """Rows of the next batch, int64 (B,): offline ones first."""
        n_offline, n_online = self.buffer.n_offline, self.buffer.n_online
        if n_offline == 0 or n_online == 0:
            return super().next_indices(batch_size)
        sizes = (batch_size - batch_size // 2, n_offline), (batch_size // 2, n_online)
        offline, online = (th.randint(n, (size,), generator=self.generator, device=self.buffer.device) for size, n in sizes)
        return th.cat([offline, n_offline + online])


class Training:
    """
    :param plan: sizes and seed
    :param data: to train on
    :param make: makes the environment
    :param folder: of records, runs and checkpoints
    """

    def __init__(self, plan: Plan, data: OfflineDataset, make: EnvFactory, folder: Path) -> None:
        self.plan, self.data, self.make, self.folder = plan, data, make, folder
        self.scale = ScoreScale("return", float(data.ref_min_score or 0.0), float(data.ref_max_score or 1.0))

    def record_path(self, algo: str, way: str) -> Path:
        """Of a run's record."""
        return self.folder / "records" / f"{algo}-{way}.json"

    def offline(self, algo: str) -> tuple[Path, dict[str, Any]]:
        """
        :param algo: name in ``ALGOS``
        :return: the trained agent's file, and its record with the curve; both are there already after the first call
        """
        plan, known = self.plan, self.folder / "records" / f"{algo}-offline.json"
        if not known.is_file():
            started = time.process_time()
            trained = train(
                algo,
                self.data,
                n_timesteps=plan.updates,
                profile=plan.profile,
                hyperparameters=({} if algo == "td3_bc" else {"lr_decay_steps": plan.updates}) | EXPLORING.get(algo, {}),
                log_folder=self.folder,
                eval_freq=plan.every,
                eval_episodes=plan.episodes,
                seed=plan.seed,
                device="cpu",
                verbose=0,
                progress=False,
                resume=True,
            )
            if not trained.finished:
                raise KeyboardInterrupt
            _, steps, scores = scores_of(trained.run)
            curve = {"updates": steps.tolist(), **_spread(scores)}
            minutes = round((time.process_time() - started) / 60, 1)
            path = str(trained.run.model_path.relative_to(self.folder))
            write_json(known, {"agent": path, "curve": curve, "cpu_minutes": minutes})
        record = read_json(known, "record of a training")
        return self.folder / record["agent"], record

    def online(self, algo: str, way: str) -> dict[str, Any]:
        """
        :param algo: name in ``ALGOS``, or that of SAC
        :param way: what becomes of the offline rows
        :return: the record of the run, which is at its end
        """
        plan, path = self.plan, self.record_path(algo, way)
        if path.is_file():
            record = read_json(path, "record of a training")
            model = self._load(algo, way, self._checkpoint(algo, way, record["curve"]["steps"][-1]))
        else:
            record = self._new_record(algo, way)
            model = self._begin(algo, way)
        curve = record["curve"]
        while not curve["steps"] or curve["steps"][-1] < plan.steps:
            started, done = time.process_time(), curve["steps"][-1] if curve["steps"] else 0
            if curve["steps"]:
                model.learn(min(plan.every, plan.steps - done), log_interval=None, reset_num_timesteps=done == 0)
                done = model.num_timesteps
            checkpoint = self._save(model, algo, way, done)
            curve["steps"].append(done)
            for name, value in _spread(self.scores(algo, checkpoint)[None]).items():
                curve[name] += value
            record["cpu_minutes"] = round(record["cpu_minutes"] + (time.process_time() - started) / 60, 2)
            write_json(path, record)
            for old in checkpoint.parent.glob(f"{algo}-{way}-*"):
                if old.stem != checkpoint.stem:
                    old.unlink()
        return record

    def _new_record(self, algo: str, way: str) -> dict[str, Any]:
        before = None if algo == SCRATCH else self.offline(algo)[1]
        return {
            "algorithm": algo,
            "way": way,
            "seed": self.plan.seed,
            "fingerprint": self.data.fingerprint,
            "offline": before and {"curve": before["curve"], "cpu_minutes": before["cpu_minutes"]},
            "curve": {"steps": [], "mean": [], "std": []},
            "cpu_minutes": 0.0,
            "versions": versions(),
        }

    def _begin(self, algo: str, way: str) -> Any:
        if algo == SCRATCH:
            return SAC(
                "MlpPolicy", self.make(), seed=self.plan.seed, device="cpu", buffer_size=self.plan.steps, **SAC_SETTINGS
            )
        return self._ready(load_agent(self.offline(algo)[0], device="cpu", **ONLINE), way)

    def _ready(self, model: AnyAlgorithm, way: str) -> AnyAlgorithm:
        model.set_env(self.make())
        if way == "dropped":
            model.take_buffer(model.empty_buffer())
            return model
        model.set_dataset(self.data)
        if way == "half":
            assert isinstance(model.replay_buffer, OfflineBuffer)
            model.batches = HalfOnline(model.replay_buffer, seed=self.plan.seed)
        return model

    def _checkpoint(self, algo: str, way: str, steps: int) -> Path:
        return self.folder / "online" / f"{algo}-{way}-{steps}.zip"

    def _save(self, model: BaseAlgorithm, algo: str, way: str, steps: int) -> Path:
        path = self._checkpoint(algo, way, steps)
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path)
        if steps:
            model.save_replay_buffer(path.with_suffix(".pkl"))  # type: ignore[attr-defined]
        return path

    def _load(self, algo: str, way: str, path: Path) -> Any:
        model: Any
        if algo == SCRATCH:
            model = SAC.load(path, env=self.make(), device="cpu")
        else:
            with warnings.catch_warnings(action="ignore"):
                model = self._ready(load_agent(path, device="cpu"), way)
        if path.with_suffix(".pkl").is_file():
            model.load_replay_buffer(path.with_suffix(".pkl"))
        return model

    def scores(self, algo: str, path: Path) -> np.ndarray:
        """
        :param algo: whose agent it is
        :param path: of the agent, of which a copy acts: its own random numbers stay as they are
        :return: (episodes,), normalised
        """
        model: Any = SAC.load(path, device="cpu") if algo == SCRATCH else load_agent(path, device="cpu")
        envs = eval_envs(self.make, min(self.plan.episodes, 10))
        envs.seed(EVAL_SEED)
        try:
            returns, _ = evaluate_policy(model, envs, self.plan.episodes, deterministic=True, return_episode_rewards=True)
        finally:
            envs.close()
        return self.scale.of(returns)


def _spread(scores: np.ndarray) -> dict[str, list[float]]:
    """(E, episodes) -> mean and standard deviation of each evaluation"""
    return {"mean": np.round(scores.mean(axis=1), 2).tolist(), "std": np.round(scores.std(axis=1), 2).tolist()}
