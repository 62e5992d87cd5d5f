"""Constrained Policy optimization with Explicit behavior Density."""

from sb3_genoffline.cped.cped import CPED, CPEDNoise
from sb3_genoffline.cped.policies import FlowDensityPolicy

__all__ = ["CPED", "CPEDNoise", "FlowDensityPolicy"]
