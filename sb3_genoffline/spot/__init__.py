"""Supported Policy OpTimization."""

from sb3_genoffline.spot.policies import VAEDensityPolicy
from sb3_genoffline.spot.spot import SPOT, UpdateNoise

__all__ = ["SPOT", "UpdateNoise", "VAEDensityPolicy"]
