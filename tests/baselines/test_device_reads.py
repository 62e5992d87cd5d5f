"""An update of a baseline must not read numbers from the device: on a GPU each read waits for all work queued so far."""

from typing import Any

import pytest
import torch as th
from numpy_networks import make_agent, make_batch
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_genoffline import AWAC, BC, IQL, TD3BC

READS = (th.ops.aten._local_scalar_dense.default, th.ops.aten.nonzero.default, th.ops.aten.is_nonzero.default)


class NumberReads(TorchDispatchMode):
    """Counts ``.item()``, ``bool(tensor)``, ``float(tensor)`` and data-dependent shapes."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in READS
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("cls", "changes"),
    [
        (BC, {}),
        (BC, {"gaussian": True}),
        (TD3BC, {"max_grad_norm": 1.0}),
        (IQL, {"max_grad_norm": 1.0}),
        (AWAC, {}),
        (AWAC, {"weighting": "exp"}),
    ],
    ids=str,
)
def test_an_update_reads_no_number_from_the_device(cls: Any, changes: dict[str, Any]) -> None:
    model, batch = make_agent(cls, **changes), make_batch()
    with NumberReads() as reads:
        for _ in range(3):
            model.update(batch, model.draw_noise(len(batch.rewards)))
    assert reads.count == 0
    with NumberReads() as reads:
        th.ones(()).item()
    assert reads.count == 1
