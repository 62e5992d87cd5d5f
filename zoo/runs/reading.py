"""Reading plain YAML."""

import copy
import functools
from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """
    :param text: values only: tags that stand for Python objects are refused
    :raises yaml.YAMLError: if it is no YAML
    """
    return copy.deepcopy(_parsed(text))


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    """Kept: parsing takes tens of milliseconds, and the files of runs and algorithms are read again and again."""
    return yaml.safe_load(text)
