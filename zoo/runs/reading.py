"""Reading YAML that somebody else may have written: values only, and no more of them than the file holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.files.untrusted import short

LARGEST_FILE, MOST_VALUES = 2**17, 50_000
_LONGEST_NUMBER = 100


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """
    :param path: of a YAML file with a mapping of plain values; tags that stand for Python objects are refused, and what
        :func:`check_size` refuses
    :param what: it should be, for errors
    """
    if not path.is_file():
        raise NotFoundError(f"There is no {what} at {path}.")
    if path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, and no {what} has more than {LARGEST_FILE:,}: refused.")
    try:
        loader = yaml.SafeLoader(path.read_text())
        try:
            root = loader.get_single_node()
            if root is None:
                return {}
            check_size(root)
            return named_values(loader.construct_document(root), f"{path}")
        finally:
            loader.dispose()
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is not plain YAML: {' '.join(str(error).split())}.") from error


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
