"""What the templates show: tables of cells with keys to sort by, and facts, from the contents."""

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sb3_genoffline.files.escaping import python_string
from sb3_genoffline.program import PROGRAM

from ..benchmark.results import Published, Results, spread, title
from ..publish.index import TO_ACT, Entry, over_seeds, with_interval
from ..runs.folders import dataset_name
from .contents import Benchmark, Contents, Inspection

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """
    :param text: shown
    :param key: to sort by, a number or words; None sorts last
    :param note: below the text, small
    :param strength: 0 to 1, of the colour behind it
    :param best: of its column
    :param to: (kind, name) of the site's page that it leads to
    """

    text: str
    key: float | str | None = None
    note: str = ""
    strength: float | None = None
    best: bool = False
    to: tuple[str, str] | None = None


@dataclass(frozen=True)
class Row:
    """
    :param cells: one per column, the first its heading
    :param facets: what the row can be filtered by
    """

    cells: list[Cell]
    facets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """
    :param caption: what it shows
    :param columns: headings
    :param rows: the rows
    :param foot: a row that stays at the end, if there is one
    :param words: columns of words; the others are of numbers
    :param sorted_by: the column that the rows are sorted by, falling
    :param choosable: columns that can be hidden
    """

    caption: str
    columns: list[str]
    rows: list[Row]
    foot: Row | None = None
    words: frozenset[int] = frozenset({0})
    sorted_by: int | None = None
    choosable: range = range(0)

    @property
    def facets(self) -> dict[str, list[str]]:
        """What rows can be filtered by, with its values in the order of the rows."""
        names = self.rows[0].facets if self.rows else {}
        return {name: list(dict.fromkeys(row.facets[name] for row in self.rows)) for name in names}


def leaderboard(benchmark: Benchmark) -> Table:
    """Algorithms by datasets: the mean of the final scores, or why there is none."""
    results = benchmark.results
    iqm = {row["algorithm"]: row["iqm"] for row in benchmark.tables.get("aggregate", [])}
    scores = {(row["algorithm"], row["dataset"]): row for row in benchmark.tables["scores"] if row["score"] == "final"}
    best = {d: max((row["mean"] for (_, of), row in scores.items() if of == d), default=None) for d in results.datasets}
    rows = []
    for name in results.algorithms:
        minutes = _minutes(results, name)
        cells = [_name(name)]
        if iqm:
            value = iqm.get(name)
            cells.append(_number(value, strength=_strength(value), best=value is not None and value == max(iqm.values())))
        for dataset in results.datasets:
            row = scores.get((name, dataset))
            if row is None:
                cells.append(Cell(NOTHING, note=_reasons(results, name, dataset)))
                continue
            seeds = f"{row['seeds']} seed{'s' if row['seeds'] > 1 else ''}"
            note = seeds if row["std"] is None else f"± {row['std']:.1f}, {seeds}"
            note += " †" if any(cell.outdated and not cell.reason for cell in results.at(name, dataset)) else ""
            strength = _strength(row["mean"]) if results.normalized(dataset) else None
            cells.append(_number(row["mean"], note, strength, best=row["mean"] == best[dataset]))
        rows.append(Row([*cells, _number(minutes)]))
    data = [_number(_behavior(results, dataset)) for dataset in results.datasets]
    first = 2 if iqm else 1
    return Table(
        f"{benchmark.plan.title}: final scores",
        ["algorithm", *(["interquartile mean"] if iqm else []), *results.datasets, "CPU minutes a run"],
        _falling(rows) if iqm else rows,
        Row([Cell("the data"), *([Cell("")] if iqm else []), *data, Cell("")]),
        sorted_by=1 if iqm else None,
        choosable=range(first, first + len(results.datasets)),
    )


def all_runs(benchmark: Benchmark) -> Table:
    """A row for each run, superseded ones too."""
    rows = []
    for row in benchmark.tables["runs"]:
        numbers = [_number(row[name]) for name in ("final", "last", "best", "return")]
        counts = [_count(row[name]) for name in ("updates", "updates_per_second")]
        dataset = row["dataset"]
        settings = "no result" if row["reason"] else row["settings"]
        cells = [
            _name(row["algorithm"]),
            Cell(dataset.removeprefix("genoffline/"), dataset, to=("datasets", dataset)),
            Cell(str(row["seed"]), row["seed"]),
            Cell(settings, settings, note=row["reason"]),
            *numbers,
            *counts,
            _number(row["minutes_total"]),
            _number(row["minutes_cpu"]),
        ]
        rows.append(Row(cells, {"algorithm": title(row["algorithm"]), "dataset": dataset, "settings": settings}))
    head = ["algorithm", "dataset", "seed", "settings", "final", "last", "best", "return", "updates", "updates/s"]
    return Table(f"All runs of {benchmark.plan.title}", [*head, "minutes", "CPU minutes"], rows, words=frozenset({0, 1, 3}))


