"""Every algorithm of the registry on one task that imitation does not solve: see ``crossing.py``."""

from typing import Any

import pytest
from crossing import ACTION_SPACE, OBSERVATION_SPACE, make_crossing, mean_return

from sb3_genoffline.registry import ALGOS

IMITATION = {"bc"}
MARGIN = 2.0
"""Half of what lies between the data's mean return, 5, and that of its better half, 9."""
SHARED: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 128,
    "tau": 0.02,
    "seed": 0,
    "device": "cpu",
    "policy_kwargs": {"net_arch": [64, 64]},
}
# Updates and settings that make an algorithm small. One that is not listed has 3000 updates and small networks.
SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "awac": (3000, {"lam": 1.0}),  # locomotion's returns are a thousand times as large
    "bcq": (3000, {"beta": 0.05, "policy_kwargs": {"net_arch": [64, 64], "vae_net_arch": [64, 64]}}),
    "bear": (
        3000,
        {
            "warmup_steps": 500,
            "multiplier_learning_rate": 3e-3,
            "policy_kwargs": {"net_arch": [64, 64], "vae_net_arch": [64, 64]},
        },
    ),
    "cped": (
        3000,
        {
            "critic_learning_rate": 1e-3,
            "flow_steps": 1500,
            "flow_learning_rate": 1e-3,
            "adv_weight": 0.0,
            "dequantization": 0.1,
            "critic_start": 0,
            "q_start": 0,
            "alpha_mode": "fixed",
            "alpha": 0.3,
            "policy_kwargs": {"net_arch": [64, 64], "flow_net_arch": [32, 32], "flow_transforms": 2},
        },
    ),
    "cql": (1500, {"critic_learning_rate": 1e-3, "bc_steps": 500, "n_actions": 4}),
    "dac": (2000, {"n_critics": 2, "n_q_samples": 1}),
    "decision_transformer": (
        600,
        {
            **{"context_length": 2, "return_scale": 10.0, "warmup_steps": 100, "max_episode_steps": 10},
            "policy_kwargs": {"embed_dim": 32, "n_layers": 1, "dropout": 0.0},
        },
    ),
    "diffuser": (
        200,
        {
            **{
                "learning_rate": 2e-3,
                "batch_size": 64,
                "horizon": 8,
                "n_diffusion_steps": 8,
                "n_plans": 16,
                "guide_scale": 2.0,
            },
            **{"termination_penalty": 0.0, "return_discount": 1.0, "max_episode_steps": 20, "target_copy_steps": 10**6},
            "policy_kwargs": {"channels": [32]},
        },
    ),
    "dql": (2000, {}),
    "idql": (
        1500,
        {
            **{"critic_batch_size": 128, "actor_updates": 1, "actor_tau": 0.02, "n_action_samples": 16},
            **{"reward_transform": None, "expectile": 0.9},
            "policy_kwargs": {"net_arch": [64, 64], "hidden_dim": 32, "n_blocks": 1, "time_dim": 8, "dropout": 0.0},
        },
    ),
    "mcq": (
        2000,
        {"lam": 0.9, "beta": 0.1, "n_actions": 4, "policy_kwargs": {"net_arch": [64, 64], "vae_net_arch": [64, 64]}},
    ),
    "onestep": (
        1000,
        {
            "alpha": 0.3,
            "behavior_steps": 1500,
            "critic_steps": 3000,
            "behavior_learning_rate": 1e-3,
            "critic_learning_rate": 1e-3,
        },
    ),
    "plas": (
        3000,
        {
            "critic_learning_rate": 1e-3,
            "vae_steps": 1500,
            "vae_learning_rate": 1e-3,
            "beta": 0.05,
            "policy_kwargs": {"net_arch": [64, 64], "vae_net_arch": [64, 64]},
        },
    ),
    "qdq": (
        3000,
        {
            "critic_learning_rate": 1e-3,
            "teacher_steps": 1000,
            "cd_steps": 1000,
            "cd_n": 20,
            "n_q_samples": 10,
            "window": 10,
            "stride": 1,
            "policy_kwargs": {"net_arch": [64, 64], "q_net_arch": [64, 64]},
        },
    ),
    "sfbc": (
        1500,
        {
            **{"behavior_steps": 1500, "behavior_learning_rate": 1e-3, "critic_steps": 750},
            **{"n_planning_samples": 8, "n_solver_steps": 8, "n_action_samples": 16, "planning_target": "paper"},
            "policy_kwargs": {"net_arch": [64, 64], "behavior_net_arch": [64, 32], "embed_dim": 32},
        },
    ),
    "spot": (3000, {"vae_steps": 1500, "lam": 0.2, "policy_kwargs": {"net_arch": [64, 64], "vae_net_arch": [64, 64]}}),
    "uwac": (
        2000,
        {
            **{"critic_learning_rate": 1e-3, "vae_learning_rate": 1e-3, "multiplier_learning_rate": 1e-2, "warmup_steps": 500},
            **{"beta": 0.1, "n_passes": 4, "n_target_samples": 4, "n_action_samples": 10},
            "policy_kwargs": {"net_arch": [64, 64], "vae_net_arch": [64, 64]},
        },
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:The uncertainty H is no larger")
@pytest.mark.parametrize("algo", sorted(ALGOS))
def test_dynamic_programming_joins_what_imitation_can_not(algo: str) -> None:
    data = make_crossing()
    updates, settings = SETTINGS.get(algo, (3000, {}))
    model = ALGOS[algo]("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **(SHARED | settings))
    model.learn_offline(data, updates, log_interval=None)
    reached, mean = mean_return(model), data.episode_returns().mean()
    assert (reached < mean) if algo in IMITATION else (reached > mean + MARGIN)
