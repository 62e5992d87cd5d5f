"""What the tests of SQL and EQL share: rows with known Q and V, V with LayerNorm in numpy, and where V comes to rest."""

from collections.abc import Callable

import numpy as np
import torch as th
from exact import Weights

_I = np.arange(6)
Q1 = 2.0 * np.sin(1.3 * _I + 0.2)
Q = np.minimum(Q1, Q1 + 0.5 * np.cos(2.1 * _I) + 0.25)
V = 0.7 * np.cos(0.9 * _I)
DIFFERENCE = [-0.30266134, 1.55743994, 0.82901777, -1.00370372, -0.92744241, 0.95725690]
Loss = Callable[[th.Tensor, th.Tensor], th.Tensor]


def loss_and_gradient(loss: Loss, q: np.ndarray = Q, v: np.ndarray = V) -> tuple[float, np.ndarray]:
    """
    :param loss: of the rows, from Q and V
    :return: its mean, and B times the mean's gradient with respect to V: each row's own
    """
    values = th.tensor(v, dtype=th.float64, requires_grad=True)
    mean = loss(th.tensor(q, dtype=th.float64), values).mean()
    (gradient,) = th.autograd.grad(mean, values)
    return float(mean.detach()), len(v) * gradient.numpy()


def stationary(loss: Loss, low: float, high: float, q: np.ndarray = Q1) -> float:
    """The V of one state between two bounds where the gradient, negative at the lower one, changes its sign."""
    for _ in range(60):
        middle = (low + high) / 2
        falls = slope(loss, middle, q) < 0
        low, high = (middle, high) if falls else (low, middle)
    return (low + high) / 2


def slope(loss: Loss, v: float, q: np.ndarray = Q1) -> float:
    """Of the mean loss of one state's rows, with respect to its V."""
    return float(loss_and_gradient(loss, q, np.full(len(q), v))[1].sum())


def normed_mlp(weights: Weights, x: np.ndarray) -> np.ndarray:
    """Linear layers with LayerNorm and ReLU between them, (B, out)."""
    for name in (name.removesuffix("weight") for name in weights if name.endswith("weight")):
        weight, bias = weights[f"{name}weight"], weights[f"{name}bias"]
        if weight.ndim == 2:
            x = x @ weight.T + bias
        else:
            centred = x - x.mean(1, keepdims=True)
            x = np.maximum(centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6) * weight + bias, 0.0)
    return x
