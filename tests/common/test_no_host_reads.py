"""
No update reads a number from the device: on a GPU each read waits for all the work queued so far. What is an algorithm's own
is recorded in ``test_stepping.py``, where a read is an error. Here it is asked with all that is around it.
"""

from collections.abc import Callable

import pytest
import torch as th
from worlds import EXPECTED_WARNINGS, of_each_kind

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from zoo.gpu_check.tape import Reads


@of_each_kind
@pytest.mark.filterwarnings(f"ignore:{EXPECTED_WARNINGS}")
def test_an_update_reads_no_number_from_the_device(agent: Callable[..., OfflineAlgorithm], dataset: OfflineDataset) -> None:
    model = agent().learn_offline(dataset, 1)
    with Reads() as reads:
        model.train(gradient_steps=4, batch_size=16)  # more than an epoch of 60 rows, so a reshuffle is among them
    assert reads.count == 0


def test_the_counter_sees_a_read() -> None:
    with Reads() as reads:
        th.ones(()).item()
        th.ones(3)[th.tensor(1)]
    assert reads.count == 2
