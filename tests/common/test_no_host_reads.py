"""No algorithm's update reads a number from the device: on a GPU each read waits for all the work queued so far."""

from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from torch.utils._python_dispatch import TorchDispatchMode
from worlds import EXPECTED_WARNINGS

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm


class NumberReads(TorchDispatchMode):
    """Counts ``.item()``, ``bool(tensor)``, an index by a scalar tensor, and data-dependent shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reads = (th.ops.aten._local_scalar_dense.default, th.ops.aten.nonzero.default, th.ops.aten.is_nonzero.default)
        self.count += func in reads
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings(f"ignore:{EXPECTED_WARNINGS}")
def test_an_update_reads_no_number_from_the_device(agent: Callable[..., OfflineAlgorithm], dataset: OfflineDataset) -> None:
    model = agent().learn_offline(dataset, 1)
    with NumberReads() as reads:
        model.train(gradient_steps=4, batch_size=16)  # more than an epoch of 60 rows, so a reshuffle is among them
    assert reads.count == 0


def test_the_counter_sees_a_read() -> None:
    with NumberReads() as reads:
        th.ones(()).item()
        th.ones(3)[th.tensor(1)]
    assert reads.count == 2
