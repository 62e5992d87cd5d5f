"""Fixtures of the tests that every algorithm must pass; the world they live in is in ``worlds.py``."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch as th
from worlds import make_agent, make_dataset

from sb3_genoffline import ALGOS, OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm


@pytest.fixture(params=sorted(ALGOS))
def algo(request: pytest.FixtureRequest) -> str:
    """Name of an algorithm; a test that asks for it runs once for each."""
    return request.param


@pytest.fixture
def agent(algo: str) -> Callable[..., OfflineAlgorithm]:
    """``agent(env=..., **arguments)`` makes a small agent of the algorithm under test."""
    return lambda *args, **kwargs: make_agent(algo, *args, **kwargs)


@pytest.fixture(scope="session")
def dataset() -> OfflineDataset:
    """See :func:`make_dataset`."""
    return make_dataset()


@pytest.fixture(autouse=True)
def global_generator() -> Iterator[None]:
    """A test starts with the same global random numbers wherever it runs."""
    th.manual_seed(123)
    np.random.seed(123)
    yield
