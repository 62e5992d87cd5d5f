"""Conservative Q-learning."""

from sb3_genoffline.cql.cql import CQL, CQLNoise
from sb3_genoffline.cql.policies import CQLPolicy

__all__ = ["CQL", "CQLNoise", "CQLPolicy"]
