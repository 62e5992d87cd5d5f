"""The list of the agents in a folder, beside what behaviour cloning reaches on the same data."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from sb3_genoffline.errors import printable
from sb3_genoffline.files.escaping import code, code_block, markdown, python_string
from sb3_genoffline.program import PROGRAM

from ..benchmark.records import DONE, read_record
from ..benchmark.results import score, spread
from ..runs.reading import check_parts, read_json
from ..runs.writing import write_json, write_text
from .contents import only_training

BC_FILE = "bc.json"
_TITLE = "# Trained agents"
_Number, _Pair = float | None, tuple[float, float]
_RESULT = {"mean_reward": float, "mean_reward_ci95": _Pair, "normalized_score": _Number, "normalized_score_ci95": _Pair | None}
_PARTS: dict[str, Any] = {
    **_RESULT,
    **{"algo": str, "dataset": str, "checkpoint": str, "seed": int | None, "gradient_steps": int, "n_eval_episodes": int},
    **{"eval_seed": int, "behavior_normalized_score": _Number, "dataset_fingerprint": str},
}
_PARTS_OF_PARTS: dict[str, Any] = {
    "best": _RESULT,
    "seeds": {"n": int, "mean": float, "std": _Number},
    "data": {"mean_return": float},
}
_BC_PARTS = {"dataset": str, "mean": float, "std": _Number, "seeds": list[int]} | dict.fromkeys(
    ("updates", "n_eval_episodes", "eval_seed"), int
)
"""What the list reads: a part that is not named here may be anything."""
TO_ACT = ("manifest.json", "config.json", "model.safetensors")
_HEADER = [
    *("agent", "dataset", "last checkpoint", "data", "BC", "updates", "seed", "seeds", "best checkpoint"),
    *("KB to act", "KB in all"),
]


@dataclass(frozen=True)
class Entry:
    """
    An agent's folder.

    :param folder: the folder
    :param results: its ``results.json``
    """

    folder: Path
    results: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the folder, which is that of the repository."""
        return self.folder.name

    def size(self, *names: str) -> int:
        """Bytes of the files of these names; of all if none is named."""
        files = (file for file in self.folder.rglob("*") if file.is_file())
        return sum(file.stat().st_size for file in files if not names or file.name in names)


def find_entries(folder: str | Path) -> list[Entry]:
    """
    :param folder: with an agent per folder
    :return: those with results, by dataset and algorithm
    :raises UserError: if a folder has no readable results
    """
    entries = []
    for config in sorted(Path(folder).glob("*/config.json")):
        results = read_json(config.with_name("results.json"), "result of an evaluation")
        hints = _PARTS | {name: parts for name, parts in _PARTS_OF_PARTS.items() if results.get(name)}
        check_parts(results, hints, f"{config.parent} cannot be listed: its results.json's")
        entries.append(Entry(config.parent, results))
    return sorted(entries, key=lambda entry: (str(entry.results.get("dataset")), str(entry.results.get("algo")), entry.name))


def find_bc(log_folder: str | Path) -> dict[str, dict[str, Any]]:
    """
    What behaviour cloning reached according to the records of benchmarks.

    :param log_folder: folder with benchmarks anywhere below it
    :return: by the dataset's fingerprint
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(file for kind in ("jobs", "records") for file in Path(log_folder).rglob(f"{kind}/bc-*.json")):
        record = read_record(path)
        if record["config"]["name"] == "bc" and record["state"] == DONE and record.get("last"):
            found.setdefault(record["data"]["fingerprint"], []).append(record)
    return {fingerprint: _bc_entry(_newest_settings(records)) for fingerprint, records in found.items()}


def _newest_settings(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record per seed, all made with the settings that the newest has."""

    def settings(record: dict[str, Any]) -> dict[str, Any]:
        return {**record["config"], "seed": None}

    ordered = sorted(records, key=lambda record: record.get("ended") or "")
    seeds = {record["config"]["seed"]: record for record in ordered if settings(record) == settings(ordered[-1])}
    return [seeds[seed] for seed in sorted(seeds)]


