"""Diffusion-QL."""

from sb3_genoffline.dql.dql import DQL, UpdateNoise
from sb3_genoffline.dql.policies import DiffusionQLPolicy

__all__ = ["DQL", "DiffusionQLPolicy", "UpdateNoise"]
