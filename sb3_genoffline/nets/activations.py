"""Activations in forms that cost a CPU less: Mish in few passes, ReLU in the place of what nobody reads again."""

import torch as th
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# PyTorch makes a tensor of the right kind of each number of Python, which costs more than a small operator does
_ONES = {dtype: th.ones((), dtype=dtype) for dtype in (th.float32, th.float64)}


def _one(like: Tensor) -> Tensor:
    return _ONES[like.dtype] if like.device.type == "cpu" and like.dtype in _ONES else like.new_ones(())


def _mish_no_grad(x: Tensor) -> Tensor:
    negative = x.neg()
    q = negative.sigmoid()  # cheaper than an exp, and overflows nowhere
    d = th.addcmul(_one(x), q, q, out=q)
    return negative.addcdiv_(x, d, value=2)


class _MishFunction(th.autograd.Function):
    """
    With q = sigmoid(−x) and d = 1 + q², mish = 2x/d − x. Its slope 2(1 + 2xq²(1 − q)/d)/d − 1 is computed at once, and nothing
    else is kept.
    """

    @staticmethod
    def forward(ctx: th.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        negative, one = x.neg(), _one(x)
        q = negative.sigmoid()
        slope = th.ops.aten.sigmoid_backward(x, q).mul_(q)  # xq(1 − q), then times q
        d = th.addcmul(one, q, q, out=q)
        th.addcdiv(one, slope, d, value=2, out=slope)
        ctx.save_for_backward(th.addcdiv(-one, slope, d, value=2, out=slope))
        return negative.addcdiv_(x, d, value=2)

    @staticmethod
    @once_differentiable  # a second derivative of the saved slope would be wrong without a word
    def backward(ctx: th.autograd.function.FunctionCtx, *grad_outputs: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad_outputs[0] * slope


def mish(x: Tensor) -> Tensor:
    """
    ``x·tanh(softplus(x))``, computed as ``2x/(1 + sigmoid(−x)²) − x``.

    :param x: any shape
    :return: same shape; differentiable once
    """
    if th.is_grad_enabled() and x.requires_grad:
        smooth: Tensor = _MishFunction.apply(x)  # type: ignore[no-untyped-call]
        return smooth
    return _mish_no_grad(x)


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
