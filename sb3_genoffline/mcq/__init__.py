"""Mildly Conservative Q-learning."""

from sb3_genoffline.mcq.mcq import MCQ, MCQNoise
from sb3_genoffline.mcq.policies import MCQPolicy

__all__ = ["MCQ", "MCQNoise", "MCQPolicy"]
