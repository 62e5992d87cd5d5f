"""What is said of a published agent: its results, its curve, its film, and how it was trained."""

import hashlib
import os
import shlex
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.errors import NotFoundError, printable

from ..benchmark.results import score, spread
from ..plot.curves import plot_curves
from ..runs.agents import agent_and_env
from ..runs.envs import EnvFactory
from ..runs.film import film
from ..runs.folders import Run
from ..runs.reading import read_text
from ..runs.scoring import EVAL_SEED, evaluate
from .choice import Candidate, Trained

_BRIEF = (
    *("checkpoint", "gradient_steps", "seed", "mean_reward", "std_reward", "mean_reward_ci95", "success_rate"),
    *("normalized_score", "normalized_score_ci95", "n_eval_episodes", "eval_seed"),
)
_PRIVATE_FLAGS = ("-f", "--log-folder", "-tb", "--tensorboard-log")


@dataclass(frozen=True)
class Settings:
    """
    How agents are published.

    :param checkpoint: ``"last"`` or ``"best"``
    :param n_episodes: of each evaluation (None: 10; 100 in AntMaze)
    :param eval_seed: of the episodes
    :param film_steps: environment steps of the film (0: no film)
    :param training: with the archive's part that only going on with training needs
    :param device: to evaluate and film on
    :param env_id: environment to evaluate and film in (None: the dataset's)
    :param env_kwargs: its arguments (None: those of the run)
    :param trust_env: make the environment that data and runs record, whatever code it names
    """

    checkpoint: str = "last"
    n_episodes: int | None = None
    eval_seed: int = EVAL_SEED
    film_steps: int = 1000
    training: bool = True
    device: str = "auto"
    env_id: str | None = None
    env_kwargs: tuple[str, ...] | None = None
    trust_env: bool = False


