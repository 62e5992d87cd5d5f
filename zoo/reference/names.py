"""What a cross-reference in a docstring means: whatever Python finds by that name at that place."""

import ast
import builtins
import functools
import importlib
import inspect
from types import ModuleType
from typing import Any


def find(target: str, module: str | None, owner: str | None) -> str | None:
    """
    Look a name up as Python does: in the class, in the module, among the built-ins, else as a full name.

    :param target: as it is written: ``update``, ``DAC.update``, ``sb3_genoffline.DAC``
    :param module: full name of the module that the docstring stands in
    :param owner: name of the class that it stands in, within the module
    :return: full name by which the thing is defined, ``sb3_genoffline.dac.dac.DAC.update``; None: there is no such thing
    """
    path = target.lstrip("~").removesuffix("()").split(".")
    starts: list[tuple[Any, list[str]]] = []
    if module:
        here = importlib.import_module(module)
        path = [*_names_for_type_checkers(module).get(path[0], path[0]).split("."), *path[1:]]
        starts = [(here, [*owner.split("."), *path])] if owner else []
        starts.append((here, path))
    starts += [(builtins, path), *_from_the_top(path)]
    return next(filter(None, (_follow(start, rest) for start, rest in starts)), None)


def _from_the_top(path: list[str]) -> list[tuple[ModuleType, list[str]]]:
    """The longest part of a full name that is a module, and the rest of it; a word alone is none."""
    for n in range(len(path) * (len(path) > 1), 0, -1):
        try:
            return [(importlib.import_module(".".join(path[:n])), path[n:])]
        except ImportError:
            continue
    return []


@functools.cache
def _names_for_type_checkers(module: str) -> dict[str, str]:
    """Full names by those that a module imports ``if TYPE_CHECKING`` only."""
    blocks = [node for node in ast.parse(inspect.getsource(importlib.import_module(module))).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom) and not node.level]
    return {alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}


def _follow(start: Any, path: list[str]) -> str | None:
    """The full name of what lies at the end of a path of attributes, by the module and the class that define it."""
    thing, place = start, start.__name__
    for name in path:
        holder = thing
        if inspect.isclass(thing):
            owners = [cls for cls in thing.__mro__ if name in cls.__dict__ or name in inspect.get_annotations(cls)]
            if not owners:
                return None
            holder = owners[0]
            place = f"{holder.__module__}.{holder.__qualname__}"
        elif not hasattr(thing, name):
            return None
        thing = getattr(holder, name, None)
        place = f"{place}.{name}"
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and not inspect.isclass(holder):
            place = f"{thing.__module__}.{thing.__qualname__}"
        elif inspect.ismodule(thing):
            place = thing.__name__
    return place
