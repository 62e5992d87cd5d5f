"""``compile_networks=True`` is the same mathematics (slow: the compiler takes its time)."""

import shutil
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_genoffline import DAC


def trained(**kwargs: Any) -> DAC:
    rng = np.random.default_rng(0)
    data = {
        "observations": rng.normal(size=(64, 3)),
        "actions": rng.uniform(-1, 1, (64, 2)),
        "rewards": rng.normal(size=64),
        "next_observations": rng.normal(size=(64, 3)),
        "terminals": rng.random(64) < 0.1,
        "timeouts": np.zeros(64, dtype=bool),
    }
    box = spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(-1, 1, (2,))
    model = DAC(
        "DiffusionPolicy", box, n_critics=2, batch_size=16, policy_kwargs={"net_arch": [8, 8]}, seed=0, device="cpu", **kwargs
    )
    return model.learn_offline(data, gradient_steps=5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_networks_train_as_eager_ones_and_share_their_checkpoints() -> None:
    eager, compiled = trained(), trained(compile_networks=True)
    assert eager.policy.state_dict().keys() == compiled.policy.state_dict().keys()
    for name, weight in eager.policy.state_dict().items():
        th.testing.assert_close(compiled.policy.state_dict()[name], weight, rtol=1e-4, atol=1e-6, msg=name)