def source_of(candidate: Candidate, settings: Settings) -> dict[str, Any]:
    """
    What a folder is made from, to recognise it by: hashes of the checkpoints, and the settings that its content depends on.

    :raises NotFoundError: if the run has no such checkpoint
    """
    best = candidate.chosen.run.folder / "best_model.zip"
    return {
        "checkpoint": settings.checkpoint,
        "sha256": _sha256(candidate.chosen.run.checkpoint(settings.checkpoint)),
        "best_sha256": _sha256(best) if best.is_file() else None,
        "seeds": {str(trained.seed): _sha256(trained.run.model_path) for trained in candidate.seeds},
        "n_eval_episodes": settings.n_episodes,
        "eval_seed": settings.eval_seed,
        "env_id": settings.env_id,
        "env_kwargs": None if settings.env_kwargs is None else list(settings.env_kwargs),
        "film_steps": settings.film_steps,
        "training": settings.training,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of two sources is not the same, in words."""
    words = {"sha256": "weights", "best_sha256": "best checkpoint"}
    return [words.get(name, name) for name in now if before.get(name) != now[name]]


def open_agent(run: Run, checkpoint: str, settings: Settings) -> tuple[AnyAlgorithm, EnvFactory]:
    """A run's agent, and what makes its environment, with the arguments that it was evaluated with in training."""
    agent = {"model": run.checkpoint(checkpoint), "dataset": None, "load_best": False, "load_checkpoint": None, "exp_id": 0}
    args = Namespace(
        **agent,
        env=settings.env_id,
        env_kwargs=None if settings.env_kwargs is None else list(settings.env_kwargs),
        trust_env=settings.trust_env,
        device=settings.device,
    )
    model, make, _, _ = agent_and_env(args)
    return model, make


def make_results(
    candidate: Candidate, model: AnyAlgorithm, make: EnvFactory, settings: Settings, say: Callable[[str], None]
) -> dict[str, Any]:
    """
    Evaluate the agent, the best checkpoint of its run, and the last ones of the other seeds, all in the same episodes.

    :param candidate: what is published
    :param model: its agent
    :param make: makes the environment
    :param settings: checkpoint and protocol
    :param say: is told what is evaluated
    :return: what :func:`zoo.runs.scoring.evaluate` says of the agent, with ``best``, ``seeds``, ``data``, ``baseline``
        and ``source``
    """
    run, config = candidate.chosen.run, candidate.chosen.config

    def result_of(agent: AnyAlgorithm, env: EnvFactory, checkpoint: str) -> dict[str, Any]:
        say(f"evaluating {checkpoint} of seed {agent.seed}")
        data = config["dataset"]
        return evaluate(
            agent,
            env,
            settings.n_episodes,
            eval_seed=settings.eval_seed,
            checkpoint=checkpoint,
            behavior_success_rate=data.get("success_rate"),
        )

    results = result_of(model, make, settings.checkpoint)
    best = None
    if settings.checkpoint == "last" and (run.folder / "best_model.zip").is_file():
        best = brief(result_of(*open_agent(run, "best", settings), "best"))
        best["chosen_by"] = "the highest mean return of the evaluations during training"
    last = []
    for trained in candidate.seeds:
        if trained is candidate.chosen and settings.checkpoint == "last":
            last.append(brief(results))
        else:
            last.append(brief(result_of(*open_agent(trained.run, "last", settings), "last")))
    return {
        **results,
        "env_spec": public(results["env_spec"]),
        "best": best,
        "seeds": summary_of_seeds(last),
        "data": public(config["dataset"]),
        "baseline": candidate.chosen.baseline or None,
        "trained_with": config["versions"],
        "source": source_of(candidate, settings),
    }


def brief(result: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a result, without the protocol that it shares with the agent's."""
    return {name: result[name] for name in _BRIEF}


def summary_of_seeds(last: list[dict[str, Any]]) -> dict[str, Any] | None:
    """
    :param last: brief results of the last checkpoints, one per seed
    :return: them, with mean and sample standard deviation of their scores (None if there is one); None if there is no result
    """
    if not last:
        return None
    scores = np.array([score(result) for result in last])
    return {
        "unit": "return" if last[0]["normalized_score"] is None else "normalized_score",
        "n": len(last),
        "mean": float(scores.mean()),
        "std": spread(scores),
        "runs": last,
    }


def make_curve(candidate: Candidate, folder: Path) -> Path:
    """
    :param folder: to draw in
    :return: a PNG with the training curve, averaged over the seeds
    :raises NotFoundError: if none of the runs was evaluated during training
    """
    runs = [trained.run for trained in candidate.seeds or (candidate.chosen,) if trained.run.evaluations_path.is_file()]
    if not runs:
        raise NotFoundError("it was trained without evaluation")
    try:
        files = plot_curves(runs, folder / "training_curve.png")
    except ValueError:  # evaluated at different updates
        files = plot_curves([candidate.chosen.run], folder / "training_curve.png")
    return files[0]


def make_film(model: AnyAlgorithm, make: EnvFactory, folder: Path, n_steps: int) -> Path:
    """
    :param folder: for the film
    :param n_steps: environment steps shown
    :raises OSError: or ValueError or RuntimeError, if it cannot be made
    """
    film(model, make, folder / "replay.mp4", n_steps)
    return folder / "replay.mp4"


def training_command(trained: Trained) -> str:
    """
    How to train the agent again: the commands that its run remembers, without the places where it logged; where it was not
    trained by one (as in a benchmark), the command that does the same.
    """
    file = trained.run.settings / "command.txt"
    remembered = only_training(read_text(file, "list of commands") if file.is_file() else None)
    if remembered:
        return "\n".join(shlex.join(_public_words(shlex.split(line))) for line in remembered)
    plain = {"--algo": trained.algo, "--dataset": trained.dataset, "--seed": trained.seed}
    flags = [str(word) for pair in plain.items() for word in pair]
    pairs = [
        f"{name}:{value}".replace("'", '"')  # which a shell leaves alone inside its own quotes
        for name, value in public(trained.config["hyperparameters"]).items()
    ]
    return shlex.join(["python", "-m", "zoo", "train", *map(printable, [*flags, "-params", *pairs])])


def only_training(text: Any) -> list[str]:
    """
    :param text: lines that a file says are commands
    :return: them, each a single call of the zoo's training and nothing else to a shell; none, unless all are
    """
    try:
        lines = [shlex.split(line) for line in text.splitlines()] if isinstance(text, str) else []
    except ValueError:  # an open quote
        return []
    is_training = [words[:4] == ["python", "-m", "zoo", "train"] or words[:2] == ["genoffline", "train"] for words in lines]
    return [shlex.join(words) for words in lines] if all(is_training) else []


def public(value: Any) -> Any:
    """Plain data, of whose strings those that are absolute paths are file names only: folders say where and who one is."""
    if isinstance(value, Mapping):
        return {key: public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [public(item) for item in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(os.path.expanduser(value)) else value


def _public_words(words: list[str]) -> list[str]:
    """A command without the folders that it logged to, and without those of its files."""
    kept = []
    for before, word in zip(["", *words], words, strict=False):
        if before not in _PRIVATE_FLAGS and word.partition("=")[0] not in _PRIVATE_FLAGS:
            name, colon, value = word.partition(":")  # of `-params name:value`
            kept.append(public(name) + colon + public(value))
    return kept


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
