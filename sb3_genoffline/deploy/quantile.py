"""The quantile function of the normal distribution, of operations that ONNX has."""

import torch as th
from torch import Tensor

# Wichura (1988), Applied Statistics algorithm AS 241, PPND7: numerator and denominator, from the highest power down
_CENTRE = ((59.109374720, 159.29113202, 50.434271938, 3.3871327179), (67.187563600, 78.757757664, 17.895169469, 1.0))
_MIDDLE = ((0.17023821103, 1.3067284816, 2.7568153900, 1.4234372777), (0.12021132975, 0.73700164250, 1.0))
_TAIL = ((0.017337203997, 0.42868294337, 3.0812263860, 6.6579051150), (0.012258202635, 0.24197894225, 1.0))


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Tensor) -> Tensor:
    above, below = (th.zeros_like(x), th.zeros_like(x))
    for number in coefficients[0]:
        above = above * x + number
    for number in coefficients[1]:
        below = below * x + number
    return above / below


def normal_quantile(p: Tensor) -> Tensor:
    """
    Φ⁻¹, as ``torch.special.ndtri``, to seven digits.

    :param p: within (0, 1)
    :return: same shape
    """
    q = p - 0.5
    tail = th.minimum(p, 1.0 - p).log().neg().sqrt()
    outside = th.where(tail <= 5.0, _ratio(_MIDDLE, tail - 1.6), _ratio(_TAIL, tail - 5.0))
    return th.where(q.abs() <= 0.425, q * _ratio(_CENTRE, 0.180625 - q * q), q.sign() * outside)
