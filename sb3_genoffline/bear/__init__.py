"""Bootstrapping Error Accumulation Reduction."""

from sb3_genoffline.bear.bear import BEAR, BEARNoise
from sb3_genoffline.bear.policies import BEARPolicy

__all__ = ["BEAR", "BEARNoise", "BEARPolicy"]
