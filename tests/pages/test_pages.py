"""The algorithms' pages: each has one, what it cites exists, and what tests cite of it does too."""

import ast
import inspect
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

import sb3_genoffline
import sb3_genoffline.data
import sb3_genoffline.ope
from sb3_genoffline.registry import ALGOS

ROOT = Path(__file__).parents[2]
FOLDERS = {name: ROOT.joinpath(*cls.__module__.split(".")[:-1]) for name, cls in ALGOS.items()}
NAMES = {cls.__name__: name for name, cls in ALGOS.items()}
PAGES = {name: folder / "README.md" for name, folder in FOLDERS.items() if (folder / "README.md").is_file()}
CITATION = re.compile(r"(tests/[\w/]+\.py)?::(\w+(?:::\w+)*)")  # `::name` goes on in the file cited last
CLAIM = re.compile(r"^(?:\| )?(\d+)(?:\.| \|) ", re.MULTILINE)  # an item of a list, or a row of a table
SPACED_PERCENT = re.compile(r"(?<=[0-9}])\s%(?! ?[0-9(]| [a-z_.]+ *[=)%])")  # not of code that takes a remainder
CITED_CLAIMS = re.compile(r"(?:(\w+)'s )?README claims? (\d+(?:(?:, | and |–| to )\d+)*)")


def claims(page: Path) -> list[str]:
    """The numbered items below the heading "Claims", each without its number."""
    section = page.read_text().partition("\n## Claims")[2].partition("\n## ")[0]
    numbers, texts = CLAIM.findall(section), CLAIM.split(section)[2::2]
    assert numbers == [str(i + 1) for i in range(len(texts))], f"{page}: claims are not numbered from 1"
    return texts


@cache
def names_in(path: Path) -> frozenset[str]:
    """``test_name`` and ``Class::test_name`` of a file, read without importing it."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
    return frozenset(found)


def citations(text: str) -> list[tuple[str, str]]:
    """(file, name) of each test that a text cites."""
    found, file = [], ""
    for named, test in CITATION.findall(text):
        file = named or file
        found.append((file, test))
    return found


def test_percentages_are_written_one_way() -> None:
    """``5%``, as Python's own ``.0%`` writes it: in pages, records, templates, and what the code prints."""
    kinds = (".md", ".py", ".json", ".yml", ".html", ".ipynb", ".svg")
    files = [path for folder in ("sb3_genoffline", "zoo", "hub_models") for path in (ROOT / folder).rglob("*.*")]
    files = [path for path in [*files, *ROOT.glob("*.md")] if path.suffix in kinds and "build" not in path.parts]
    assert [str(path.relative_to(ROOT)) for path in files if SPACED_PERCENT.search(path.read_text())] == []


def test_every_algorithm_has_a_page() -> None:
    assert FOLDERS.keys() == PAGES.keys()


@pytest.mark.parametrize("name", PAGES)
def test_tests_that_a_page_cites_exist(name: str) -> None:
    cited = citations(PAGES[name].read_text())
    assert cited
    missing = [f"{file}::{test}" for file, test in cited if not (ROOT / file).is_file() or test not in names_in(ROOT / file)]
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_every_claim_names_a_test_that_holds_it(name: str) -> None:
    texts = claims(PAGES[name])
    assert texts and [text for text in texts if not citations(text)] == []


def test_claims_that_tests_cite_exist() -> None:
    """``README claim 7`` is of the page of the test's folder, ``DAC's README claim 7`` of another."""
    for path in sorted({*(ROOT / "tests").rglob("*.py")} - {Path(__file__)}):
        for owner, numbers in CITED_CLAIMS.findall(path.read_text()):
            name = NAMES.get(owner, owner) if owner else path.parent.name
            assert name in PAGES, f"{path.name} cites a README of {name}"
            assert max(map(int, re.findall(r"\d+", numbers))) <= len(claims(PAGES[name])), path.name


def test_tests_cite_pages_that_are_in_the_repository() -> None:
    for path in sorted({*(ROOT / "tests").rglob("*.py")} - {Path(__file__)}):
        text = path.read_text()
        assert not re.search(r"\b[Ss]pecification\b|\b[Cc]laim C-?\w?\d|\b[Tt]rap \d", text), (
            f"{path} cites a page of elsewhere"
        )


def test_public_docstrings_begin_with_what_a_thing_is() -> None:
    """Not with a list of parameters: an IDE shows the first line alone."""
    for module in (sb3_genoffline, sb3_genoffline.data, sb3_genoffline.ope):
        for name in module.__all__:
            thing = getattr(module, name)
            parts = [part for key, part in vars(thing).items() if key[0] != "_"] if inspect.isclass(thing) else []
            for each in (thing, *parts):
                ours = callable(each) and str(getattr(each, "__module__", "")).startswith("sb3_genoffline")
                assert not (ours and re.match(":(param|return|raises)", inspect.getdoc(each) or "")), each


@pytest.mark.parametrize("algo", FOLDERS)
def test_every_algorithm_has_the_profiles_that_tests_read(algo: str) -> None:
    profiles = yaml.safe_load((FOLDERS[algo] / "hyperparameters.yml").read_text())["profiles"]
    assert {"cpu", "tiny", "toy"} <= profiles.keys()
