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


def comparison(found: dict[str, dict[str, Any]]) -> str:
    """
    :param found: Environment to its `replay_comparison.json`
    :return: The ladder beside the replay buffer of the training that it stands for
    """
    lines = [
        "## SAC's ladder beside the replay buffer",
        "",
        "`python -m zoo.behavior.replay_comparison`; of each pair the buffer comes first. The distance, in standard "
        "deviations of the columns, is the median from a state of one half of the buffer to the nearest of the other half, "
        "and of the ladder.",
        "",
        "| environment | return | spread of each action | beyond ±0.9 | distance of the buffer's states |",
        "|---|---|---|---|---|",
    ]
    for name, each in found.items():
        both = (each["real_buffer"], each["ladder"])
        distances = each["distance_of_states_quantiles_10_50_90"]
        cells = [
            ", ".join(f"{of['return_mean']:.0f} ± {of['return_std']:.0f}" for of in both),
            "; ".join(" ".join(f"{std:.2f}" for std in of["action_std"]) for of in both),
            ", ".join(f"{100 * of['share_of_action_components_beyond_0.9']:.0f}%" for of in both),
            ", ".join(f"{distances[of][1]:.2f}" for of in ("real_to_other_real", "real_to_ladder")),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tables() -> str:
    """The tables of all environments."""
    paths = [*sorted(HERE.glob("*/index.json")), *sorted(HERE.glob("*/sac/index.json"))]
    indices = [json.loads(path.read_text()) for path in paths]
    compared = {path.parts[-3]: json.loads(path.read_text()) for path in sorted(HERE.glob("*/sac/replay_comparison.json"))}
    return "\n\n".join([comparison(compared), *(table(index) for index in indices)]) + "\n"


if __name__ == "__main__":
    readme = HERE / "README.md"
    write_text(readme, readme.read_text().split(MARK)[0] + MARK + "\n" + tables())
