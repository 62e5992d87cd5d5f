"""The README's code is run as it stands, but for the length of its trainings."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from sb3_genoffline import ALGOS
from zoo import __main__ as zoo_main
from zoo.collect.make import collect

README = (Path(__file__).parents[1] / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL_LINES = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
DATASET = "genoffline/hopper/medium-replay-v0"


@pytest.fixture(scope="module", autouse=True)
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> None:
    """1,500 steps under the id that the README names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.getbasetemp() / "readme-minari"))
        collect(DATASET, steps=1_500)


@pytest.mark.parametrize("code", PYTHON_BLOCKS, ids=[block.splitlines()[0] for block in PYTHON_BLOCKS])
def test_python_blocks_run(
    code: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.getbasetemp() / "readme-minari"))
    monkeypatch.setenv("SB3_GENOFFLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = [f"0,{step},{0.1 * step},0.5,1.0,{int(step == 9)}" for step in range(10)]
    (tmp_path / "hub_models").symlink_to(Path(__file__).parents[1] / "hub_models")
    (tmp_path / "log.csv").write_text("\n".join(["episode,step,obs_0,act_0,reward,terminated", *rows]) + "\n")
    shortened = re.sub(r"gradient_steps=[\d_]+", "gradient_steps=5", code)
    exec(compile(shortened, "README.md", "exec"), {"__name__": "readme"})


def test_the_readme_has_the_blocks_it_promises() -> None:
    assert len(PYTHON_BLOCKS) == 4
    assert README.index("make quickstart") < README.index("make test") < README.index("```python")


def test_the_tables_of_algorithms_name_each_with_a_policy_it_knows() -> None:
    named = dict(re.findall(r"^\| `(\w+)\(\"(\w+)\", env\)`", README, re.MULTILINE))
    assert named.keys() == {algorithm.__name__ for algorithm in ALGOS.values()}
    for algorithm in ALGOS.values():
        assert named[algorithm.__name__] in algorithm.policy_aliases


@pytest.mark.parametrize("line", [line for line in SHELL_LINES if line.startswith("python -m zoo")])
def test_every_zoo_command_in_the_readme_has_flags_that_exist(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, _, command, *rest = shlex.split(line, comments=True)
    parsed: list[object] = []
    module = importlib.import_module(f"zoo.{zoo_main.COMMANDS[command][0]}")
    monkeypatch.setattr(module, "main", parsed.append)
    zoo_main.main([command, *rest])
    assert len(parsed) == 1


def test_every_picture_in_the_readme_exists() -> None:
    for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / target).is_file(), target
