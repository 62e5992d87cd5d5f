"""Onestep RL."""

from sb3_genoffline.onestep.onestep import Onestep, OnestepNoise
from sb3_genoffline.onestep.policies import OnestepPolicy

__all__ = ["Onestep", "OnestepNoise", "OnestepPolicy"]
