"""Implicit Q-Learning."""

from sb3_genoffline.iql.iql import IQL
from sb3_genoffline.iql.policies import IQLPolicy

__all__ = ["IQL", "IQLPolicy"]
