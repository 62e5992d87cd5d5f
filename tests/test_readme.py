"""The code of the README and of the pages is run as it stands, but for the length of its trainings and the number of rows."""

import importlib
import re
import shlex
import warnings
from pathlib import Path

import pytest

from sb3_genoffline import ALGOS
from zoo import __main__ as zoo_main
from zoo.collect.make import collect

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ZOO = ROOT / "zoo"
GLUCOSE = ZOO / "glucose" / "README.md"  # its blocks are run one after another: tests/zoo/test_glucose_page.py
PAGES = [
    ROOT / "README.md",
    ZOO / "README.md",
    ZOO / "tune" / "README.md",
    GLUCOSE,
    *sorted((ROOT / "sb3_genoffline").rglob("README.md")),
]


def blocks_of(page: Path, language: str) -> list[str]:
    """What stands between fences of a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def name_of(page: Path) -> str:
    return "README" if page.parent == ROOT else page.parent.name


PYTHON_BLOCKS = [
    pytest.param(block, id=f"{name_of(page)}: {block.splitlines()[0]}")
    for page in PAGES
    if page != GLUCOSE
    for block in blocks_of(page, "python")
]
COMMANDS = [
    pytest.param(line, id=f"{name_of(page)}: {line}")
    for page in PAGES
    for block in blocks_of(page, "sh")
    for line in block.splitlines()
    if line.startswith("python -m zoo ")
]
TRAININGS = re.compile(r"\b((?:gradient|teacher|cd|flow|vae|bc|behavior|critic)_steps(?:=|\": ))[\d_]+")
SIZES = {r"\b2_000\b": "200", r"\bn_eval_episodes=10\b": "n_eval_episodes=1"}
DATASET = "genoffline/hopper/medium-replay-v0"


@pytest.fixture(scope="module", autouse=True)
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> None:
    """1,500 steps under the id that the README names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.getbasetemp() / "readme-minari"))
        collect(DATASET, steps=1_500)


@pytest.mark.parametrize("code", PYTHON_BLOCKS)
def test_python_blocks_run(
    code: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.getbasetemp() / "readme-minari"))
    monkeypatch.setenv("SB3_GENOFFLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ALGOS, "_classes", dict(ALGOS._classes))  # one block registers an algorithm
    rows = [f"0,{step},{0.1 * step},0.5,1.0,{int(step == 9)}" for step in range(10)]
    (tmp_path / "hub_models").symlink_to(ROOT / "hub_models")
    (tmp_path / "log.csv").write_text("\n".join(["episode,step,obs_0,act_0,reward,terminated", *rows]) + "\n")
    code = TRAININGS.sub(r"\g<1>2", code)
    for usual, small in SIZES.items():
        code = re.sub(usual, small, code)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Monitor")  # SB3's, of an evaluation that no page should recommend
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_the_readme_and_the_pages_have_the_blocks_they_promise() -> None:
    assert len(blocks_of(ROOT / "README.md", "python")) == 3 and len(README.splitlines()) <= 150
    assert all(blocks_of(page, "sh") for page in PAGES)
    assert all(blocks_of(page, "python") for page in PAGES if not page.is_relative_to(ROOT / "zoo"))
    assert README.index("make quickstart") < README.index("make test") < README.index("```python")


def test_the_tables_of_algorithms_name_each_with_a_policy_it_knows() -> None:
    named = dict(re.findall(r"^\| `(\w+)\(\"(\w+)\", env\)`", README, re.MULTILINE))
    assert named.keys() == {algorithm.__name__ for algorithm in ALGOS.values()}
    for algorithm in ALGOS.values():
        assert named[algorithm.__name__] in algorithm.policy_aliases


@pytest.mark.parametrize("line", COMMANDS)
def test_every_zoo_command_has_flags_that_exist(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, _, command, *rest = shlex.split(line, comments=True)
    parsed: list[object] = []
    module = importlib.import_module(f"zoo.{zoo_main.COMMANDS[command][0]}")
    monkeypatch.setattr(module, "main", parsed.append)
    zoo_main.main([command, *rest])
    assert len(parsed) == 1


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_picture_and_file_that_a_page_links_to_exists(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)  # code has brackets of its own
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_section_that_a_page_links_to_exists(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
        linked = page.parent / target if target else page
        headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, (target, anchor)
