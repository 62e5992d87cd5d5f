"""Diffusion-QL."""

from sb3_genoffline.dql.dql import DQL, DQLNoise
from sb3_genoffline.dql.policies import DiffusionQLPolicy

__all__ = ["DQL", "DQLNoise", "DiffusionQLPolicy"]
