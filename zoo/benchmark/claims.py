"""What papers claim of their parts, held against runs with and without them."""

from typing import Any

from sb3_genoffline.files.escaping import markdown

from .plan import Claim
from .results import Results, spread, title
from .statistics import improvement


def rows_of(claims: list[Claim], results: Results) -> list[dict[str, Any]]:
    """
    :param claims: of the plan
    :param results: of its runs
    :return: rows of ``claims.csv``: one for each claim and dataset on which both settings have results
    """
    rows = []
    for claim in claims:
        for dataset in results.datasets:
            ours, plain = (results.scores(name, dataset) for name in (claim.ours, claim.plain))
            if not len(ours) or not len(plain):
                continue
            row: dict[str, Any] = {"claim": claim.text, "dataset": dataset}
            for which, name, scores in (("with", claim.ours, ours), ("without", claim.plain, plain)):
                row |= {which: name, f"mean_{which}": float(scores.mean()), f"std_{which}": spread(scores)}
                row[f"seeds_{which}"] = len(scores)
            row["difference"] = float(ours.mean() - plain.mean())
            row["probability"] = improvement({dataset: ours}, {dataset: plain})
            rows.append(row)
    return rows


def section(rows: list[dict[str, Any]]) -> list[str]:
    """
    :param rows: of :func:`rows_of`
    :return: paragraphs of the report; none without rows
    """
    if not rows:
        return []
    lines = [
        "| claim | dataset | with | without | difference | P(with > without) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        names = f"{markdown(row['claim'])} ({markdown(title(row['with']))} against {markdown(title(row['without']))})"
        sides = [_side(row, which) for which in ("with", "without")]
        place = markdown(row["dataset"].removeprefix("genoffline/"))
        numbers = [f"{row['difference']:+.1f}", f"{100 * row['probability']:.0f}%"]
        lines.append(f"| {' | '.join([names, place, *sides, *numbers])} |")
    text = (
        "What the papers say that a part of theirs is worth, tested by leaving it out. All else is equal: data, seeds, "
        "budget, settings. The probability is that of a run with the part over a run without it."
    )
    return ["## Claims", text, "\n".join(lines)]


def _side(row: dict[str, Any], which: str) -> str:
    deviation = row[f"std_{which}"]
    return f"{row[f'mean_{which}']:.1f}{'' if deviation is None else f' ± {deviation:.1f}'} ({row[f'seeds_{which}']})"