def improvements(benchmark: Benchmark) -> Table | None:
    """How probable it is that a run of the row's algorithm is better than one of the column's."""
    pairs = {(row["algorithm"], row["over"]): row["probability"] for row in benchmark.tables.get("improvement", [])}
    names = [row["algorithm"] for row in sorted(benchmark.tables.get("aggregate", []), key=lambda row: -row["iqm"])]
    if not pairs:
        return None
    rows = [
        Row([_name(a), *(Cell("") if a == b else _number(100 * pairs[a, b], strength=pairs[a, b], digits=0) for b in names)])
        for a in names
    ]
    return Table(
        "Probability (%) that a run of the row's algorithm scores higher than one of the column's",
        ["", *map(title, names)],
        rows,
    )


def speeds(benchmark: Benchmark) -> Table:
    """Updates per second and minutes of each algorithm's runs, from the records."""
    rows = []
    for name in benchmark.results.algorithms:
        runs = [row for row in benchmark.tables["runs"] if row["algorithm"] == name and not row["reason"]]
        if not runs:
            continue
        means = [_mean(row[column] for row in runs) for column in ("updates_per_second", "minutes_fit", "minutes_training")]
        rest = [_mean(row[column] for row in runs) for column in ("minutes_evaluation", "minutes_total", "minutes_cpu")]
        rows.append(Row([_name(name), _count(means[0]), *map(_number, [*means[1:], *rest]), Cell(str(len(runs)), len(runs))]))
    columns = ["algorithm", "updates/s", "minutes of fits", "of training", "of evaluations", "in all", "CPU minutes", "runs"]
    return Table(f"{benchmark.plan.title}: means over runs", columns, _falling(rows), sorted_by=1)


def on_dataset(benchmark: Benchmark, dataset: str) -> Table:
    """What every algorithm reached on a dataset, beside what its paper says of D4RL's."""
    results, published = benchmark.results, Published()
    rows = []
    for name in results.algorithms:
        if not results.at(name, dataset):
            continue
        values = [results.scores(name, dataset, which) for which in ("final", "last", "best")]
        cells = [_mean_and_spread(value) for value in values]
        if not len(values[0]):
            cells[0] = Cell(NOTHING, note=_reasons(results, name, dataset))
        cells.append(_number(published.score(name, dataset)))
        rows.append(Row([_name(name), *cells, _number(_minutes(results, name, dataset))]))
    columns = ["algorithm", "final score", "last", "best", "published, D4RL v2", "CPU minutes a run"]
    return Table(f"{benchmark.plan.title}: {dataset}", columns, _falling(rows), sorted_by=1)


def curve_points(benchmark: Benchmark, dataset: str) -> Table:
    """What the learning curves are drawn through."""
    results, rows = benchmark.results, []
    for name in results.algorithms:
        curve = results.curve(name, dataset)
        if curve is None:
            continue
        for i in range(len(curve.timesteps)):
            updates, minutes = int(curve.timesteps[i]), float(curve.seconds[i]) / 60
            deviation = "" if curve.std is None else f"± {curve.std[i]:.1f}"
            rows.append(Row([_name(name), _count(updates), _number(minutes), _number(float(curve.mean[i]), deviation)]))
    return Table("Points of the curves", ["algorithm", "updates", "minutes", "score"], rows)


def dataset_facts(contents: Contents, dataset: str) -> dict[str, str]:
    """What is known of a dataset, in words."""
    found = contents.inspections.get(dataset)
    if found is not None:
        return _inspected_facts(found)
    for benchmark in contents.benchmarks:
        data = benchmark.results.data(dataset)
        if data is not None:
            return _recorded_facts(data, data["fingerprint"])
    for entry in contents.agents:
        if entry.results["dataset"] == dataset and entry.results.get("data"):
            return _recorded_facts(entry.results["data"], entry.results["dataset_fingerprint"])
    return {}


def _inspected_facts(found: Inspection) -> dict[str, str]:
    report = found.report
    episodes, returns, rewards, actions = (report[part] for part in ("episodes", "returns", "rewards", "actions"))
    shortest, median, longest = episodes["lengths"]
    low, *_, high = returns["quartiles"]
    facts = {
        "size": f"{report['n_transitions']:,} transitions in {report['n_episodes']:,} episodes",
        "environment": report["env_id"] or "not known",
        "observations": f"{len(report['observations']['mean'])} numbers",
        "actions": f"{len(actions['mean'])} numbers; {_percent(actions['any_saturated'])} of the rows have one at a bound",
        "episodes": f"{shortest:,} to {longest:,} steps, median {median:,.0f}",
        "ends": f"{episodes['terminated']:,} terminated, {episodes['truncated']:,} truncated",
        "returns": f"{returns['mean']:.1f} ± {returns['std']:.1f}, from {low:.1f} to {high:.1f}",
        "rewards": f"{rewards['low']:.4g} to {rewards['high']:.4g}, mean {rewards['mean']:.4g}",
        "fingerprint": report["fingerprint"][:12],
    }
    if returns["success_rate"] is not None:
        facts["reach the goal"] = _percent(returns["success_rate"])
    elif returns["score_mean"] is not None:
        facts["normalised score"] = f"{returns['score_mean']:.1f}"
    return facts


