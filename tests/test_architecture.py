"""The shape of the code base: which way imports run, how long files are, what has a docstring."""

import ast
import functools
import graphlib
import importlib
import inspect
import re
import sys
from pathlib import Path

import sb3_genoffline

PACKAGE = Path(sb3_genoffline.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "zoo").rglob("*.py")])
LONGEST = 425

# Rooms in the order imports run: a module may import its own room and those before it. Any other folder of the package
# holds one algorithm.
RANKS = {
    **{"version": 0, "errors": 0, "program": 0, "nets": 1, "files": 1, "envs": 1, "generative": 2, "data": 2, "deploy": 3},
    **{"common": 4, "registry": 6, "ope": 7, "hub": 7, "testing": 7, "zoo": 8},
}
ALGORITHM = 5


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """``dac`` for ``sb3_genoffline.dac.policies``, ``zoo`` for all of the zoo, ``""`` for the package itself."""
    parts = module.split(".")
    return "zoo" if parts[0] == "zoo" else parts[1] if len(parts) > 1 else ""


@functools.cache
def zoo_rooms() -> set[str]:
    return {path.parent.name for path in (ROOT / "zoo").glob("*/__init__.py")}


def rank(room: str) -> int:
    return RANKS.get(room, ALGORITHM)


@functools.cache
def imports_of(path: Path) -> set[str]:
    """All modules a file imports, at its top or inside functions, with full names."""
    package = name_of(path) if path.stem == "__init__" else name_of(path).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            found.add(module)
            folder = ROOT.joinpath(*module.split("."))
            names = {alias.name for alias in node.names}
            found |= {f"{module}.{name}" for name in names if (folder / name).is_dir() or (folder / f"{name}.py").exists()}
    return found


def test_imports_run_one_way() -> None:
    wrong = []
    for path in FILES:
        room = room_of(name_of(path))
        if room == "":
            continue  # the package's own __init__ gathers the public names
        for module in imports_of(path):
            if module.split(".")[0] not in ("sb3_genoffline", "zoo"):
                continue
            other = room_of(module)
            if other == "" and room != "zoo":
                wrong.append(f"{name_of(path)} imports the package's __init__, which imports everything")
            elif not (other == room or rank(other) < rank(room) or other == ""):
                wrong.append(f"{name_of(path)} imports {module}: {room} must not know {other}")
    assert wrong == []


def test_data_and_generative_do_not_know_each_other() -> None:
    for path in FILES:
        room = room_of(name_of(path))
        others = {room_of(module) for module in imports_of(path) if module.startswith("sb3_genoffline")}
        if room in ("data", "generative"):
            assert others <= {room, "version", "errors", "program", "nets", "files"}, name_of(path)


def test_algorithms_never_import_each_other() -> None:
    algorithms = {room_of(name_of(path)) for path in PACKAGE.rglob("*.py")} - set(RANKS) - {""}
    assert "dac" in algorithms
    for path in PACKAGE.rglob("*.py"):
        room = room_of(name_of(path))
        if room in algorithms:
            imported = {room_of(module) for module in imports_of(path) if module.startswith("sb3_genoffline")}
            assert imported & algorithms <= {room}, name_of(path)


def test_generative_models_need_torch_numpy_and_networks_only() -> None:
    allowed = {"torch", "numpy", "zuko", *sys.stdlib_module_names}
    rooms = ("sb3_genoffline.generative", "sb3_genoffline.nets", "sb3_genoffline.errors")
    for path in (PACKAGE / "generative").rglob("*.py"):
        for module in imports_of(path):
            assert module.split(".")[0] in allowed or module.startswith(rooms), f"{path.name}: {module}"


ZOO = sorted((ROOT / "zoo").rglob("*.py"))
COMMANDS = {name_of(path) for path in ZOO if path.parent.name == "zoo" or path.stem == "command"} - {"zoo"}


def zoo_room_of(module: str) -> str:
    """``runs`` for ``zoo.runs.folders``, ``""`` for a command on the ground floor."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in zoo_rooms() else ""


def test_the_zoo_can_be_a_part_of_another_package() -> None:
    absolute = re.compile(r"^\s*(from zoo[ .]|import (\w+(\.\w+)*, )*zoo\b)", re.MULTILINE)
    assert absolute.search("x = 1\n    from zoo.runs import folders") and absolute.search("import os, zoo")
    scripts = {"conf.py"}  # Sphinx runs it by itself
    found = [str(path) for path in ZOO if path.name not in scripts and absolute.search(path.read_text())]
    assert found == [], "import it relatively"


def test_nobody_imports_a_command_of_the_zoo() -> None:
    """What two commands share is in a room; ``COMMANDS`` of ``__main__`` is the only way to a command."""
    for path in ZOO:
        for module in imports_of(path):
            assert module == name_of(path) or module not in COMMANDS, f"{name_of(path)} imports {module}"


def test_the_ground_floor_of_the_zoo_holds_commands_only() -> None:
    from zoo.__main__ import COMMANDS as listed

    modules = {f"zoo.{module}" for module, _ in listed.values()}
    assert modules == COMMANDS - {"zoo.__main__"}
    for module in modules:
        command = importlib.import_module(module)
        assert callable(command.add_arguments) and callable(command.main) and command.__doc__


def test_rooms_of_the_zoo_know_each_other_one_way() -> None:
    graph: dict[str, set[str]] = {room: set() for room in zoo_rooms()}
    for path in ZOO:
        room = zoo_room_of(name_of(path))
        if room and path.stem != "command":
            graph[room] |= {zoo_room_of(module) for module in imports_of(path) if module.startswith("zoo.")} - {room, ""}
    assert graph["runs"] == set()
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


def test_files_are_short_enough_to_read() -> None:
    whole = {path: len(path.read_text().splitlines()) for path in FILES}
    lines = {name_of(path): n - docstring_lines(path) for path, n in whole.items() if n > LONGEST}
    assert {name: n for name, n in lines.items() if n > LONGEST} == {}, "split them: so many lines beside their docstrings"


def docstring_lines(path: Path) -> int:
    """Lines of all docstrings: what arguments mean is looked up, not read through."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = ast.walk(ast.parse(path.read_text()))
    first = [node.body[0] for node in nodes if isinstance(node, documented) and node.body]
    texts = [node for node in first if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in texts)


def test_modules_and_everything_public_in_them_have_docstrings() -> None:
    missing = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = importlib.import_module(name_of(path))
        missing += [] if module.__doc__ or not path.read_text().strip() else [name_of(path)]
        for name, member in vars(module).items():
            public = inspect.isclass(member) or inspect.isfunction(member)
            if public and not name.startswith("_") and member.__module__ == module.__name__ and not member.__doc__:
                missing.append(f"{name_of(path)}.{name}")
    assert missing == []


def test_public_names_exist_and_are_sorted() -> None:
    assert sorted(sb3_genoffline.__all__) == sorted(set(sb3_genoffline.__all__))
    for name in sb3_genoffline.__all__:
        assert hasattr(sb3_genoffline, name)
    assert importlib.import_module("sb3_genoffline.registry").ALGOS.keys() == sb3_genoffline.ALGOS.keys()
