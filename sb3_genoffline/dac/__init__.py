"""Diffusion Actor-Critic."""

from sb3_genoffline.common.diffusion_policy import DiffusionPolicy
from sb3_genoffline.dac.dac import DAC, DACNoise

__all__ = ["DAC", "DACNoise", "DiffusionPolicy"]
