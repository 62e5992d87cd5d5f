"""What the site shows, read from the files of a checkout: records, agents, inspections, pages. Nothing is computed here."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sb3_genoffline.errors import NotFoundError

from ..benchmark.plan import Plan, read_plan
from ..benchmark.records import read_cells
from ..benchmark.report import tables
from ..benchmark.results import Results
from ..publish.index import Entry, find_entries, read_bc
from ..runs.reading import check_parts, read_json, read_yaml
from .pages import Section, read_section

_INSPECTION: dict[str, Any] = {
    **{"id": str | None, "fingerprint": str, "n_transitions": int, "n_episodes": int, "env_id": str | None},
    "observations": {"mean": list[float]},
    "actions": {"mean": list[float], "any_saturated": float},
    "episodes": {
        **dict.fromkeys(("terminated", "truncated", "both", "cut"), int),
        **{"lengths": tuple[int, float, int], "step_limit": int | None},
    },
    "returns": {
        **{"mean": float, "std": float, "quartiles": tuple[float, float, float, float, float]},
        **{"success_rate": float | None, "score_mean": float | None},
    },
    "rewards": {"low": float, "high": float, "mean": float},
    "findings": list,
}
_FINDING = {"name": str, "text": str}
"""What the site reads of an inspection: a part that is not named here may be anything."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """
    A plan and what its runs reached.

    :param name: of the plan's file, without its ending
    :param plan: the plan
    :param results: of its records
    """

    name: str
    plan: Plan
    results: Results

    @property
    def n_runs(self) -> int:
        """Runs with a result, superseded ones left out."""
        return len(self.results.records())

    @cached_property
    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of the report's CSV files, by name."""
        return tables(self.results)


@dataclass(frozen=True, eq=False)
class Inspection:
    """
    What ``python -m zoo inspect`` found in a dataset.

    :param report: the JSON that it wrote
    :param picture: beside it, if there is one
    """

    report: dict[str, Any]
    picture: Path | None


@dataclass(frozen=True, eq=False)
class Contents:
    """
    :param benchmarks: by name
    :param agents: with their ``results.json``, by dataset
    :param bc: what behaviour cloning reached, by the dataset's fingerprint
    :param inspections: by dataset
    :param sections: of pages, by the site's page that quotes them
    :param missing: what was looked for and is not there, in words
    """

    benchmarks: list[Benchmark] = field(default_factory=list)
    agents: list[Entry] = field(default_factory=list)
    bc: dict[str, dict[str, Any]] = field(default_factory=dict)
    inspections: dict[str, Inspection] = field(default_factory=dict)
    sections: dict[str, list[Section]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def datasets(self) -> list[str]:
        """Every dataset that something is known of: those of the benchmarks first."""
        benchmarked = [dataset for benchmark in self.benchmarks for dataset in benchmark.plan.datasets]
        return list(
            dict.fromkeys([*benchmarked, *self.inspections, *(str(entry.results["dataset"]) for entry in self.agents)])
        )


def read_contents(benchmarks: str | Path, agents: str | Path, datasets: str | Path, pages: str | Path) -> Contents:
    """
    :param benchmarks: folder of plans, each beside a folder of its name with ``records``
    :param agents: folder with an agent per folder
    :param datasets: folder of inspections
    :param pages: root of the checkout
    :raises NotFoundError: if none of them holds anything
    :raises UserError: for a file that is not what it should be
    """
    fullest_first = sorted(_benchmarks(Path(benchmarks)), key=lambda benchmark: -benchmark.n_runs)
    found = Contents(
        benchmarks=fullest_first,
        agents=find_entries(agents),
        bc=read_bc(agents),
        inspections=dict(_inspections(Path(datasets))),
    )
    for part, folder in (("benchmarks", benchmarks), ("agents", agents), ("inspections", datasets)):
        if not getattr(found, part):
            found.missing.append(f"there are no {part} in {folder}")
    if len(found.missing) == 3:
        raise NotFoundError(
            f"There is nothing to show: {'; '.join(found.missing)}. Run it in a checkout, or name its folders (--help)."
        )
    for name, places in read_yaml(Path(__file__).parent / "sections.yml", "list of sections").items():
        sections = [(place, read_section(Path(pages), **place)) for place in places]
        found.sections[name] = [section for _, section in sections if section is not None]
        found.missing.extend(
            f"{Path(pages) / place['page']} has no section {place['heading']!r}" for place, section in sections if not section
        )
    return found


def _benchmarks(folder: Path) -> Iterator[Benchmark]:
    for path in sorted(folder.glob("*.yml")):
        records = path.with_suffix("") / "records"
        if records.is_dir():
            plan = read_plan(path)
            yield Benchmark(path.stem, plan, Results(plan.algorithms, plan.datasets, read_cells(plan, records)))


def _inspections(folder: Path) -> Iterator[tuple[str, Inspection]]:
    for path in sorted(folder.glob("*.json")):
        report, where = read_json(path, "inspection of a dataset"), f"{path} is not an inspection of a dataset: its"
        check_parts(report, _INSPECTION, where)
        for number, finding in enumerate(report["findings"], start=1):
            check_parts({"findings": finding}, {"findings": _FINDING}, f"{where} entry {number} of")
        picture = path.with_suffix(".png")
        yield report["id"] or path.stem, Inspection(report, picture if is_plain_file(picture) else None)


def is_plain_file(path: Path) -> bool:
    """Whether a file is there, and is none that lies elsewhere: links of others would bring any file of ours to the site."""
    return path.is_file() and not path.is_symlink()
