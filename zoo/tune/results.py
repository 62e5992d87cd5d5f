"""What came of a search: its trials, the setting that is chosen, and what the choice cost in a simulator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from sb3_genoffline.errors import printable, printable_lines
from sb3_genoffline.ope.metrics import rank_correlation, regret
from sb3_genoffline.program import PROGRAM

from ..benchmark.bandit import PULLS, bandit_curve
from ..benchmark.records import DONE, record_path
from ..runs.provenance import command_line
from ..runs.writing import write_json, write_text
from .objectives import OBJECTIVES
from .plan import TunePlan
from .trials import REVEALED, read_trial

if TYPE_CHECKING:
    import optuna

PROFILE, REPORT, TABLE, PICTURE = "best.yml", "report.md", "trials.json", "bandit.png"


@dataclass(frozen=True)
class Result:
    """
    One trial.

    :param number: of it
    :param parameters: Optuna's
    :param settings: the values that they stand for
    :param state: Optuna's word
    :param value: its last score; None if it has none
    :param updates: of the agent that was scored last
    :param evaluations: episodes that a simulator ran for its scores
    :param steps: of these episodes
    :param returns: of its last agent in the simulator; None if they are not known
    :param error: why it failed
    :param interval: the two ends of the 90% interval of its last score, where the objective has one
    """

    number: int
    parameters: dict[str, Any]
    settings: dict[str, Any]
    state: str
    value: float | None
    updates: int
    evaluations: int
    steps: int
    returns: list[float] | None
    error: str | None
    interval: list[float] | None = None


def results_of(plan: TunePlan, study: optuna.Study, folder: Path) -> list[Result]:
    """
    All trials that were begun. Trials of the same settings share a job, which is counted for the first of them.

    :param plan: of the search
    :param study: Optuna's
    :param folder: of the search
    """
    found, counted = [], set[str]()
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "WAITING" or not plan.space.parameters.keys() <= trial.params.keys():
            continue
        job = plan.job(plan.space.settings(trial.params))
        path = record_path(folder, job)
        record = read_trial(path) if path.is_file() else {"scores": []}
        scores = record["scores"] or [
            {"updates": at, "value": trial.intermediate_values[at]} for at in sorted(trial.intermediate_values)
        ]
        if trial.state.name == "COMPLETE" and record.get("state") != DONE:  # lost, and being done again
            scores = [{"updates": job.updates, "value": trial.value}]
        paid = [] if job.key in counted else [score for score in scores if score.get("returns") is not None]
        counted.add(job.key)
        last = record.get(REVEALED) or (scores[-1] if scores and trial.state.name == "COMPLETE" else {})
        found.append(
            Result(
                trial.number,
                dict(trial.params),
                plan.space.values(trial.params),
                trial.state.name.lower(),
                scores[-1]["value"] if scores else None,
                scores[-1]["updates"] if scores else 0,
                sum(len(score["returns"]) for score in paid),
                int(sum(sum(score.get("lengths") or ()) for score in paid)),
                last.get("returns"),
                trial.user_attrs.get("error"),
                scores[-1].get("interval") if scores else None,
            )
        )
    return found


def ranked(plan: TunePlan, results: list[Result]) -> list[Result]:
    """Trials that came to their end, the best first."""
    sign = -1 if OBJECTIVES[plan.evaluation["objective"]].largest else 1
    complete = [result for result in results if result.state == "complete" and result.value is not None]
    return sorted(complete, key=lambda result: sign * (result.value or 0.0))


def profile_text(plan: TunePlan, best: Result, n_trials: int) -> str:
    """
    A file that ``train --profile`` reads: the whole setting of the best trial.

    :param plan: of the search
    :param best: trial
    :param n_trials: that were begun
    """
    settings = plan.job(plan.space.settings(best.parameters)).config["hyperparameters"]
    what = OBJECTIVES[plan.evaluation["objective"]].what
    lines = [
        f"Settings of {plan.wish.algo} for {plan.wish.dataset}, chosen by `{PROGRAM} tune`: trial {best.number}, the best of "
        f"{n_trials}.",
        f"{what}: {best.value:.6g}",
        f"Train on all data: {PROGRAM} train --algo {plan.wish.algo} --dataset {plan.wish.dataset} --profile THIS_FILE",
    ]
    body = yaml.safe_dump({"default": settings}, sort_keys=False, allow_unicode=True)
    return "".join(f"# {printable(line)}\n" for line in lines) + body


def write_results(plan: TunePlan, study: optuna.Study, folder: Path, final: bool = True) -> list[Path]:
    """
    Write the profile, the table of the trials and the report; in the end, where the simulator has been asked, what a bandit
    would choose and its picture as well.

    :param plan: of the search
    :param study: Optuna's
    :param folder: of the search
    :param final: whether this is the end
    :return: the files
    """
    results = results_of(plan, study, folder)
    best = ranked(plan, results)
    files = [folder / TABLE, folder / REPORT]
    curve, unit = _curve(plan, best) if final else (None, "")
    text = report_text(plan, results, curve, unit)
    trials = [vars(result) for result in results]
    write_json(folder / TABLE, {**plan.described, "objective": plan.evaluation["objective"], "trials": trials})
    write_text(folder / REPORT, text)
    if best:
        write_text(folder / PROFILE, profile_text(plan, best[0], len(results)))
        files.insert(0, folder / PROFILE)
    if curve is not None:
        files += _draw(curve, unit, _own_choice(plan, best), folder / PICTURE)
    return files


def _normalised(plan: TunePlan, returns: list[float]) -> np.ndarray:
    values = np.asarray(returns, dtype=float)
    return values if plan.scale is None else plan.scale.of(values)


def _curve(plan: TunePlan, best: list[Result]) -> tuple[np.ndarray | None, str]:
    """What the bandit takes, (R, n); None if fewer than two policies have been in the simulator."""
    arms = [_normalised(plan, result.returns) for result in best if result.returns]
    unit = "return" if plan.scale is None else "normalised score"
    return (bandit_curve(arms, PULLS[-1]) if len(arms) > 1 else None), unit


def _own_choice(plan: TunePlan, best: list[Result]) -> float | None:
    """Mean of the policy that the search chose, if the simulator has been asked about it."""
    return float(_normalised(plan, best[0].returns).mean()) if best and best[0].returns else None


def report_text(plan: TunePlan, results: list[Result], curve: np.ndarray | None, unit: str) -> str:
    """
    The report, in Markdown.

    :param plan: of the search
    :param results: all trials
    :param curve: of the bandit
    :param unit: of what it takes
    """
    objective, best = OBJECTIVES[plan.evaluation["objective"]], ranked(plan, results)
    number = {state: sum(result.state == state for result in results) for state in ("complete", "pruned", "fail", "running")}
    counts = ", ".join(f"{count} {state}" for state, count in number.items() if count)
    evaluations, steps = sum(result.evaluations for result in results), sum(result.steps for result in results)
    lines = [
        f"# {plan.wish.algo} on {printable(plan.wish.dataset)}: {len(results)} trials",
        "",
        f"Objective: {objective.what}, the {'larger' if objective.largest else 'smaller'} the better; one training seed. "
        f"Trials: {counts}.",
        "",
        "```sh",
        command_line(),
        "```",
        "",
        "| trial | setting | state | updates | objective | 90% interval | simulator |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    places = {result.number: place for place, result in enumerate(best)}
    for result in sorted(results, key=lambda result: (places.get(result.number, len(best)), result.number)):
        setting = ", ".join(f"{name} {value}" for name, value in result.settings.items())
        value = "" if result.value is None else f"{result.value:.4g}"
        truth = f"{_normalised(plan, result.returns).mean():.1f}" if result.returns else ""
        state = result.state if result.error is None else f"{result.state}: {result.error}"
        interval = "" if result.interval is None else " to ".join(f"{end:.4g}" for end in result.interval)
        cells = (result.number, setting, state, f"{result.updates:,}", value, interval, truth)
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    lines += [part for note in notes_on(plan, results) for part in ("", note)]
    lines += ["", "## What the choice cost in the simulator", ""]
    if evaluations:
        lines.append(
            f"{evaluations:,} episodes, {steps:,} steps of the environment: all scores of all trials, those on the way too."
        )
    else:
        lines.append("No episode: the choice is made from the data alone.")
    lines += _truth(plan, best)
    lines += (
        _table(curve, unit) if curve is not None else ["", "What a bandit would choose: run the command with --reveal 10."]
    )
    return printable_lines("\n".join(lines)) + "\n"


def notes_on(plan: TunePlan, results: list[Result]) -> list[str]:
    """
    What a reader should know before taking the best trial, in sentences.

    :param plan: of the search
    :param results: all trials
    """
    notes, best, grid = [], ranked(plan, results), plan.space.grid()
    if grid is not None and len(grid) <= sum(result.state != "running" for result in results):
        notes.append(f"The block has {len(grid)} settings, and all were tried.")
    if len(best) > 1 and best[0].interval is not None:
        low, high = best[0].interval
        alike = sum(low <= (result.value or 0.0) <= high for result in best[1:])
        if alike:
            notes.append(
                f"Other trials with values within the best one's interval: {alike} of {len(best) - 1}. This objective does "
                "not tell them apart. Longer fits (--fit-steps) or more data may; else take what stays closer to the data."
            )
    return notes


def _cell(value: object) -> str:
    return printable(value).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _truth(plan: TunePlan, best: list[Result]) -> list[str]:
    """How well the objective ranks, where the simulator has been asked about every trial and did not rank them itself."""
    pairs = [(result.value or 0.0, np.mean(result.returns)) for result in best if result.returns]
    if len(pairs) < 2 or len(pairs) < len(best) or any(result.evaluations for result in best):
        return []
    estimates, truth = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    estimates = estimates if OBJECTIVES[plan.evaluation["objective"]].largest else -estimates
    return [
        "",
        f"Against the simulator, over {len(pairs)} policies: rank correlation {rank_correlation(estimates, truth):.2f}, "
        f"regret@1 {regret(estimates, truth):.2f}, regret@3 {regret(estimates, truth, 3):.2f} of the range.",
    ]


def _table(curve: np.ndarray, unit: str) -> list[str]:
    lines = [
        "",
        "Unifloral's protocol: a bandit spends evaluations of one episode each on these policies, and takes what looks best.",
        "",
        f"| evaluations | {unit} of the policy taken | nine of ten lie between |",
        "| --- | --- | --- |",
    ]
    for pulls in PULLS:
        taken = curve[:, pulls - 1]
        low, high = np.quantile(taken, [0.05, 0.95])
        lines.append(f"| {pulls} | {taken.mean():.1f} | {low:.1f} and {high:.1f} |")
    return lines


def _draw(curve: np.ndarray, unit: str, chosen: float | None, output: Path) -> list[Path]:
    from ..plot.figures import new_figure, save_figure

    figure, (axes,) = new_figure(1, 6.0, 3.5)
    pulls = np.arange(1, curve.shape[1] + 1)
    axes.plot(pulls, curve.mean(axis=0), color="#1f77b4", label="bandit")
    axes.fill_between(pulls, *np.quantile(curve, [0.05, 0.95], axis=0), color="#1f77b4", alpha=0.2, lw=0)
    if chosen is not None:
        axes.axhline(chosen, color="#7f7f7f", ls="--", label="the search's choice")
    axes.set(xlabel="evaluations in the simulator, one episode each", ylabel=f"{unit} of the policy taken", xscale="log")
    axes.legend(frameon=False)
    return save_figure(figure, output)
