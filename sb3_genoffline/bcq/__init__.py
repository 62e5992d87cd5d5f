"""Batch-Constrained Q-learning."""

from sb3_genoffline.bcq.bcq import BCQ, BCQNoise
from sb3_genoffline.bcq.policies import VAEPolicy

__all__ = ["BCQ", "BCQNoise", "VAEPolicy"]
