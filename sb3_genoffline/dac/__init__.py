"""Diffusion Actor-Critic."""

from sb3_genoffline.dac.dac import DAC, UpdateNoise
from sb3_genoffline.dac.policies import DiffusionPolicy

__all__ = ["DAC", "DiffusionPolicy", "UpdateNoise"]
