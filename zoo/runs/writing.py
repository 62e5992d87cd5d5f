"""Files written whole or not at all: text, JSON, YAML."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sb3_genoffline.files.writing import replace_file, write_errors


def write_text(path: Path, text: str) -> None:
    """Write a file atomically; folders are made."""
    replace_file(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any], indent: int = 2) -> None:
    """Write JSON atomically, which has no numbers that are not finite: see :func:`finite`."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def finite(content: Any) -> Any:
    """
    :param content: plain data
    :return: the same, with None for numbers that are not finite
    """
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: finite(value) for name, value in content.items()}
    return [finite(value) for value in content] if isinstance(content, list | tuple) else content


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain YAML atomically, in the order given."""
    write_text(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))


def append_line(path: Path, text: str) -> None:
    """Add a line to a file."""
    with write_errors(path), path.open("a") as file:
        file.write(text + "\n")


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, atomically."""
    replace_file(target, source.read_bytes())
