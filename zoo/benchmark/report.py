"""The report of a benchmark: Markdown, CSV and pictures, from the records alone."""

import csv
import io
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from sb3_genoffline.errors import NotFoundError, printable
from sb3_genoffline.files.escaping import code, code_block, markdown

from ..runs.evaluations import FINAL_ERROR, LATE, episodes_needed
from ..runs.folders import dataset_name
from ..runs.writing import write_text
from . import claims
from .bandit import PULLS
from .choosing import Choice, choices, draw_choices, name_of, rows_of
from .pictures import color_of, draw_aggregate, draw_algorithm, draw_dataset, draw_minutes
from .plan import Plan
from .records import Cell, read_cells
from .results import Published, Results, final_score, score, spread, title, wobble
from .statistics import improvement, interquartile_mean, interval

_LONGEST_REASON = 160
_ENOUGH_SEEDS = 6
_IVR = "IVR: the better of SQL and EQL"
"""The fewest of which the lowest and the highest hold a median with 95%."""


def write_report(plan: Plan, records: str | Path, output: str | Path, command: str) -> list[Path]:
    """
    :param plan: gives the cells and their order
    :param records: folder of ``*.json``
    :param output: folder of ``README.md``, tables and pictures
    :param command: that makes this report, for its last line
    :return: the files
    :raises NotFoundError: if there is no result yet
    """
    output = Path(output)
    results = Results(plan.algorithms, plan.datasets, read_cells(plan, records))
    if not results.records():
        raise NotFoundError(f"There is no result in {records} yet.")
    files, found, claimed = [], choices(results), claims.rows_of(plan.claims, results)
    extra = ({"choosing": rows_of(found)} if found else {}) | ({"claims": claimed} if claimed else {})
    for name, rows in (tables(results) | extra).items():
        files.append(output / f"{name}.csv")
        write_text(files[-1], _csv(rows))
    for dataset in plan.datasets:
        if results.records(dataset=dataset):
            files += draw_dataset(results, dataset, output / dataset_name(dataset))
    for name in results.algorithms[1:]:
        if results.records(name):
            files += draw_algorithm(results, name, results.algorithms[0], output / f"learning-{name}")
    if results.compared[1]:
        files += draw_aggregate(results, output / "aggregate") + draw_minutes(results, output / "minutes")
    if found:
        files += draw_choices(found, {name: color_of(results, name) for name in results.algorithms}, output / "choosing")
    write_text(output / "README.md", _markdown(plan, results, found, claimed, command))
    return [output / "README.md", *files]


# ------------------------------------------------------------------ CSV


