"""SfBC: selecting from behaviour candidates."""

from sb3_genoffline.sfbc.policies import SfBCPolicy
from sb3_genoffline.sfbc.sfbc import SfBC

__all__ = ["SfBC", "SfBCPolicy"]
