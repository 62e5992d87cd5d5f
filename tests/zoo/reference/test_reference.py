"""The API reference: what docstrings refer to exists, and each field in them is one that it knows."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sb3_genoffline
from zoo.reference.names import find

ROOT = Path(__file__).parents[3]
FILES = sorted([*(ROOT / "sb3_genoffline").rglob("*.py"), *(ROOT / "zoo").rglob("*.py")])
REFERENCE = re.compile(r":(?:py:)?(?:func|class|meth|mod|attr|data|exc|obj):`([^`]*)`")
ROLE = re.compile(r":([\w:]+):`")
FIELD = re.compile(r"^\s*:(\w+)[^:`]*:(?: |$)", re.MULTILINE)
KNOWN_ROLES = {"func", "class", "meth", "mod", "attr", "data", "exc"}
KNOWN_FIELDS = {"param", "return", "raises", "ivar"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def docstrings(body: list[ast.stmt], owner: str | None = None) -> Iterator[tuple[str | None, str]]:
    """All that a body and its classes and functions say about themselves, with the class that it is said in."""
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield owner, node.value.value
        elif isinstance(node, ast.ClassDef):
            yield from docstrings(node.body, f"{owner}.{node.name}" if owner else node.name)
        elif isinstance(node, ast.FunctionDef):
            yield from docstrings(node.body, owner)


@functools.cache
def said_in(path: Path) -> list[tuple[str | None, str]]:
    return list(docstrings(ast.parse(path.read_text()).body))


def test_what_docstrings_refer_to_exists() -> None:
    broken, checked = [], 0
    for path in FILES:
        for owner, text in said_in(path):
            for written in REFERENCE.findall(text):
                target = (re.search(r"<(.*)>$", written) or [written, written])[1].lstrip("~")
                checked += 1
                if find(target, module_of(path), owner) is None:
                    broken.append(f"{path.relative_to(ROOT)}: {written}")
    assert broken == [] and checked > 300


def test_docstrings_have_no_roles_and_fields_that_the_reference_does_not_know() -> None:
    unknown = set()
    for path in FILES:
        for _, text in said_in(path):
            roles, fields = set(ROLE.findall(text)) - KNOWN_ROLES, set(FIELD.findall(text)) - KNOWN_FIELDS
            unknown |= {f"{path.relative_to(ROOT)}: {name}" for name in roles | fields}
    assert unknown == set()


@pytest.mark.parametrize(
    ("target", "owner", "place"),
    [
        ("update", "DAC", "sb3_genoffline.dac.dac.DAC.update"),
        ("learn_offline", "DAC", "sb3_genoffline.common.offline_algorithm.OfflineAlgorithm.learn_offline"),
        ("DAC.update", None, "sb3_genoffline.dac.dac.DAC.update"),
        ("sb3_genoffline.DAC", None, "sb3_genoffline.dac.dac.DAC"),
        ("UserError", None, "sb3_genoffline.errors.UserError"),
        ("name", "DAC", "sb3_genoffline.dac.dac.DAC.name"),
        ("eta", "DAC", None),
        ("torch.cuda", None, "torch.cuda"),
        ("ValueError", None, "builtins.ValueError"),
        ("updat", "DAC", None),
        ("DAC.updat", None, None),
        ("sb3_genoffline.DACC", None, None),
        ("sb3_genofflin.DAC", None, None),
    ],
)
def test_a_name_means_what_python_finds_by_it(target: str, owner: str | None, place: str | None) -> None:
    assert find(target, "sb3_genoffline.dac.dac", owner) == place


def test_a_name_for_type_checkers_is_found() -> None:
    assert (
        find("EpisodeBuffer", "sb3_genoffline.data.writing.minari", None)
        == "minari.data_collector.episode_buffer.EpisodeBuffer"
    )


@pytest.mark.slow
def test_the_reference_is_built_without_a_warning_and_has_each_public_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "zoo/reference", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    index = (tmp_path / "index.html").read_text()
    assert [
        name for name in sb3_genoffline.__all__ if callable(getattr(sb3_genoffline, name)) and f">{name}<" not in index
    ] == []