def tables(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Rows of ``runs.csv``, ``curves.csv``, ``scores.csv`` and, where there is something to compare, of ``aggregate.csv`` and
    ``improvement.csv``."""
    runs, curves, scores = [], [], []
    for cell in results.cells:
        runs += [_run_row(cell), *(_run_row(replace(cell, record=old, reason=""), True) for old in cell.superseded)]
        curve = cell.record.get("curve") if cell.record and not cell.reason else None
        columns = [curve[key] for key in ("timesteps", "seconds", "mean", "std")] if curve else []
        for row in zip(*columns, strict=True):
            named = zip(("updates", "seconds", "score", "std_of_episodes"), row, strict=True)
            curves.append({"algorithm": cell.name, "dataset": cell.dataset, "seed": cell.seed, **dict(named)})
    for name, dataset in itertools.product(results.algorithms, results.datasets):
        for which in ("final", "last", "best"):
            values = results.scores(name, dataset, which)
            if len(values):
                place = {"algorithm": name, "dataset": dataset, "score": which, "seeds": len(values)}
                scores.append(place | {"mean": float(values.mean()), "std": spread(values)})
    return {"runs": runs, "curves": curves, "scores": scores, **_aggregates(results)}


def _aggregates(results: Results) -> dict[str, list[dict[str, Any]]]:
    names, common = results.compared
    if not common:
        return {}
    strata = {name: results.strata(name) for name in names}
    aggregate, pairs = [], []
    for name in names:
        low, high = interval("interquartile_mean", strata[name]) or (None, None)
        runs = sum(map(len, strata[name].values()))
        row = {"algorithm": name, "iqm": interquartile_mean(strata[name]), "low": low, "high": high}
        ends = [record for dataset in common for record in results.records(name, dataset)]
        row |= {"wobble": _average(map(wobble, ends)), "best_above_final": _average(map(_lost, ends))}
        row["minutes_cpu"] = _average(None if (s := r["seconds"].get("cpu")) is None else s / 60 for r in ends)
        aggregate.append({**row, "runs": runs, "datasets": len(common)})
    for ours, theirs in itertools.permutations(names, 2):
        low, high = interval("improvement", strata[ours], strata[theirs]) or (None, None)
        p = improvement(strata[ours], strata[theirs])
        pairs.append({"algorithm": ours, "over": theirs, "probability": p, "low": low, "high": high})
    return {"aggregate": aggregate, "improvement": pairs}


def _average(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None


def _lost(record: dict[str, Any]) -> float:
    return score(record["best"]) - final_score(record)


def _run_row(cell: Cell, superseded: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = {"algorithm": cell.name, "dataset": cell.dataset, "seed": cell.seed}
    row["settings"] = "superseded" if superseded else "earlier" if cell.outdated and not cell.reason else "the plan's"
    values = dict.fromkeys(("final", "last", "best", "best_at", "return", "updates", "updates_per_second"))
    minutes = dict.fromkeys(("total", "fit", "training", "evaluation", "cpu"))
    record = cell.record
    if record is not None and not cell.reason:
        values = {name: record.get(name) for name in values} | {
            "final": final_score(record),
            "last": score(record["last"]),
            "best": score(record["best"]),
            "best_at": record["best"]["gradient_steps"],
            "return": record["last"]["mean_reward"],
        }
        minutes = {name: None if (s := record["seconds"].get(name)) is None else s / 60 for name in minutes}
    spent = {f"minutes_{name}": value for name, value in minutes.items()}
    return {**row, **values, **spent, "key": record["key"] if record else "", "reason": cell.reason}


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
    return file.getvalue()


# ------------------------------------------------------------------ Markdown


def _markdown(plan: Plan, results: Results, found: list[Choice], claimed: list[dict[str, Any]], command: str) -> str:
    note = printable(plan.note).replace("<", "\\<")  # Markdown of the plan's author, but no HTML
    parts = [f"# {markdown(plan.title)}", _introduction(results), *([note] if note else [])]
    parts += [f"**{markdown(warning)}**" for warning in results.warnings()]
    parts += ["## Final scores", *_overview(results)]
    if results.compared[1]:
        parts += ["## Comparison", *_comparison(results)]
    parts += claims.section(claimed) + _choosing(found)
    for dataset in results.datasets:
        parts += [f"## {markdown(dataset)}", *_dataset(results, dataset)]
    parts += _superseded(results)
    sources = Published().sources
    by_source: dict[str, list[str]] = {}
    for algorithm in results.algorithms:
        if algorithm in sources:
            by_source.setdefault(sources[algorithm], []).append(_name(algorithm))
    shown = [f"- {', '.join(names)}: {source}." for source, names in by_source.items()]
    parts += ["## Published numbers", "Normalised scores on D4RL's v2 datasets, not on our data.", "\n".join(shown)]
    parts += ["## Again", f"Everything here is made from the records by\n\n{code_block(command, 'bash')}"]
    parts.append(
        "`runs.csv` has a row for each run, superseded ones too, `scores.csv` for each algorithm and dataset, `curves.csv` "
        "for each evaluation, `aggregate.csv` and `improvement.csv` hold the comparison over all datasets with its intervals, "
        "`choosing.csv` what a choice among runs is worth. `learning-NAME.png` has the learning curves of one algorithm."
    )
    return "\n\n".join(parts) + "\n"


def _introduction(results: Results) -> str:
    records = results.records()
    numbers = [record["last"]["n_eval_episodes"] for record in records]
    episodes = str(min(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"
    versions = _distinct(
        f"torch {record['versions']['torch']}, MuJoCo {record['versions'].get('mujoco')}" for record in records
    )
    hosts = _distinct(record["host"] for record in records)
    spent = sum(record["seconds"].get("cpu") or 0.0 for record in records) / 60
    time = f"{spent / 60:.1f} hours" if spent >= 60 else f"{_mean([spent])} minutes"
    earlier = sum(not record.get("final") for record in records)
    late = f"last {LATE} checkpoints" if earlier < len(records) else f"last {LATE} evaluations on the way"
    before = f" (of {earlier} earlier runs: of its last {LATE} evaluations on the way)" if 0 < earlier < len(records) else ""
    chose = " (except the evaluations on the way, which chose the best checkpoint)" if earlier else ""
    return (
        f"{len(records)} of {len(results.cells)} runs, {time} of processor time. Scores are normalised (0 random, "
        f"100 expert; in mazes 100 times the success rate). The **final score** of a run is the mean of its "
        f"{late}{before}, since a single one may be lucky; then mean ± sample standard deviation over seeds, where there "
        "are several. *Last* is the last checkpoint alone, *best* the one that scored best on the way. A checkpoint's score "
        f"is the mean of {episodes} episodes that had no part in choosing anything{chose}. "
        f"{_short_of_episodes(records)}Minutes are wall time of a run, fits of "
        "generative models and evaluations on the way included, on machines that may have been busy, as they are for "
        "updates/s; CPU minutes are processor time. "
        f"Made with {markdown(versions)}, on {markdown(hosts)}."
    )


def _short_of_episodes(records: Sequence[dict[str, Any]]) -> str:
    """Which runs had too few episodes for :data:`FINAL_ERROR`, by the spread of their evaluations on the way; a sentence."""
    most: dict[str, float] = {}
    for record in records:
        curve, scored = record.get("curve") or {}, record["last"].get("normalized_score") is not None
        if not curve.get("std") or not scored:
            continue
        on_the_way = record["config"]["evaluation"]["episodes"]
        needed = episodes_needed({"unit": "normalized_score"} | curve, on_the_way)
        if (record["last"]["n_eval_episodes"] if record.get("final") else on_the_way) < needed < math.inf:
            dataset = markdown(record["config"]["dataset"].removeprefix("genoffline/"))
            place = f"{_name(record['config']['name'])} on {dataset}"
            most[place] = max(needed, most.get(place, 0.0))
    if not most:
        return ""
    return (
        f"For a standard error of {FINAL_ERROR:g} points, some runs' final scores would need more episodes of each "
        f"checkpoint: {', '.join(f'{place} ({number:.0f})' for place, number in most.items())}. "
    )


def _distinct(values: Iterable[Any]) -> str:
    return " / ".join(map(str, dict.fromkeys(values)))


def _overview(results: Results) -> list[str]:
    rows, totals = [], len(results.datasets) > 1 and all(map(results.normalized, results.datasets))
    best = {
        d: max((results.scores(n, d).mean() for n in results.algorithms if results.records(n, d)), default=None)
        for d in results.datasets
    }
    for name in results.algorithms:
        values = {dataset: results.scores(name, dataset) for dataset in results.datasets}
        row = [_name(name)]
        for dataset, scores in values.items():
            text = _mean_std(scores) + (f" ({len(scores)})" if len(scores) else "")
            row.append(f"**{text}**" if len(scores) and scores.mean() == best[dataset] else text)
        if totals:
            row.append(f"{sum(scores.mean() for scores in values.values()):.1f}" if all(map(len, values.values())) else "–")
        rows.append(row)
    ivr = [_better_of(results, ("sql", "eql"), dataset) for dataset in results.datasets]
    data = [_behavior(results, dataset) for dataset in results.datasets]
    if any(mean is not None for mean in ivr):
        rows.append(_beside(_IVR, ivr, totals))
    rows.append(_beside("the data", data, totals))
    header = ["", *(markdown(dataset.removeprefix("genoffline/")) for dataset in results.datasets)]
    header += ["total"] if totals else []
    legend = "In brackets the number of seeds; bold is a dataset's highest mean."
    if any("–" in row for row in rows):
        legend += " Empty cells have their reasons below."
    if any(mean is not None for mean in ivr):
        legend += " *IVR* is the form with the higher mean on each dataset, chosen by these very scores, which flatters it."
    return [_table(header, rows), legend]


def _beside(label: str, means: Sequence[float | None], total: bool) -> list[str]:
    """The row of what is no algorithm of the benchmark, in italics."""
    cells = ["–" if mean is None else f"*{mean:.1f}*" for mean in means]
    known = [mean for mean in means if mean is not None]
    return [f"*{label}*", *cells, *([f"*{sum(known):.1f}*" if len(known) == len(means) else "–"] if total else [])]


def _better_of(results: Results, names: Sequence[str], dataset: str) -> float | None:
    """The higher mean; None unless all have results. The papers' tables print IVR so, of its two forms."""
    if not all(name in results.algorithms and results.records(name, dataset) for name in names):
        return None
    return max(float(results.scores(name, dataset).mean()) for name in names)


def _comparison(results: Results) -> list[str]:
    names, common = results.compared
    aggregates = _aggregates(results)
    rows = []
    for row in sorted(aggregates["aggregate"], key=lambda row: -row["iqm"]):
        bounds = "–" if row["low"] is None else f"{row['low']:.1f} to {row['high']:.1f}"
        ends = ["–" if row[name] is None else f"{row[name]:.1f}" for name in ("wobble", "best_above_final", "minutes_cpu")]
        rows.append([_name(row["algorithm"]), f"{row['iqm']:.1f}", bounds, *ends, str(row["runs"])])
    p = {(row["algorithm"], row["over"]): row["probability"] for row in aggregates["improvement"]}
    grid = [[_name(a), *("" if a == b else f"{100 * p[a, b]:.0f}" for b in names)] for a in names]
    single = [d for d in common if all(len(results.scores(name, d)) < 2 for name in names)]
    most = max(len(results.scores(name, d)) for name in names for d in common)
    others = [_name(name) for name in results.algorithms if name not in names]
    note = (
        f"Over {', '.join(map(markdown, common))}, where all algorithms{' but ' * bool(others)}{', '.join(others)} have "
        "results. Interquartile mean of all runs, each dataset with the same weight; 95% stratified bootstrap over seeds."
    )
    if most == 1:
        note += " With one seed there is no interval."
    elif most < _ENOUGH_SEEDS:
        note += (
            f" So few seeds make the intervals too narrow: with {most} they span at most the lowest to the highest score, "
            f"which contain the median with a probability of only {100 - 200 * 0.5**most:.0f}%."
        )
    if single and most > 1:
        adds = "adds" if len(single) == 1 else "add"
        note += f" With one seed, {', '.join(map(markdown, single))} {adds} nothing to them."
    anywhere = ", on a dataset at random" if len(common) > 1 else ""
    return [
        note,
        _table(["", "interquartile mean", "95%", "wobble", "best − final", "CPU minutes", "runs"], rows),
        f"*Wobble* is how steady the end of a run is: the standard deviation of its last {LATE} checkpoints' scores, averaged "
        "over runs. *Best − final* is what stopping at the best checkpoint on the way would have gained.",
        "What a processor minute buys: evaluations on the way, averaged over the same datasets.",
        "![Score against processor time](minutes.png)",
        f"Probability (%) that a run of the row's algorithm scores higher than one of the column's{anywhere}:",
        _table(["", *map(_name, names)], grid),
        "![Comparison](aggregate.png)",
    ]


def _choosing(found: list[Choice]) -> list[str]:
    """What a choice among runs is worth for what it costs."""
    if not found:
        return []
    text = (
        "Runs of one algorithm differ by seed (and by earlier settings), and finding the best one costs evaluations. By "
        "Unifloral's protocol (arXiv 2504.11453) a bandit spends evaluations, one episode each, on the last checkpoints and "
        "takes the run that looks best. Below is the mean score of what it takes after as many evaluations; episodes are "
        "drawn from the records' with replacement. *Any algorithm* chooses among all runs on the dataset."
    )
    rows = []
    for choice in found:
        taken = [f"{choice.taken[:, pulls - 1].mean():.1f}" for pulls in PULLS]
        rows.append([markdown(choice.dataset), markdown(name_of(choice)), str(choice.policies), *taken, f"{choice.best:.1f}"])
    header = ["", "", "runs", *(f"{pulls} evaluation{'s' * (pulls > 1)}" for pulls in PULLS), "best run"]
    return ["## Choosing a run by evaluations", text, _table(header, rows), "![Choosing](choosing.png)"]


def _superseded(results: Results) -> list[str]:
    """What earlier settings gave, so that nothing that was tried is out of sight."""
    rows = []
    for cell in results.cells:
        for old in cell.superseded:
            counted, before = _settings(cell.record or old), _settings(old)
            changed = [name for name in {**before, **counted} if before.get(name) != counted.get(name)]
            if "n_timesteps" in changed:  # it moves the evaluations with it
                changed = [name for name in changed if name != "eval_freq"]
            what = ", ".join(f"{name} {before.get(name, 'not set')}, then {counted.get(name, 'not set')}" for name in changed)
            new = "–" if cell.record is None or cell.reason else f"{final_score(cell.record):.1f}"
            place = [_name(cell.name), markdown(cell.dataset), str(cell.seed)]
            rows.append([*place, f"{final_score(old):.1f}", new, markdown(what)])
    if not rows:
        return []
    text = "Runs of this plan with settings that were changed after their result was seen. They count nowhere above."
    return ["## Superseded runs", text, _table(["", "dataset", "seed", "final score", "counted", "changed"], rows)]


_EVALUATION = {"freq": "eval_freq", "episodes": "eval_episodes"}
"""Flags of ``python -m zoo train`` for what a record names shorter."""


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    """What a plan may change between two runs of a cell: hyper-parameters, evaluation, device and environment."""
    config = record["config"]
    evaluation = {_EVALUATION.get(name, name): value for name, value in config["evaluation"].items()}
    around = {name: config.get(name) for name in ("algo", "device", "env")}
    return config["hyperparameters"] | {name: value for name, value in {**evaluation, **around}.items() if value is not None}


def _dataset(results: Results, dataset: str) -> list[str]:
    data = results.data(dataset)
    published = Published()
    quoted = any(published.score(name, dataset) is not None for name in results.algorithms)
    header = ["", "final score", "each seed", "last", "best", *(["published, D4RL v2"] if quoted else [])]
    header += ["updates", "updates/s", "minutes", "CPU minutes"]
    rows = []
    for name in results.algorithms:
        cells = results.at(name, dataset)
        if not cells:
            continue
        records = results.records(name, dataset)
        seeds = [
            f"{final_score(c.record):.1f}{'†' * c.outdated}" if c.record and not c.reason else _reason(c.reason) for c in cells
        ]
        row = [
            _name(name),
            _mean_std(results.scores(name, dataset)),
            ", ".join(dict.fromkeys(seeds) if not records else seeds),
        ]
        row += [_mean_std(results.scores(name, dataset, which)) for which in ("last", "best")]
        if quoted:
            found = published.score(name, dataset)
            row.append("–" if found is None else f"*{found:.1f}*")
        row.append(_distinct(f"{record['updates']:,}" for record in records))
        row.append(_mean(record["updates_per_second"] for record in records))
        row.append(_mean(record["seconds"]["total"] / 60 for record in records))
        row.append(_mean(s / 60 for record in records if (s := record["seconds"].get("cpu")) is not None))
        rows.append(row)
    if data is None:
        reasons = {cell.reason for cell in results.cells if cell.dataset == dataset}
        return [f"No result: {_reason(*reasons)}."] if len(reasons) == 1 else ["No result.", _table(header, rows)]
    level = _behavior(results, dataset)
    text = f"{data['n_transitions']:,} transitions in {data['n_episodes']:,} episodes, mean return {data['mean_return']:.1f}"
    text += "" if level is None else f": **score of the data {level:.1f}**"
    rows.append(["*the data*", "–" if level is None else f"*{level:.1f}*", *[""] * (len(header) - 2)])
    return [
        f"{text}. Fingerprint {code(data['fingerprint'][:12])}.",
        _table(header, rows),
        f"![{markdown(dataset)}]({quote(dataset_name(dataset))}.png)",
    ]


def _behavior(results: Results, dataset: str) -> float | None:
    data = results.data(dataset)
    return None if data is None else data["normalized_score"]


def _mean_std(values: np.ndarray) -> str:
    deviation = spread(values)
    return "–" if len(values) == 0 else f"{values.mean():.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")


def _mean(values: Iterable[float]) -> str:
    found = list(values)
    if not found:
        return "–"
    mean = float(np.mean(found))
    return f"{mean:,.0f}" if mean >= 10 else f"{mean:.1f}"


def _reason(text: str) -> str:
    text = " ".join(text.split())
    return f"*{markdown(text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + '…')}*"


def _name(algorithm: str) -> str:
    return markdown(title(algorithm))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
