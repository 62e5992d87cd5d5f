"""Behaviour cloning."""

from sb3_genoffline.bc.bc import BC
from sb3_genoffline.bc.policies import BCPolicy

__all__ = ["BC", "BCPolicy"]
