"""What ``pip install`` puts on a machine."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
IN_CHECKOUT = ("figures", *(f"benchmarks/{plan.stem}" for plan in (ROOT / "zoo" / "benchmarks").glob("*.yml")))
"""Of the zoo's folder: pictures and results, which nobody needs to use the package."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of a copy of the sources, so that no ``build`` folder of before has a say."""
    pytest.importorskip("setuptools", minversion="77")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("sb3_genoffline", "zoo"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "figures", "cpu"))
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    script = f"from setuptools import build_meta; build_meta.build_wheel({str(target)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=source, check=True, capture_output=True, timeout=120)
    (path,) = target.glob("*.whl")
    return zipfile.ZipFile(path)


def test_its_only_top_level_package_is_the_library(wheel: zipfile.ZipFile) -> None:
    top = {name.partition("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"sb3_genoffline"}


def test_it_holds_every_module_and_all_their_data(wheel: zipfile.ZipFile) -> None:
    kinds = (".py", ".yml", ".json", ".safetensors", ".typed", ".html", ".css", ".js")
    files = [path for folder in ("sb3_genoffline", "zoo") for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    names = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    names = {name for name in names if "/training/" not in name}  # what trainings of behaviour policies go on from
    names |= {"zoo/gallery/static/icon.svg"}
    names = {name for name in names if not name.startswith(tuple(f"zoo/{folder}/" for folder in IN_CHECKOUT))}
    expected = {re.sub(r"^zoo/", "sb3_genoffline/zoo/", name) for name in names} | {"sb3_genoffline/py.typed"}
    there = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert there == expected


def test_its_command_works_where_there_is_no_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    (entry,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "genoffline = sb3_genoffline.zoo.__main__:main" in wheel.read(entry).decode()
    wheel.extractall(tmp_path / "site")
    script = """
import sys
from sb3_genoffline.zoo.__main__ import main
from sb3_genoffline.zoo.recipes import load_recipe
from sb3_genoffline.zoo.runs.hyperparameters import load_hyperparameters
assert load_hyperparameters("dac", "hopper-medium-v2", "cpu").n_timesteps
assert next(load_recipe("genoffline/hopper/medium-v1", 10).episodes(0, 1)).terminated is False
assert "zoo" not in sys.modules
main(["--help"])
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: genoffline <command>")


def test_every_pinned_package_runs_on_the_oldest_python_that_we_name() -> None:
    """One that did not sent pip searching through all versions of all others."""
    oldest = re.search(r'requires-python = ">=(.*)"', (ROOT / "pyproject.toml").read_text())
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    here = {each.name.lower().replace("_", "-"): each for each in importlib.metadata.distributions()}
    asked = {
        name: here[key].metadata.get("Requires-Python") for name in pinned if (key := name.lower().replace("_", "-")) in here
    }
    assert oldest is not None and len(asked) > 50
    assert [name for name, python in asked.items() if python and not SpecifierSet(python).contains(f"{oldest[1]}.0")] == []
