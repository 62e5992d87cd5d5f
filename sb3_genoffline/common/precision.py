"""In what precision a processor multiplies matrices: as torch does, or in bf16 where it has a unit for that."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch as th

MatmulPrecision = Literal["fp32", "bf16"]
_SIZES = (640, 256, 256)
_ROUNDED = 1e-3
"""fp32 errs by about 1e-5 in a product of :data:`_SIZES`, bf16 by about 0.2."""


@contextmanager
def matmul_precision(precision: MatmulPrecision) -> Iterator[None]:
    """
    While this lasts, products of float32 matrices on the CPU may be computed in bf16.

    :param precision: ``"bf16"``; ``"fp32"`` leaves torch's own switch as it is
    """
    if precision == "fp32":
        yield
        return
    switch: Any = th.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = switch.fp32_precision
    switch.fp32_precision = "bf16"
    try:
        yield
    finally:
        switch.fp32_precision = before


@dataclass(frozen=True)
class Bf16Products:
    """
    What the switch does on this processor.

    :param error: largest error of an element of a product of standard normal (640, 256) and (256, 256), whose elements have a
        standard deviation of 16
    :param fp32_error: the same without the switch
    :param speedup: time of such products without the switch ÷ with it
    """

    error: float
    fp32_error: float
    speedup: float

    @property
    def rounded(self) -> bool:
        """Whether products really are computed in bf16."""
        return self.error > _ROUNDED

    def __str__(self) -> str:
        errors = f"error of a product {self.error:.1e}, in fp32 {self.fp32_error:.1e}"
        if self.rounded:
            return f"matrix products in bf16: {errors}; {self.speedup:.1f} times as fast"
        return f"this processor has no unit for bf16, so products stay fp32 ({errors}; {self.speedup:.1f} times as fast)"


@functools.cache
def bf16_products() -> Bf16Products:
    """Try it, once a process; takes some hundredths of a second."""
    generator = th.Generator().manual_seed(0)
    rows, inner, columns = _SIZES
    a = th.randn(rows, inner, generator=generator, dtype=th.float32)
    b = th.randn(inner, columns, generator=generator, dtype=th.float32)
    exact = a.double() @ b.double()
    errors, seconds = [], []
    for precision in ("fp32", "bf16"):
        with matmul_precision(precision):
            errors.append(float(((a @ b).double() - exact).abs().max()))
            seconds.append(min(_seconds(lambda: a @ b) for _ in range(5)))
    return Bf16Products(errors[1], errors[0], seconds[0] / max(seconds[1], 1e-9))


def _seconds(run: Callable[[], Any], repeats: int = 5) -> float:
    """The processor's, of this thread and those that it works with."""
    begun = time.process_time()
    for _ in range(repeats):
        run()
    return time.process_time() - begun
