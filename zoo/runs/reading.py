"""
Files that people write, or that a killed program left: YAML, JSON, evaluations. Values only, and no more of them than the file
holds; every fault is a sentence with the path.
"""

import copy
import functools
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sb3_genoffline.common.conforming import misfit
from sb3_genoffline.data.reading.bounds import npz_shapes
from sb3_genoffline.errors import NotFoundError, UserError, printable
from sb3_genoffline.files.nearby import near_files
from sb3_genoffline.files.untrusted import short

LARGEST_FILE, MOST_VALUES, DEEPEST = 2**17, 50_000, 50
_LONGEST_NUMBER = 100


def read_text(path: Path, what: str, largest: int | None = None) -> str:
    """
    :param path: of a text file
    :param what: it should be, for errors, such as ``"plan"``
    :param largest: bytes that it may have
    :raises NotFoundError: if there is none, naming the nearest
    :raises UserError: if it can't be read, is no text, or is too large
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UserError(f"{path} is not a valid {what}: it is a {'folder' if path.is_dir() else 'pipe or device'}.")
        if largest is not None and size > largest:
            raise UserError(f"{path} has {size:,} bytes, and no {what} has more than {largest:,}: refused.")
        return path.read_text()
    except UserError:
        raise
    except FileNotFoundError:
        raise NotFoundError(f"There is no {what} at {printable(repr(str(path)))}{near_files(path)}") from None
    except OSError as error:
        raise UserError(f"The {what} at {printable(repr(str(path)))} can't be read: {error.strerror}.") from error
    except ValueError:
        raise UserError(f"{path} is not a valid {what}: it holds no text.") from None


class _PlainLoader(yaml.SafeLoader):
    """
    Numbers, words, lists and mappings; a date stays a word. A name that appears twice in a mapping is an error, since one of
    the two would not count. ``1.0e+6`` and ``!!float 1e6``, which rl-zoo's files write, are whole numbers, ``32.0`` is none.
    """

    def fetch_flow_collection_start(self, token: Any) -> None:
        """The scanner's time grows with the square of the brackets that are open."""
        if self.flow_level >= DEEPEST:
            problem = f"more than {DEEPEST} brackets are open"
            raise yaml.scanner.ScannerError(None, None, problem, self.get_mark())
        super().fetch_flow_collection_start(token)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name, count in Counter(names).items():
            if count > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{short(name)} appears twice in a mapping", node.start_mark
                )
        return super().construct_mapping(node, deep)

    def construct_number(self, node: Any) -> float | int:
        """A number that is no integer by its spelling."""
        value = self.construct_yaml_float(node)
        return int(value) if "e" in node.value.lower() and value.is_integer() else value


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "str", "seq", "map")
}
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader.construct_number)


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """
    :param path: of a YAML file with a mapping of plain values; tags that stand for Python objects are refused, and what
        :func:`check_size` refuses
    :param what: it should be, for errors
    """
    text = read_text(path, what, LARGEST_FILE)
    try:
        return named_values(copy.deepcopy(_parsed(text)), f"{path}")
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is not plain YAML: {' '.join(str(error).split())}.") from error


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    """Kept: parsing takes tens of milliseconds, and the files of runs and algorithms are read again and again."""
    loader = _PlainLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        check_size(root)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def named_values(content: Any, where: str) -> dict[str, Any]:
    """
    :param content: of a YAML file or of a part of it; nothing is as good as an empty mapping
    :param where: it stands, for errors
    :raises UserError: if it does not map names to values
    """
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise UserError(f"{where} must map names to values, but is {short(content)}.")
    for name in content:
        if not isinstance(name, str):
            raise UserError(f"{where} has the name {short(name)}, which is not a word: put it in quotes if it is meant.")
    return dict(content)


def check_size(root: yaml.Node) -> None:
    """
    Refuse what is small in a file and endless in memory, or takes for ever to be made.

    :param root: of a composed document, in which an alias (``*name``) is the node that it stands for
    :raises yaml.YAMLError: if a value is a part of itself, if there are more than :data:`MOST_VALUES` once aliases are written
        out, or if something that is no text, as a number, is very long
    """
    _expanded_size(root, {})


def _expanded_size(node: yaml.Node, counted: dict[int, int | None]) -> int:
    """How many values a node stands for; ``counted`` has those that were seen, None while a node is being counted."""
    if id(node) in counted:
        size = counted[id(node)]
        if size is None:
            raise yaml.constructor.ConstructorError(None, None, "a value is a part of itself", node.start_mark)
        return size
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.ScalarNode):
        # 1:2:3:… is a number to the base of sixty, made in a time that grows with the square of its length
        if node.tag != "tag:yaml.org,2002:str" and len(node.value) > _LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(None, None, "a number is too long", node.start_mark)
    elif isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    else:
        parts = node.value
    counted[id(node)] = None
    size = 1 + sum(_expanded_size(part, counted) for part in parts)
    if size > MOST_VALUES:
        what = f"it holds more than {MOST_VALUES:,} values once aliases are written out"
        raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
    counted[id(node)] = size
    return size


def _bounded(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**63:
        raise ValueError(f"{text[:20]}... is too large")
    return value


def read_json(path: Path, what: str) -> dict[str, Any]:
    """
    :param path: of a JSON file with an object
    :param what: it should be, for errors
    """
    try:
        content = json.loads(read_text(path, what), parse_int=_bounded)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a valid {what}: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a valid {what}: it holds {short(content)}.")
    return content


def check_parts(parts: Mapping[str, Any], hints: Mapping[str, Any], where: str) -> None:
    """
    :param parts: of a file, by name
    :param hints: types by name, or what is in a part that is a mapping; a part that is not named may be anything
    :param where: they stand, as the beginning of a sentence
    :raises UserError: for the first part that is missing or of another type
    """
    for name, hint in hints.items():
        wrong = misfit(parts.get(name), Mapping[str, Any] if isinstance(hint, Mapping) else hint)
        if wrong is not None:
            raise UserError(f"{where} {name}, {short(parts.get(name))}, {wrong}.")
        if isinstance(hint, Mapping):
            check_parts(parts[name], hint, f"{where} {name}'s")


def read_evaluations(path: Path) -> dict[str, np.ndarray]:
    """
    :param path: of an ``evaluations.npz`` of E evaluations
    :return: ``timesteps`` (E,); ``results``, ``ep_lengths`` and, in mazes, ``successes`` (E, episodes)
    """
    try:
        with zipfile.ZipFile(path) as archive:
            npz_shapes(path, archive)  # no more than the file can hold
        with np.load(path) as file:
            found = {name: file[name] for name in ("timesteps", "results", "ep_lengths")}
            if "successes" in file:
                found["successes"] = file["successes"]
        steps, *tables = found.values()
        if steps.ndim != 1 or any(table.ndim != 2 or len(table) != len(steps) for table in tables):
            raise UserError("its arrays do not fit together")
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} can't be read as the evaluations of a run ({type(error).__name__}: {error}): delete it, and what it said "
            "is lost, but nothing else."
        ) from error
    return found
