"""The training loop must not read numbers from the device: on a GPU each read waits for all work queued so far."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_genoffline import DAC


class NumberReads(TorchDispatchMode):
    """Counts ``.item()``, ``bool(tensor)``, ``float(tensor)`` and data-dependent shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (th.ops.aten._local_scalar_dense.default, th.ops.aten.nonzero.default, th.ops.aten.is_nonzero.default):
            self.count += 1
        return func(*args, **(kwargs or {}))


def small_dac(guidance: str) -> DAC:
    box = spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(-1, 1, (2,))
    rng = np.random.default_rng(0)
    data = {
        "observations": rng.normal(size=(64, 3)),
        "actions": rng.uniform(-1, 1, (64, 2)),
        "rewards": rng.normal(size=64),
        "next_observations": rng.normal(size=(64, 3)),
        "terminals": rng.random(64) < 0.1,
        "timeouts": np.zeros(64, dtype=bool),
    }
    model = DAC("DiffusionPolicy", box, guidance=guidance, batch_size=16, policy_kwargs={"net_arch": [8, 8, 8]}, seed=0)  # type: ignore[arg-type]
    return model.learn_offline(data, gradient_steps=1)


@pytest.mark.parametrize("guidance", ["soft", "hard", "denoised", "none"])
def test_an_update_reads_no_number_from_the_device(guidance: str) -> None:
    model = small_dac(guidance)
    with NumberReads() as reads:
        model.train(gradient_steps=6, batch_size=16)  # more than an epoch of 64 rows, so a reshuffle is among them
    assert reads.count == 0


def test_the_counter_sees_a_read() -> None:
    with NumberReads() as reads:
        th.ones(()).item()
    assert reads.count == 1
