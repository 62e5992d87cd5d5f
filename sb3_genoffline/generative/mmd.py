"""Maximum mean discrepancy (MMD): how far two sets of samples are apart, with the kernels that BEAR estimates it by."""

from typing import Literal

from torch import Tensor

Kernel = Literal["laplacian", "gaussian"]
_UNDER_THE_ROOT = 1e-6  # keeps the root's slope finite where both sets agree


def mmd(first: Tensor, second: Tensor, kernel: Kernel, sigma: float) -> Tensor:
    """
    √(E κ(x, x') + E κ(y, y') − 2·E κ(x, y) + 1e-6), means over all pairs, those of a sample with itself included. κ(x, y) is
    exp(−‖x − y‖₁/(2σ)) or exp(−‖x − y‖₂²/(2σ)): σ is not squared, as in BEAR's codes.

    :param first: x, (B, N, A)
    :param second: y, (B, M, A)
    :param kernel: ``"laplacian"`` or ``"gaussian"``
    :param sigma: σ
    :return: (B,), 0.001 where both sets are the same
    """
    within = _mean_kernel(first, first, kernel, sigma) + _mean_kernel(second, second, kernel, sigma)
    return (within - 2.0 * _mean_kernel(first, second, kernel, sigma) + _UNDER_THE_ROOT).sqrt()


def _mean_kernel(x: Tensor, y: Tensor, kernel: Kernel, sigma: float) -> Tensor:
    """Over all pairs of a row: (B, N, A), (B, M, A) -> (B,)"""
    difference = x.unsqueeze(2) - y.unsqueeze(1)  # (B, N, M, A)
    distance = (difference.abs() if kernel == "laplacian" else difference.square()).sum(-1)
    return (-distance / (2.0 * sigma)).exp().mean((1, 2))
