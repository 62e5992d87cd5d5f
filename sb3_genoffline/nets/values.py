"""Values of states."""

from collections.abc import Sequence

from torch import Tensor, nn

from sb3_genoffline.nets.layers import mlp_layers
from sb3_genoffline.nets.widths import checked_widths

_NORM_EPS = 1e-6  # Flax's, which the codes with a LayerNorm in V are written in


class StateValue(nn.Module):
    """
    V(s), an MLP with PyTorch's initialisation.

    :param state_dim: S
    :param net_arch: hidden widths; none for a linear V
    :param activation_fn: activation class
    :param layer_norm: LayerNorm, with learned scale and shift, before each activation
    :param input_norm: the same on the states
    :raises UserError: for widths that are not positive whole numbers
    """

    def __init__(
        self,
        state_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
        layer_norm: bool = False,
        input_norm: bool = False,
    ) -> None:
        super().__init__()
        widths = checked_widths(net_arch)
        layers = mlp_layers(state_dim, 1, widths, activation_fn)
        if layer_norm:
            for i, width in reversed([*enumerate(widths)]):
                layers.insert(2 * i + 1, nn.LayerNorm(width, _NORM_EPS))
        if input_norm:
            layers.insert(0, nn.LayerNorm(state_dim, _NORM_EPS))
        self.net = nn.Sequential(*layers)

    def forward(self, states: Tensor) -> Tensor:
        """(B, S) -> (B,)"""
        values: Tensor = self.net(states)
        return values.squeeze(-1)
