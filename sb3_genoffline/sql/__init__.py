"""Sparse Q-Learning."""

from sb3_genoffline.sql.policies import SQLPolicy
from sb3_genoffline.sql.sql import SQL

__all__ = ["SQL", "SQLPolicy"]
