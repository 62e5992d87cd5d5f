"""Advantage Weighted Actor-Critic."""

from sb3_genoffline.awac.awac import AWAC, AWACNoise
from sb3_genoffline.awac.policies import AWACPolicy

__all__ = ["AWAC", "AWACNoise", "AWACPolicy"]
