"""
How good the judge is where the truth is known: ``python -m zoo.judge.record``, in a checkout.

Seven algorithms are trained on a clinician's log of genoffline/Glucose-v0, their checkpoints are judged from held-out
episodes of the log alone, and then each treats new patients. Numbers and picture go into ``zoo/figures``. Trainings that are
done are not done again.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm, OfflineAlgorithm
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.envs import glucose
from sb3_genoffline.envs.clinician import Clinician
from sb3_genoffline.ope import evaluate_offline
from sb3_genoffline.ope.report import split_episodes
from sb3_genoffline.ope.scores import initial_state_value

from ..runs.flags import FlagParser, a_folder, picture_file
from ..runs.folders import list_runs
from ..runs.learning import train
from ..runs.provenance import versions
from ..runs.writing import finite, write_json
from ..tune.objectives import raw_critic
from .candidates import checkpoints_of, load_candidates
from .pictures import plot_truth
from .truth import Truth, compared, table, truth_of

FIGURE = Path(__file__).parents[1] / "figures" / "judge.png"
SETTINGS: dict[str, Any] = {
    "patients": 400,
    "gamma": 0.95,
    "updates": 2_000,
    "every": 600,  # kept checkpoints; the last agent is one too
    "algorithms": ["bc", "td3_bc", "iql", "awac", "cql", "sql", "dac"],
    "hyperparameters": {"gamma": 0.95, "policy_kwargs": {"net_arch": [64, 64]}},
    "fit": {"gradient_steps": 1_500, "net_arch": [64, 64], "learning_rate": 1e-3, "tau": 0.05, "batch_size": 128},
    "held_out": 0.3,
    "flows": {"n_steps": 1_000, "net_arch": [64, 64]},
    "treated": 300,
    "half_hours": 192,
}
ID = "glucose-log"


def logged(n_patients: int, seed: int = 0) -> OfflineDataset:
    """
    Stays of half a day to three days, cut there as by a discharge; intensive care ends them.

    :param n_patients: who are treated by the clinician
    :param seed: of all that is drawn
    """
    rng = np.random.default_rng((seed, 1))
    longest = 144
    stays = glucose.play(Clinician(rng), n_patients, longest + 1, seed)
    parts: list[tuple[Any, ...]] = []
    for patient in range(n_patients):
        length = min(int(rng.integers(24, longest + 1)), int(stays.present[:-1, patient].sum()))
        seen = stays.observations[: length + 1, patient].astype(np.float32)
        ended = stays.ended[:length, patient]
        cut = np.arange(1, length + 1) == length
        parts.append(
            (seen[:-1], stays.doses[:length, patient], stays.rewards[:length, patient], seen[1:], ended, cut & ~ended)
        )
    observations, doses, rewards, following, ends, cuts = (np.concatenate(part) for part in zip(*parts, strict=True))
    return OfflineDataset(
        observations=observations,
        actions=doses[:, None].astype(np.float32),
        rewards=rewards.astype(np.float32),
        next_observations=following,
        terminations=ends,
        truncations=cuts,
        observation_space=spaces.Box(glucose.LOW, glucose.HIGH),
        action_space=spaces.Box(0.0, glucose.MAX_DOSE, (1,)),
        id=ID,
    )


def agents_of(data: OfflineDataset, settings: dict[str, Any], folder: Path) -> dict[str, AnyAlgorithm]:
    """
    :param data: to train on
    :param settings: as :data:`SETTINGS`
    :param folder: of the runs
    :return: the checkpoints of all algorithms by name
    """
    paths: dict[str, Path] = {}
    for algo in settings["algorithms"]:
        done = [run for run in list_runs(folder, algo, ID) if not run.unfinished]
        if not done:
            trained = train(
                algo,
                data,
                n_timesteps=settings["updates"],
                profile="cpu",
                hyperparameters=settings["hyperparameters"],
                log_folder=folder,
                eval_freq=0,
                save_freq=settings["every"],
                seed=0,
                device="cpu",
                verbose=0,
                progress=False,
                resume=True,
            )
            if not trained.finished:
                raise KeyboardInterrupt
            done = [trained.run]
        paths |= checkpoints_of(done[0])
    return load_candidates(paths, "cpu")[0]


def treats(doctor: Any, settings: dict[str, Any]) -> Truth:
    """
    What somebody's treatment of new patients is worth.

    :param doctor: an agent, or whoever has a ``predict``
    :param settings: as :data:`SETTINGS`
    """
    if isinstance(doctor, OfflineAlgorithm):
        doctor.policy.seed_acting(0)
    stays = glucose.play(doctor, settings["treated"], settings["half_hours"], seed=1_000)
    rewards = stays.rewards * stays.present
    weights = settings["gamma"] ** np.arange(len(rewards) + 1)[:, None]
    left = np.where(stays.ended.any(axis=0), 0.0, weights[-1])
    return truth_of(rewards.sum(axis=0), (weights[:-1] * rewards).sum(axis=0), left)


def _acts(agent: AnyAlgorithm, observations: np.ndarray) -> np.ndarray:
    return agent.predict(observations, deterministic=True)[0]


def own_values(agents: dict[str, AnyAlgorithm], data: OfflineDataset) -> dict[str, float]:
    """The baseline: what agents with a critic say of themselves, in first states."""
    found = {}
    for name, agent in agents.items():
        if hasattr(agent.policy, "critic"):
            found[name] = initial_state_value(raw_critic(agent), partial(_acts, agent), data)
    return found


def main(argv: list[str] | None = None, settings: dict[str, Any] | None = None) -> None:
    """
    :param argv: words of the command line
    :param settings: other than :data:`SETTINGS`
    """
    parser = FlagParser(prog="python -m zoo.judge.record", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "-f", "--folder", type=a_folder, default="logs/judge-truth", help="of the runs (default: logs/judge-truth)"
    )
    parser.add_argument(
        "-o", "--output", type=picture_file, default=str(FIGURE), help="picture; a JSON file is written beside it"
    )
    args, settings = parser.parse_args(argv), settings or SETTINGS
    th.set_num_threads(1)
    started, data = time.process_time(), logged(settings["patients"])
    train_on, judge_on = split_episodes(data, 0.4)
    agents = agents_of(train_on, settings, Path(args.folder))
    trained = time.process_time()
    fit = settings["fit"] | {"net_arch": tuple(settings["fit"]["net_arch"])}
    flows = settings["flows"] | {"net_arch": tuple(settings["flows"]["net_arch"]), "device": "cpu"}
    report = evaluate_offline(
        agents,
        judge_on,
        estimators=("fqe", "wdr"),
        gamma=settings["gamma"],
        held_out=settings["held_out"],
        weighting=flows,
        device="cpu",
        **fit,
    )
    judged = time.process_time()
    truth = {name: treats(agent, settings) for name, agent in agents.items()}
    others = {"critic": own_values(agents, judge_on)}
    clinicians = treats(Clinician(np.random.default_rng(5)), settings)
    found = report.as_dict() | compared(report, truth, others)
    print(table(found))
    minutes = {"training": trained - started, "judging": judged - trained, "treating": time.process_time() - judged}
    output = Path(args.output)
    write_json(
        output.with_suffix(".json"),
        {
            "settings": settings,
            **finite(found),
            "clinicians": clinicians._asdict(),
            "cpu_minutes": {name: round(seconds / 60, 1) for name, seconds in minutes.items()},
            "versions": versions(),
        },
    )
    for file in [output.with_suffix(".json"), *plot_truth(report, truth, output, others)]:
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
