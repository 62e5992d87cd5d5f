"""Uncertainty Weighted Actor-Critic."""

from sb3_genoffline.uwac.policies import UWACPolicy
from sb3_genoffline.uwac.uwac import UWAC, UWACNoise

__all__ = ["UWAC", "UWACNoise", "UWACPolicy"]
