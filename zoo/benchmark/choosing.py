"""What a choice among a benchmark's runs is worth for the episodes that it may cost, by Unifloral's bandit."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sb3_genoffline.data.scores import ScoreScale

from ..plot.figures import new_figure, plain, save_figure
from .bandit import PULLS, bandit_curve
from .results import Results, title

ANY = "any"
"""Of all algorithms together."""


class Choice(NamedTuple):
    """
    :param algorithm: whose runs are chosen from, or :data:`ANY`
    :param dataset: of the runs
    :param policies: number of runs, those with settings of before too
    :param best: score of the best of them
    :param taken: (R, evaluations) score of the one that is taken
    """

    algorithm: str
    dataset: str
    policies: int
    best: float
    taken: np.ndarray


def episode_scores(record: dict[str, Any]) -> np.ndarray | None:
    """
    :param record: of a run
    :return: scores of its last checkpoint's episodes; None if the record does not have them
    """
    last, data = record["last"], record["data"]
    if not last.get("returns"):
        return None
    if last.get("success_rate") is not None:
        n = len(last["returns"])
        return np.repeat([100.0, 0.0], [round(n * last["success_rate"]), n - round(n * last["success_rate"])])
    returns = np.asarray(last["returns"], dtype=float)
    if last["normalized_score"] is None:
        return returns
    scale = ScoreScale.known(low=data.get("ref_min_score"), high=data.get("ref_max_score"))
    return None if scale is None else scale.of(returns)


def choices(results: Results) -> list[Choice]:
    """
    For each dataset those of each algorithm that has several runs there, and those of all together.

    :param results: of the benchmark
    """
    found = []
    for dataset in results.datasets:
        arms: dict[str, list[np.ndarray]] = {name: [] for name in results.algorithms}
        for cell in results.cells:
            counted = [cell.record] if cell.record and not cell.reason else []
            for record in [*counted, *cell.superseded] if cell.dataset == dataset else []:
                scores = episode_scores(record)
                if scores is not None:
                    arms[cell.name].append(scores)
        together = [scores for own in arms.values() for scores in own]
        for name, own in {**arms, ANY: together}.items():
            if len(own) > 1:
                best = max(float(scores.mean()) for scores in own)
                found.append(Choice(name, dataset, len(own), best, bandit_curve(own, PULLS[-1])))
    return found


def rows_of(found: list[Choice]) -> list[dict[str, Any]]:
    """Rows of ``choosing.csv``: one for each choice and number of evaluations."""
    rows = []
    for choice in found:
        for pulls in PULLS:
            taken = choice.taken[:, pulls - 1]
            low, high = np.quantile(taken, [0.05, 0.95])
            place = {
                "algorithm": choice.algorithm,
                "dataset": choice.dataset,
                "policies": choice.policies,
                "evaluations": pulls,
            }
            rows.append(place | {"score": float(taken.mean()), "low": float(low), "high": float(high), "best": choice.best})
    return rows


def name_of(choice: Choice) -> str:
    """What a choice is called."""
    return "any algorithm" if choice.algorithm == ANY else title(choice.algorithm)


def draw_choices(found: list[Choice], colors: dict[str, str], output: Path) -> list[Path]:
    """
    :param found: choices
    :param colors: of the algorithms
    :param output: file name without suffix
    :return: the files
    """
    datasets = list(dict.fromkeys(choice.dataset for choice in found))
    figure, panels = new_figure(len(datasets), 4.2, 4.0)
    labelled: dict[str, Any] = {}
    for axes, dataset in zip(panels, datasets, strict=True):
        for choice in (choice for choice in found if choice.dataset == dataset):
            style = {"color": "black", "ls": "--"} if choice.algorithm == ANY else {"color": colors[choice.algorithm]}
            (line,) = axes.plot(range(1, PULLS[-1] + 1), choice.taken.mean(axis=0), lw=1.5, **style)
            labelled.setdefault(plain(name_of(choice)), line)
        axes.set(xscale="log", xlabel="evaluations, one episode each")
        axes.set_title(plain(dataset), fontsize="small")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("score of the run that is taken")
    figure.legend([*labelled.values()], [*labelled], loc="outside right center", fontsize="small")
    return save_figure(figure, output)
