"""Advantage Weighted Actor-Critic."""

from sb3_genoffline.awac.awac import AWAC, UpdateNoise
from sb3_genoffline.awac.policies import AWACPolicy

__all__ = ["AWAC", "AWACPolicy", "UpdateNoise"]
