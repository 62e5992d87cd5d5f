"""Layers of multilayer perceptrons, one after the other."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from stable_baselines3.common.torch_layers import create_mlp
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_genoffline.nets.activations import Mish, mish, replacing
from sb3_genoffline.nets.widths import checked_widths


class Layers(nn.Sequential):
    """Layers one after the other. Where a Mish follows a linear layer, it adds the bias in its own first pass."""

    def forward(
        self, input: Tensor, bias: Tensor | None = None, first: nn.Module | None = None, member: int | None = None
    ) -> Tensor:
        """
        :param input: of the first layer
        :param bias: to be added to the input, which may be written over
        :param first: a layer before all others
        :param member: of the ensemble that linear layers are; None: all, or there is no ensemble
        """
        x, layers = input, [*self] if first is None else [first, *self]
        which = () if member is None else (member,)
        for layer, following in pairwise([*layers, None]):
            if isinstance(layer, Mish):
                x, bias = mish(x, bias), None
                continue
            if bias is not None:
                x, bias = x + bias, None
            if not _is_linear(layer):
                x = layer(x)
            elif isinstance(following, Mish):
                x, bias = _halves(layer, x, *which)
            else:
                x = layer(x, *which)
        return x if bias is None else x + bias


def _is_linear(layer: Any) -> bool:
    return isinstance(layer, nn.Linear) or hasattr(layer, "halves")


def _halves(layer: Any, x: Tensor, *which: int) -> tuple[Tensor, Tensor]:
    """A linear layer's product with its input, and its bias."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, layer.weight), layer.bias
    product, bias = layer.halves(x, *which)
    return product, bias


def mlp_layers(
    n_inputs: int,
    n_outputs: int,
    net_arch: Sequence[int],
    activation_fn: type[nn.Module] = nn.ReLU,
    squash_output: bool = False,
) -> list[nn.Module]:
    """
    SB3's ``create_mlp``, whose activations write into their inputs where they can.

    :param n_inputs: width in
    :param n_outputs: width out
    :param net_arch: hidden widths; none for a linear network
    :param activation_fn: activation class
    :param squash_output: a tanh at the end
    :raises UserError: for widths that are not positive whole numbers
    """
    layers = create_mlp(n_inputs, n_outputs, checked_widths(net_arch), activation_fn, squash_output)
    return [replacing(activation_fn) if type(layer) is activation_fn else layer for layer in layers]
