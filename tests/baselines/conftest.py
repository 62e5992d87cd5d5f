"""Fixtures of the baselines' tests."""

from collections.abc import Iterator

import pytest
import torch as th


@pytest.fixture
def float64() -> Iterator[None]:
    """Networks and noise in double precision."""
    th.set_default_dtype(th.float64)
    yield
    th.set_default_dtype(th.float32)
