"""The settings of the second released code of CPED."""

from typing import Any

OFFICIAL: dict[str, Any] = {
    "flow": "nice",
    "flow_steps": 500_000,
    "held_out": 0.0,
    "dequantization": 0.0,
    "flow_learning_rate": 1e-4,
    "flow_betas": (0.9, 0.01),
    "flow_eps": 1e-4,
    "discriminator_betas": (0.9, 0.999),
    "gp_weight": 0.5,
    "gp_interpolation": "normal",
    "n_critic_steps": 5,
    "vector_discriminator": True,
    "standardize_context": False,
    "alpha_mode": "schedule",
    "alpha_schedule": "mujoco",
    "max_grad_norm": None,
    "clip_target_action": False,
}
"""Arguments that reproduce the second released code on Gym-MuJoCo, see :meth:`~sb3_genoffline.cped.cped.CPED.official`."""


def official_arguments(antmaze: bool) -> dict[str, Any]:
    """
    :param antmaze: the antmaze commands' settings, not Gym-MuJoCo's
    :return: constructor arguments by name
    """
    changes: dict[str, Any] = {}
    if antmaze:
        changes = {
            "learning_rate": 3e-4,
            "flow_steps": 300_000,
            "alpha_schedule": "antmaze",
            "reward_transform": "iql_antmaze",
        }
    return OFFICIAL | changes
