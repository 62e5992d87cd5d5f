"""Activations in forms that cost a CPU less: Mish in few passes, ReLU in the place of what nobody reads again."""

import torch as th
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Up to so many numbers PyTorch's slow operator takes less time than a CPU needs to start several fast ones
_FEW = 2048
# 1 and −1: PyTorch makes a tensor of the right kind of each number of Python, which costs more than a small operator does
_SIGNS = {dtype: (th.ones((), dtype=dtype), -th.ones((), dtype=dtype)) for dtype in (th.float32, th.float64)}


def _minus_sum(x: Tensor, bias: Tensor | None) -> Tensor:
    return x.neg() if bias is None else th.sub(bias.neg(), x)


def _mish_no_grad(x: Tensor, bias: Tensor | None) -> Tensor:
    one, _ = _SIGNS[x.dtype]
    negative = _minus_sum(x, bias)
    q = negative.sigmoid() if bias is None else th.sigmoid(negative, out=x)  # cheaper than an exp, and overflows nowhere
    return negative.addcdiv_(negative, th.addcmul(one, q, q, out=q), value=-2)


class _MishFunction(th.autograd.Function):
    """
    With q = sigmoid(−x) and d = 1 + q², mish = 2x/d − x. Its slope 2(1 + 2xq²(1 − q)/d)/d − 1 is computed at once, and nothing
    else is kept.
    """

    @staticmethod
    def forward(ctx: th.autograd.function.FunctionCtx, x: Tensor, bias: Tensor | None) -> Tensor:
        one, minus_one = _SIGNS[x.dtype]
        negative = _minus_sum(x, bias)
        q = negative.sigmoid() if bias is None else th.sigmoid(negative, out=x.detach())
        slope = th.ops.aten.sigmoid_backward(negative, q).mul_(q)  # −xq(1 − q), then times q
        d = th.addcmul(one, q, q, out=q)
        th.addcdiv(one, slope, d, value=-2, out=slope)
        ctx.save_for_backward(th.addcdiv(minus_one, slope, d, value=2, out=slope))
        ctx.bias_shape = None if bias is None else bias.shape  # type: ignore[attr-defined]
        return negative.addcdiv_(negative, d, value=-2)

    @staticmethod
    @once_differentiable  # a second derivative of the saved slope would be wrong without a word
    def backward(ctx: th.autograd.function.FunctionCtx, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        (slope,) = ctx.saved_tensors  # type: ignore[attr-defined]
        gradient = grad_outputs[0] * slope
        learns = ctx.needs_input_grad[1]  # type: ignore[attr-defined]
        return gradient, gradient.sum_to_size(ctx.bias_shape) if learns else None  # type: ignore[attr-defined]


def mish(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """
    ``x·tanh(softplus(x))``, computed as ``2x/(1 + sigmoid(−x)²) − x``.

    :param x: any shape
    :param bias: added to x first, which may then be written over; of a shape that x's need not be widened for
    :return: as x; where there are many numbers on a CPU, differentiable once
    """
    if th.compiler.is_compiling() or x.device.type != "cpu" or x.numel() <= _FEW or x.dtype not in _SIGNS:
        return F.mish(x if bias is None else x + bias)  # an exported network's batch has no number yet
    if th.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
        smooth: Tensor = _MishFunction.apply(x, bias)  # type: ignore[no-untyped-call]
        return smooth
    return _mish_no_grad(x, bias)


def replacing(activation_fn: type[nn.Module]) -> nn.Module:
    """
    :param activation_fn: activation class
    :return: one that writes into its input where the class can, for inputs that nobody reads again
    """
    return nn.ReLU(inplace=True) if activation_fn is nn.ReLU else activation_fn()


class Mish(nn.Module):
    """:func:`mish` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return mish(x)
