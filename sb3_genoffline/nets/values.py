"""Values of states."""

from collections.abc import Sequence

from stable_baselines3.common.torch_layers import create_mlp
from torch import Tensor, nn

from sb3_genoffline.nets.widths import checked_widths


class StateValue(nn.Module):
    """
    V(s), an MLP with PyTorch's initialisation.

    :param state_dim: S
    :param net_arch: hidden widths; none for a linear V
    :param activation_fn: activation class
    :raises UserError: for widths that are not positive whole numbers
    """

    def __init__(self, state_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.net = nn.Sequential(*create_mlp(state_dim, 1, checked_widths(net_arch), activation_fn))

    def forward(self, states: Tensor) -> Tensor:
        """(B, S) -> (B,)"""
        values: Tensor = self.net(states)
        return values.squeeze(-1)