def _recorded_facts(data: Mapping[str, Any], fingerprint: str) -> dict[str, str]:
    sizes = [data.get("n_transitions"), data.get("n_episodes")]
    facts = {"returns": f"mean {data['mean_return']:.1f}", "fingerprint": fingerprint[:12]}
    if all(isinstance(size, int) for size in sizes):
        facts = {"size": f"{sizes[0]:,} transitions in {sizes[1]:,} episodes"} | facts
    if isinstance(data.get("normalized_score"), float):
        facts["score of the data"] = f"{data['normalized_score']:.1f}"
    return facts


def other_data(contents: Contents, benchmark: Benchmark, dataset: str) -> bool:
    """Whether the benchmark's data of this name are not those that were inspected."""
    found, data = contents.inspections.get(dataset), benchmark.results.data(dataset)
    return found is not None and data is not None and data["fingerprint"] != found.report["fingerprint"]


def agent_facts(contents: Contents, entry: Entry) -> dict[str, str]:
    """What an agent reached, beside what it is compared with."""
    results, bc = entry.results, contents.bc.get(entry.results["dataset_fingerprint"])
    best, seeds, data = results.get("best"), results.get("seeds"), results.get("data") or {}
    level = data.get("mean_return") if results["normalized_score"] is None else results["behavior_normalized_score"]
    facts = {f"{results['checkpoint']} checkpoint": with_interval(results)}
    if best:
        facts["best checkpoint, chosen by its score"] = with_interval(best)
    if seeds:
        facts["last checkpoints of all seeds"] = over_seeds(seeds["mean"], seeds["std"], seeds["n"])
    if level is not None:
        facts["mean of the data"] = f"{level:.1f}"
    if bc is not None:
        facts["behaviour cloning on the same data"] = over_seeds(bc["mean"], bc["std"], len(bc["seeds"]))
    facts |= {
        "training": f"{results['gradient_steps']:,} updates, seed {results['seed']}",
        "protocol": f"{results['n_eval_episodes']} episodes from seed {results['eval_seed']}",
        "size": f"{entry.size(*TO_ACT) / 1024:,.0f} KB to act, {entry.size() / 1024:,.0f} KB in all",
    }
    return facts


def inspect_command(dataset: str) -> str:
    """The command whose files the site shows of a dataset."""
    file = f"zoo/figures/datasets/{dataset_name(dataset)}"
    return shlex.join([*PROGRAM.split(), "inspect", dataset, "--json", f"{file}.json", "-o", f"{file}.png"])


def agent_snippet(entry: Entry) -> str:
    """Python that loads it."""
    place = python_string(f"{entry.folder.parent.resolve().name}/{entry.name}")
    return f"from sb3_genoffline import load_from_hub\n\nmodel = load_from_hub({place})"


def _falling(rows: list[Row]) -> list[Row]:
    """By the first column after the names; what is empty last."""
    return sorted(rows, key=lambda row: -math.inf if row.cells[1].key is None else float(row.cells[1].key), reverse=True)


def _name(algorithm: str) -> Cell:
    return Cell(title(algorithm), title(algorithm).lower())


def _number(value: float | None, note: str = "", strength: float | None = None, best: bool = False, digits: int = 1) -> Cell:
    return Cell(NOTHING) if value is None else Cell(f"{value:,.{digits}f}", float(value), note, strength, best)


def _count(value: float | None) -> Cell:
    return _number(value, digits=0 if value is None or value >= 10 else 1)


def _mean_and_spread(values: np.ndarray) -> Cell:
    if not len(values):
        return Cell(NOTHING)
    deviation = spread(values)
    return _number(float(values.mean()), "" if deviation is None else f"± {deviation:.1f}")


def _strength(value: float | None) -> float | None:
    return None if value is None else min(max(value / 100, 0.0), 1.0)


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None


def _minutes(results: Results, name: str, dataset: str | None = None) -> float | None:
    seconds = _mean(record["seconds"].get("cpu") for record in results.records(name, dataset))
    return None if seconds is None else seconds / 60


def _reasons(results: Results, name: str, dataset: str) -> str:
    return "; ".join(dict.fromkeys(cell.reason for cell in results.at(name, dataset))) or "not in the plan"


def _behavior(results: Results, dataset: str) -> float | None:
    data = results.data(dataset)
    return None if data is None else data["normalized_score"]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
