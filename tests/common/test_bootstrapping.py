"""Where an episode ends for good nothing is bootstrapped, and where it is cut off by a time limit, something is."""

from typing import Any

import numpy as np
import pytest
import torch as th
from exact import SPACES, A, S

from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm
from sb3_genoffline.registry import ALGOS

VALUE, REWARD = 10.0, 1.0
OUTPUT_BIASES = ("critic_target.trunk.1.bias", "value.net.2.bias", "value.net.3.bias")  # of V without and with LayerNorm


@pytest.mark.parametrize("algo", ["awac", "bcq", "bear", "eql", "iql", "plas", "sql", "td3_bc"])
def test_targets_look_past_time_limits_and_not_past_terminations(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    ends = np.arange(40) % 2 == 0
    data = {
        "observations": rng.normal(size=(40, S)),
        "actions": rng.uniform(-1, 1, (40, A)),
        "rewards": np.full(40, REWARD),
        "next_observations": rng.normal(size=(40, S)),
        "terminals": ends,
        "timeouts": ~ends,
    }
    settings: dict[str, Any] = {"batch_size": 40, "gamma": 0.9, "reward_transform": None, "policy_kwargs": {"net_arch": [8]}}
    settings |= {"vae_steps": 1} if algo == "plas" else {}
    model = ALGOS[algo]("MlpPolicy", SPACES, seed=0, device="cpu", **settings)
    for name, parameter in model.policy.named_parameters():  # Q and V are 10 everywhere
        if name.startswith(("critic", "value")):
            parameter.data.fill_(VALUE if name in OUTPUT_BIASES else 0.0)
    if hasattr(model, "value_optimizer"):
        model.critic_learning_rate = 0.0  # V is still 10 when the critics learn
    targets: list[th.Tensor] = []
    step = ActorCriticAlgorithm.critic_step
    monkeypatch.setattr(
        ActorCriticAlgorithm, "critic_step", lambda self, s, a, target: targets.append(target) or step(self, s, a, target)
    )
    model.learn_offline(data, 1)
    found = targets[0].sort().values.numpy()
    np.testing.assert_allclose(found, np.repeat([REWARD, REWARD + 0.9 * VALUE], 20), rtol=1e-5)
