"""Layers of a multilayer perceptron."""

from collections.abc import Sequence

from stable_baselines3.common.torch_layers import create_mlp
from torch import nn

from sb3_genoffline.nets.activations import replacing
from sb3_genoffline.nets.widths import checked_widths


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