def _bc_entry(records: list[dict[str, Any]]) -> dict[str, Any]:
    scores, last = np.array([score(record["last"]) for record in records]), records[0]["last"]
    return {
        "dataset": records[0]["config"]["dataset"],
        "unit": "return" if last["normalized_score"] is None else "normalized_score",
        "mean": float(scores.mean()),
        "std": spread(scores),
        "seeds": [record["config"]["seed"] for record in records],
        "updates": last["gradient_steps"],
        "n_eval_episodes": last["n_eval_episodes"],
        "eval_seed": last["eval_seed"],
    }


def is_index(path: Path) -> bool:
    """Whether a README is a list of agents, and nobody else's."""
    return path.is_file() and path.read_text(errors="replace").startswith(f"{_TITLE}\n")


def write_index(folder: str | Path, log_folder: str | Path | None = None) -> Path:
    """
    Write ``README.md`` from the folders, and renew ``bc.json``, what is known of behaviour cloning, from records.

    :param folder: with an agent per folder
    :param log_folder: folder with benchmarks anywhere below it (None: ``bc.json`` stays as it is)
    :return: the README
    """
    folder = Path(folder)
    entries = find_entries(folder)
    if log_folder is not None:
        wanted = {entry.results.get("dataset_fingerprint") for entry in entries}
        found = {name: bc for name, bc in find_bc(log_folder).items() if name in wanted}
        if found:
            known = read_bc(folder) | found
            write_json(folder / BC_FILE, dict(sorted(known.items(), key=lambda item: item[1]["dataset"])))
    write_text(folder / "README.md", index_text(entries, read_bc(folder)))
    return folder / "README.md"


def read_bc(folder: str | Path) -> dict[str, dict[str, Any]]:
    """What ``bc.json`` holds; empty if there is none."""
    path = Path(folder) / BC_FILE
    found = read_json(path, "list of what BC reached") if path.is_file() else {}
    check_parts(found, dict.fromkeys(found, _BC_PARTS), f"{path} is not a list of what BC reached: its")
    return found


def index_text(entries: Iterable[Entry], bc: dict[str, dict[str, Any]]) -> str:
    """
    :param entries: in their order
    :param bc: by the dataset's fingerprint
    :return: the README in Markdown
    """
    entries = list(entries)
    parts = [_TITLE]
    if not entries:
        return "\n\n".join([*parts, f"None is here yet: `{PROGRAM} publish --help`."]) + "\n"
    example = python_string(f"hub_models/{entries[0].name}")
    parts += [
        "One folder each, in exactly the layout that is uploaded to the Hugging Face Hub. From a checkout:",
        code_block(f"from sb3_genoffline import load_from_hub\n\nmodel = load_from_hub({example})", "python"),
        _table(entries, bc),
        _reading(entries, bc),
        "## Commands",
    ]
    parts += [f"{code(entry.name)}\n\n{code_block(commands_of(entry), 'bash')}" for entry in entries]
    parts += ["## Again", f"This page is made from the folders by\n\n```bash\n{PROGRAM} publish --index\n```"]
    return "\n\n".join(parts) + "\n"


def commands_of(entry: Entry) -> str:
    """To collect the data, where they are ours, to train, and to measure."""
    results = entry.results
    dataset, data = str(results["dataset"]), results.get("data") or {}
    lines = only_training(results.get("command")) or ["# training: unknown"]
    if dataset.startswith("genoffline/") and "n_transitions" in data:
        lines.insert(0, _command("collect", dataset, "--steps", data["n_transitions"]))
    protocol = "-n", results["n_eval_episodes"], "--seed", results["eval_seed"]
    return "\n".join([*lines, _command("evaluate", "--algo", results["algo"], "--dataset", dataset, *protocol)])


def _command(*words: Any) -> str:
    return shlex.join([*PROGRAM.split(), *map(printable, words)])


