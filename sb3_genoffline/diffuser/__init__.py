"""Diffuser: planning by denoising windows of episodes."""

from sb3_genoffline.diffuser.diffuser import Diffuser
from sb3_genoffline.diffuser.policies import DiffuserPolicy

__all__ = ["Diffuser", "DiffuserPolicy"]
