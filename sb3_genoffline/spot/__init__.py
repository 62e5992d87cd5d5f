"""Supported Policy OpTimization."""

from sb3_genoffline.spot.policies import VAEDensityPolicy
from sb3_genoffline.spot.spot import SPOT, SPOTNoise

__all__ = ["SPOT", "SPOTNoise", "VAEDensityPolicy"]
