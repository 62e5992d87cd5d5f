"""YAML beside an agent: read as plain data, and only where somebody asks for it."""

import shutil
from pathlib import Path

import pytest
from hostile import Watch

from sb3_genoffline import load_from_hub
from zoo.runs.folders import run_of
from zoo.runs.hyperparameters import load_hyperparameters

TAGS = "!!python/object/apply:os.mkdir [{trap}]", "!!python/name:os.system", "!!python/object/new:os.mkdir [{trap}]", "!x 1"


@pytest.mark.parametrize("text", [*TAGS, "[" * 600, "a: 2001-99-99", "? [1]\n: 1", "algo: [dac]", "{a: &a [*a]}", "\x00", "@"])
def test_hostile_yaml_is_refused_by_name_and_runs_nothing(victims: Path, watch: Watch, text: str) -> None:
    folder = Path(shutil.copytree(victims / "dac", watch.root / "dac"))
    (watch.root / "dac" / "run").mkdir()
    for path in (folder / "hyperparameters.yml", folder / "run" / "config.yml"):
        path.write_text(text.format(trap=watch.trap) if "{trap}" in text else text)
    with watch.harmless():
        load_from_hub(folder)
        assert run_of(folder / "dac.zip") is None
    with watch.harmless(), pytest.raises(ValueError, match=r"hyperparameters\.yml"):
        load_hyperparameters("dac", "a", conf_file=folder / "hyperparameters.yml")
