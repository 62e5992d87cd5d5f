"""The code of every page is run as it stands, but for the length of trainings and the number of rows; links lead somewhere."""

import argparse
import importlib
import json
import re
import shlex
import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sb3_genoffline import ALGOS, load_from_hub
from zoo import __main__ as zoo_main
from zoo.benchmark.plan import read_plan
from zoo.collect.make import collect
from zoo.runs.flags import FlagParser
from zoo.tune.space import read_space

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ZOO = ROOT / "zoo"
GLUCOSE = ZOO / "glucose" / "README.md"  # its blocks are run one after another: tests/zoo/glucose/test_glucose_page.py
PAGES = [
    ROOT / "README.md",
    ZOO / "README.md",
    ZOO / "tune" / "README.md",
    GLUCOSE,
    *sorted((ROOT / "sb3_genoffline").rglob("README.md")),
]


FOLDERS = [ROOT / name for name in ("sb3_genoffline", "zoo", "hub_models")]
ALL = [*ROOT.glob("*.md"), *sorted(path for folder in FOLDERS for path in folder.rglob("*.md"))]
"""With generated ones: cards, lists, reports."""
NOTEBOOK = ZOO / "tutorial" / "tutorial.ipynb"  # its cells are run one after another: tests/zoo/tutorial/test_tutorial.py


def text_of(page: Path) -> str:
    """A page; of a notebook what is written between its cells."""
    if page.suffix != ".ipynb":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def prose_of(page: Path) -> str:
    """A page without its blocks of code, which have brackets of their own."""
    return re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)


def blocks_of(page: Path, language: str) -> list[str]:
    """What stands between fences of a language."""
    return re.findall(rf"^```{language}\n(.*?)```", page.read_text(), re.DOTALL | re.MULTILINE)


def name_of(page: Path) -> str:
    return "README" if page.parent == ROOT else page.parent.name


