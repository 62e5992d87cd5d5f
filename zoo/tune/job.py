"""One trial, as a process of its own: `python -m zoo.tune.job RECORD`. It trains, scores on the way and writes it down."""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from stable_baselines3.common.callbacks import BaseCallback

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.errors import UserError
from sb3_genoffline.registry import load_agent

from ..benchmark.job import host, main, run_to_go_on, train_as_recorded, work_on
from ..collect.lookup import find_dataset
from ..runs.provenance import versions
from ..runs.stopping import StopSignals, stoppable
from ..runs.writing import write_json
from .objectives import Judge
from .trials import read_trial


def rungs(total: int, n_scores: int) -> list[int]:
    """Updates after which an agent is scored, the last of them being the end."""
    every = max(1, total // n_scores)
    return [*range(every, total, every)[: n_scores - 1], total]


class _ScoreAtRungs(BaseCallback):
    """Scores on the way, and after a training was killed between a checkpoint and its score."""

    def __init__(self, steps: list[int], score: Callable[[AnyAlgorithm], bool]) -> None:
        super().__init__()
        self.steps, self.score = steps, score

    def _on_training_start(self) -> None:
        self._on_step()

    def _on_step(self) -> bool:
        model = cast(AnyAlgorithm, self.model)
        return model.num_timesteps not in self.steps or self.score(model)


def _score_once(path: Path, record: dict[str, Any], judge: Judge, stop: StopSignals, model: AnyAlgorithm) -> bool:
    """Write an agent's score down, unless it is there; False if a signal broke it off."""
    done = [score["updates"] for score in record["scores"]]
    if model.num_timesteps in done:
        return True
    final = model.num_timesteps >= record["config"]["hyperparameters"]["n_timesteps"]
    found = judge.score(model, stop, final)
    if found is None:
        return False
    record["scores"].append({"updates": model.num_timesteps, **found})
    write_json(path, record)
    return True


def judge_of(config: dict[str, Any]) -> Judge:
    """
    :param config: of a trial
    :raises UserError: if the data are others than those that the trial was planned for
    """
    data = find_dataset(config["dataset"], env=config.get("env"))
    if data.fingerprint != config["fingerprint"]:
        raise UserError(f"{config['dataset']} holds other data than when the search began: use another folder (-f).")
    env_kwargs = config["hyperparameters"].get("env_kwargs")
    return Judge(config["evaluation"], data, config["seed"], config["device"], config.get("env"), env_kwargs)


def _work(path: Path, record: dict[str, Any]) -> bool:
    """Train and score; False if it was interrupted."""
    folder, config = path.parent.parent, record["config"]
    judge, total = judge_of(config), config["hyperparameters"]["n_timesteps"]
    steps = rungs(total, config["evaluation"]["scores"])
    record["host"] = host()
    run = run_to_go_on(folder, record, judge.training)
    with stoppable() as stop:
        score = partial(_score_once, path, record, judge, stop)
        model = None if run is None else load_agent(run.model_path, device=config["device"])
        if model is None or run is None or model.num_timesteps < total:
            started = time.perf_counter()
            trained = train_as_recorded(
                folder,
                record,
                judge.training,
                run,
                eval_freq=0,
                save_freq=steps[0],
                callback=_ScoreAtRungs(steps[:-1], score),
            )
            record["seconds"] = round(record.get("seconds", 0.0) + time.perf_counter() - started, 2)
            run, model = trained.run, trained.model
            if trained.signal is not None:
                return False
        if not score(model):
            return False
    for kept in run.folder.glob("rl_model_*_steps.zip"):
        kept.unlink()
    record |= {"run": str(run.folder.relative_to(folder)), "versions": versions()}
    return True


run_trial = partial(work_on, work=_work, read=read_trial)
"""Do the trial of a record, or what is left of it; returns its state afterwards."""


if __name__ == "__main__":
    sys.exit(main(run=run_trial))
