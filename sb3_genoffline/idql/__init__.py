"""IDQL: implicit Q-learning that acts by the best of a diffusion model's samples."""

from sb3_genoffline.idql.idql import IDQL, IDQLNoise
from sb3_genoffline.idql.policies import IDQLPolicy

__all__ = ["IDQL", "IDQLNoise", "IDQLPolicy"]