PYTHON_BLOCKS = [
    pytest.param(block, id=f"{name_of(page)}: {block.splitlines()[0]}")
    for page in ALL
    if page != GLUCOSE
    for block in blocks_of(page, "python")
]
SHELL_LINES = [
    (page, line)
    for page in ALL
    for block in (*blocks_of(page, "sh"), *blocks_of(page, "bash"))
    for line in re.sub(r"(<<'END')\n.*?\nEND\n", r"\1\n", block, flags=re.DOTALL).splitlines()
    if line
]
COMMANDS = [
    pytest.param(line, id=f"{name_of(page)}: {line}") for page, line in SHELL_LINES if line.startswith("python -m zoo ")
]
TRAININGS = re.compile(r"\b((?:gradient|teacher|cd|flow|vae|bc|behavior|critic)_steps(?:=|\": ))[\d_]+")
SIZES = {
    r"\b2_000\b": "200",
    r"\blearn\(1_000\)": "learn(4)",
    r"\bn_eval_episodes=10\b": "n_eval_episodes=1",
    r"\bwhile not done:": "for _ in range(2):",
}
DATASET = "genoffline/hopper/medium-replay-v1"


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


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "sb3_genoffline" / "data" / "README.md"], ids=name_of)
def test_what_is_typed_about_your_own_data_fits_the_arrays_of_the_page(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert '`np.savez("own.npz", **arrays)`' in page.read_text()
    found: dict[str, Any] = {}
    exec(next(block for block in blocks_of(page, "python") if "arrays = {" in block), found)
    np.savez("own.npz", **found["arrays"])
    typed = [line for each, line in SHELL_LINES if each == page and " own.npz" in line]
    smaller = {"train": ["-n", "2", "--profile", "tiny", "--eval-freq", "0", "--no-progress"], "inspect": ["--no-picture"]}
    for line in typed:
        _, _, _, command, *words = shlex.split(line, comments=True)
        zoo_main.main([command, *words, *smaller[command]])
    assert [line.split()[3] for line in typed] == (["inspect", "train"] if page == ROOT / "README.md" else ["train"])


def test_the_readme_and_the_pages_have_the_blocks_they_promise() -> None:
    assert len(blocks_of(ROOT / "README.md", "python")) == 2 and len(README.splitlines()) <= 140
    (agent,) = re.findall(r'`sb3_genoffline.load_from_hub\("(.*?)"\)`', README)
    assert load_from_hub(ROOT / agent).policy is not None
    assert all(blocks_of(page, "sh") for page in PAGES)
    assert all(blocks_of(page, "python") for page in PAGES if not page.is_relative_to(ROOT / "zoo"))
    assert README.index("make quickstart") < README.index("make test") < README.index("```python")


def test_the_tables_of_algorithms_name_each_with_a_policy_it_knows() -> None:
    named = dict(re.findall(r"^\| (?:\*\*)?`(\w+)\(\"(\w+)\", env\)`", README, re.MULTILINE))
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


def test_what_a_training_needs_is_collected_before() -> None:
    """By ``--collect``, or by an earlier line of the same block."""
    for page in [*PAGES, ROOT / "hub_models" / "README.md"]:
        for block in (*blocks_of(page, "sh"), *blocks_of(page, "bash")):
            there: set[str] = set()
            for line in block.splitlines():
                asked = re.findall(r"genoffline/[\w/-]+-v\d", line)
                if line.startswith("python -m zoo collect") or " --collect" in line:
                    there |= {*asked}
                assert not line.startswith("python -m zoo train") or {*asked} <= there, (page, line)


def test_every_command_in_a_sentence_has_flags_that_exist() -> None:
    """``python -m zoo NAME --flag``; what the command needs besides may be left out there."""
    checked = 0
    for page in [*ALL, NOTEBOOK]:
        for said in re.findall(r"`python -m zoo ([a-z][^`]*)`", prose_of(page)):
            name, *words = said.split()
            parser = FlagParser(prog=name)
            importlib.import_module(f"zoo.{zoo_main.COMMANDS[name][0]}").add_arguments(parser)
            for action in parser._actions:
                if isinstance(action, argparse._SubParsersAction) and words and words[0] in action.choices:
                    parser = action.choices[words[0]]
            known = {*parser._option_string_actions, "--help"}
            assert {word for word in words if re.match("--?[a-z]", word)} <= known, (page, said)
            checked += 1
    assert checked > 30


def test_other_lines_for_a_shell_name_what_there_is() -> None:
    """Targets of make, extras of pip, scripts of the zoo; and nothing that no test looks at."""
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for page, line in SHELL_LINES:
        words = shlex.split(line, comments=True)
        if line.startswith("python -m zoo."):
            module, *rest = words[2:]
            source = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text()
            assert module.removeprefix("zoo.") in zoo_main.SCRIPTS, (page, line)
            assert [word for word in rest if word.startswith("-") and f'"{word}"' not in source] == [], (page, line)
        elif words[:1] == ["make"]:
            assert targets is not None and words[1] in targets[1].split(), (page, line)
        elif words[:2] == ["pip", "install"]:
            named = re.search(r"\[(.*)\]", words[-1])
            assert "[" not in line.partition("#")[0] or words[-1].startswith(".["), (page, line)  # it is not on PyPI yet
            assert named is None or set(named[1].split(",")) <= extras.keys(), (page, line)
        else:
            known = r"python -m zoo |python - <<|\. \.venv/|#|git clone |cd |D4RL_DATASET_DIR="  # others' code
            assert re.match(known, line), (page, line)


def test_every_block_of_settings_is_one_that_its_command_takes(tmp_path: Path) -> None:
    checked = 0
    for page in ALL:
        for block in blocks_of(page, "yaml"):
            content = yaml.safe_load(block)
            if "search" in content:
                space = read_space(content["search"], ALGOS["td3_bc"], {}, "the page")
                assert {name.partition(".")[0] for name in space.plain} == content["search"].keys()
            else:
                (tmp_path / "plan.yml").write_text(block)
                assert read_plan(tmp_path / "plan.yml").jobs
            checked += 1
    assert checked == 2


def test_every_block_of_code_has_a_language_that_is_tested() -> None:
    found = {language for page in ALL for language in re.findall(r"^```(\w+)$", page.read_text(), re.MULTILINE)}
    assert found == {"python", "sh", "bash", "yaml", "text"}  # text is what a command printed


@pytest.mark.parametrize("page", [*ALL, NOTEBOOK], ids=name_of)
def test_everything_that_a_page_links_to_exists(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", prose_of(page)):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose_of(linked).lower(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}, (target, anchor)
