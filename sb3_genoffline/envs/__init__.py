"""Environments of the library's own. ``import sb3_genoffline`` registers them; none is imported before it is made."""

import gymnasium as gym

GLUCOSE = "genoffline/Glucose-v0"


def register_envs() -> None:
    """Register the environments with gymnasium."""
    if GLUCOSE not in gym.registry:
        gym.register(GLUCOSE, "sb3_genoffline.envs.glucose:Glucose", max_episode_steps=96)
