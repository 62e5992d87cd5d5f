"""Ids and results of others on a card: never a heading, a link, HTML, or a line of code."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_card import RESULTS

from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.hub.card import addressed_to
from sb3_genoffline.hub.publishing import write_agent_folder

EVIL = 'x"); import os\n# Owned\n<script>alert(1)</script> [here](https://evil.example) | ``` \x1b[2J'


@pytest.mark.parametrize(
    "where", ["dataset", "env_id", "baseline", "checkpoint", "protocol", "chosen_by", "command", "licence"]
)
def test_hostile_names_stay_text(agent: OfflineAlgorithm, tmp_path: Path, where: str) -> None:
    results: dict[str, Any] = RESULTS | ({where: EVIL} if where not in ("dataset", "chosen_by", "command", "licence") else {})
    if where == "chosen_by":
        results |= {"best": RESULTS["best"] | {"chosen_by": EVIL}}
    agent.dataset_info["id"] = EVIL if where == "dataset" else "tests/point-v0"
    options = {where: EVIL} if where in ("command", "licence") else {}
    folder = write_agent_folder(agent, tmp_path / "dac-point", repo_id="org/dac-point", results=results, **options)
    card = (folder / "README.md").read_text()
    assert "\x1b" not in card
    _, front, body = card.split("---\n", 2)
    assert set(yaml.safe_load(front)) >= {"tags", "license"}
    prose = re.sub(r"(?ms)^(`{3,})\w+\n.*?^\1$", "", body)  # without the blocks of code
    prose = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", prose.replace("\\`", ""))
    assert re.findall(r"(?m)^#+ .*", prose)[1:] == [f"## {name}" for name in HEADINGS]
    assert not re.search(r"(?<!\\)<|(?<!\\)\]\(https", prose)
    block = re.search(r"(?ms)^(`{3,})python\n(.*?)^\1$", body)
    assert block is not None
    compile(block.group(2), "card", "exec")
    assert "\nimport os" not in block.group(2)


HEADINGS = ["Use", "Results", "Training", "Files", "Intended use and limits", "Licence"]


def test_an_address_with_quotes_is_replaced_whole() -> None:
    card = 'model = load_from_hub("a\\"b")'
    assert addressed_to(card, "org/name") == 'model = load_from_hub("org/name")'
