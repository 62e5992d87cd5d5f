"""Policy in the Latent Action Space."""

from sb3_genoffline.plas.plas import PLAS
from sb3_genoffline.plas.policies import LatentActor, LatentPolicy

__all__ = ["PLAS", "LatentActor", "LatentPolicy"]
