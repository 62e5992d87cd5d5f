"""
The scores of the behaviour policies as Markdown, from their `index.json` files.

`python -m zoo.behavior.tables` writes them into `zoo/behavior/README.md`, below the line that says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..runs.writing import write_text

HERE = Path(__file__).parent
MARK = "<!-- python -m zoo.behavior.tables writes what follows -->\n"
NAMES = {"deterministic": "no noise", "stochastic": "own noise"}


def table(index: dict[str, Any]) -> str:
    """
    :param index: What `index.json` of one environment holds
    :return: One row per policy: training steps, role, return and, in brackets, normalised score for each amount of noise
    """
    kinds = index["scored"]["columns"][1:]
    noises = next(rung for rung in index["rungs"] if all(kind in rung for kind in kinds))
    heads = [NAMES.get(kind) or str(noises[kind]["noise"]) for kind in kinds]
    lines = [
        f"## {index['env_id']}, {index['algorithm']}, seed {index['seed']}",
        "",
        *(f"`{made['command']}`" for made in (index, index.get("expert")) if made),
        "",
        f"| steps | role | {' | '.join(heads)} |",
        "|---|---|" + "---|" * len(heads),
    ]
    for rung in index["rungs"]:
        cells = [f"{s['mean']:.0f} ± {s['std']:.0f} ({s['normalized']:.0f})" for s in (rung[kind] for kind in kinds)]
        maker = rung["file"].partition("_")[0].upper()
        of = "" if maker in index["algorithm"] else f" of {maker}"
        lines.append(f"| {rung['steps']:,}{of} | {rung['role']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tables() -> str:
    """The tables of all environments."""
    paths = [*sorted(HERE.glob("*/index.json")), *sorted(HERE.glob("*/sac/index.json"))]
    indices = [json.loads(path.read_text()) for path in paths]
    return "\n\n".join(table(index) for index in indices) + "\n"


if __name__ == "__main__":
    readme = HERE / "README.md"
    write_text(readme, readme.read_text().split(MARK)[0] + MARK + "\n" + tables())
