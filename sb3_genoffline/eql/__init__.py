"""Exponential Q-Learning."""

from sb3_genoffline.eql.eql import EQL
from sb3_genoffline.eql.policies import EQLPolicy

__all__ = ["EQL", "EQLPolicy"]