def _table(entries: list[Entry], bc: dict[str, dict[str, Any]]) -> str:
    rows = [_row(entry, bc.get(entry.results.get("dataset_fingerprint") or "")) for entry in entries]
    aligned = [":--", ":--", *["--:"] * (len(_HEADER) - 2)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [_HEADER, aligned, *rows])


def _row(entry: Entry, bc: dict[str, Any] | None) -> list[str]:
    results = entry.results
    data, seeds = results.get("data") or {}, results.get("seeds")
    size = f" ({data['n_transitions']:,})" if "n_transitions" in data else ""
    last, best = (results, results.get("best")) if results["checkpoint"] == "last" else (None, results)
    return [
        f"[{markdown(entry.name)}]({quote(entry.name)})",
        markdown(f"{results['dataset']}{size}"),
        "" if last is None else with_interval(last),
        _number(data.get("mean_return") if results["normalized_score"] is None else results["behavior_normalized_score"]),
        "" if bc is None else over_seeds(bc["mean"], bc["std"], len(bc["seeds"])),
        f"{results['gradient_steps']:,}",
        markdown(results["seed"]),
        "" if seeds is None else over_seeds(seeds["mean"], seeds["std"], seeds["n"]),
        "" if best is None else with_interval(best),
        f"{entry.size(*TO_ACT) / 1024:,.0f}",
        f"{entry.size() / 1024:,.0f}",
    ]


def _reading(entries: list[Entry], bc: dict[str, dict[str, Any]]) -> str:
    results = [entry.results for entry in entries]
    protocols = sorted({(result["n_eval_episodes"], result["eval_seed"]) for result in results})
    episodes = markdown("; ".join(f"{number} episodes from seed {seed}" for number, seed in protocols))
    lines = [
        "Scores are 100 · (return − reference minimum) / (reference maximum − minimum), in mazes the percentage of episodes "
        f"that reach the goal, with a 95% bootstrap interval over the episodes ({episodes}). *Data* is the mean of the "
        "dataset's episodes; *seed* that of the agent; *seeds* the mean ± standard deviation of the last checkpoints "
        "of trainings that differ in the seed only. *Best* is the checkpoint with the highest return while training: it was "
        "chosen by its score, so compare the last ones."
    ]
    if any(result["normalized_score"] is None for result in results):
        lines.append("Where the reference returns of a dataset are not known, the numbers are returns.")
    used = {result["dataset_fingerprint"]: result["dataset"] for result in results}
    budgets = sorted(
        {(bc[name]["n_eval_episodes"], bc[name]["eval_seed"], bc[name]["updates"]) for name in used if name in bc}
    )
    if budgets:
        how = markdown(
            "; ".join(f"{updates:,} updates, {number} episodes from seed {seed}" for number, seed, updates in budgets)
        )
        lines.append(
            f"*BC* is behaviour cloning in the benchmark on the same data, last checkpoint, mean ± std over seeds ({how})."
        )
    sizes = {result["dataset_fingerprint"]: (result.get("data") or {}).get("n_transitions") for result in results}
    missing = sorted(
        markdown(dataset) + (f" ({sizes[name]:,})" if sizes[name] else "") for name, dataset in used.items() if name not in bc
    )
    if missing:
        lines.append(f"There is no finished run of BC in the benchmark's records on: {', '.join(missing)}.")
    return "\n\n".join(lines)


def with_interval(result: Mapping[str, Any]) -> str:
    """A result's score and its 95% interval; the return where the scale is not known."""
    known = result["normalized_score"] is not None
    bounds = result["normalized_score_ci95" if known else "mean_reward_ci95"]
    return f"{score(result):.1f}" + ("" if bounds is None else f" [{bounds[0]:.1f}, {bounds[1]:.1f}]")


def over_seeds(mean: float, std: float | None, n: int) -> str:
    """A mean ± standard deviation, and of how many seeds."""
    return f"{mean:.1f} (1 seed)" if std is None else f"{mean:.1f} ± {std:.1f} ({n})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
