"""Comparison with numbers that are known."""

from typing import Any

import numpy as np
from torch import Tensor


def close(actual: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """Equal up to an absolute error; tensors, arrays, lists and numbers alike."""
    actual, expected = (x.detach() if isinstance(x, Tensor) else x for x in (actual, expected))
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=tolerance)
