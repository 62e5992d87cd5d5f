"""A tiny world and agents that train in milliseconds."""

from typing import Any

import numpy as np

from sb3_genoffline import DAC, OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.testing import ACTION_SPACE, OBSERVATION_SPACE

REPO = "org/dac-point"
OBSERVATIONS = np.linspace(-3, 3, 12, dtype=np.float32).reshape(4, 3)
NEEDED = ["manifest.json", "config.json", "model.safetensors"]


def make_dataset() -> OfflineDataset:
    generator = np.random.default_rng(0)
    return OfflineDataset(
        observations=generator.normal(2.0, 3.0, (40, 3)),
        actions=generator.uniform(ACTION_SPACE.low, ACTION_SPACE.high, (40, 2)),
        rewards=generator.normal(size=40),
        next_observations=generator.normal(2.0, 3.0, (40, 3)),
        terminations=np.arange(40) % 10 == 9,
        truncations=np.zeros(40, dtype=bool),
        observation_space=OBSERVATION_SPACE,
        action_space=ACTION_SPACE,
        id="tests/point-v0",
    )


def train(cls: type[OfflineAlgorithm] = DAC, seed: int = 0, steps: int = 3) -> OfflineAlgorithm:
    small: dict[str, Any] = {"policy_kwargs": {"net_arch": [8, 8]}, "batch_size": 16}
    if cls is DAC:
        small |= {"n_critics": 2, "n_q_samples": 2, "n_action_samples": 3}
    model = cls("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), seed=seed, device="cpu", **small)
    return model.learn_offline(make_dataset(), gradient_steps=steps)


def act(model: OfflineAlgorithm) -> bytes:
    """Bytes of deterministic and sampled actions from a fixed seed."""
    model.policy.seed_acting(7)
    return b"".join(model.predict(OBSERVATIONS, deterministic=mode)[0].tobytes() for mode in (True, False))
