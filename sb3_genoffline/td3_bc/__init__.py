"""TD3+BC."""

from sb3_genoffline.td3_bc.td3_bc import TD3BC

__all__ = ["TD3BC"]
