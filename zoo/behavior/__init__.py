"""Behaviour policies: small actors from which the zoo's own datasets are collected."""

from pathlib import Path

from safetensors import safe_open

from .gaussian import GaussianPolicy
from .policy import Policy
from .squashed import SquashedPolicy


def load_policy(path: str | Path) -> Policy:
    """
    :param path: A safetensors file written by one of the policies' ``save``; only arrays are read from it, no code
    :raises UserError: If it holds something else
    """
    with safe_open(path, framework="numpy") as file:
        squashed = any(name.startswith("squashed") for name in file.keys())  # noqa: SIM118 (not a dict)
    return SquashedPolicy.load(path) if squashed else GaussianPolicy.load(path)


__all__ = ["GaussianPolicy", "Policy", "SquashedPolicy", "load_policy"]
