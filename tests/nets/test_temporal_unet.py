"""Convolutions over windows give the numbers of Diffuser's authors' code, in double precision."""

import math
import re

import pytest
import torch as th
from exact import close
from torch import nn

from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.temporal_unet import TemporalUNet, TemporalValue, TimeFeatures

pytestmark = pytest.mark.usefixtures("float64")
T = th.tensor([2, 5])


def set_formula_weights(network: nn.Module) -> None:
    """
    Of each tensor by its flat index k: norms 1 + 0.1·sin k, other vectors 0.1·cos k, the rest sin(1 + 0.7k) over the root of
    the product of all axes but the first.
    """
    norms = [module.weight for module in network.modules() if isinstance(module, nn.GroupNorm | nn.LayerNorm)]
    for parameter in network.parameters():
        k = th.arange(parameter.numel(), dtype=th.float64).view(parameter.shape)
        if any(parameter is norm for norm in norms):
            parameter.data = 1 + 0.1 * th.sin(k)
        elif parameter.ndim == 1:
            parameter.data = 0.1 * th.cos(k)
        else:
            parameter.data = th.sin(1 + 0.7 * k) / math.sqrt(math.prod(parameter.shape[1:]))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def windows(horizon: int) -> th.Tensor:
    return th.sin(0.5 * th.arange(2 * horizon * 3, dtype=th.float64)).view(2, horizon, 3)


def test_the_unet_gives_known_numbers() -> None:
    network = TemporalUNet(3, 8, [8, 16, 32])
    set_formula_weights(network)
    said = network(windows(8), T)
    assert count(network) == 63_755
    close(said[0].flatten()[:4], [0.09498406, 0.06785565, -0.01515369, 0.21667082], 1e-8)
    close(said[1].flatten()[:4], [0.06807072, 0.03828883, -0.03410239, 0.13344373], 1e-8)
    close(said.sum(), 2.95319841, 1e-8)
    close(said.abs().sum(), 10.08626691, 1e-8)


def test_attention_gives_known_numbers() -> None:
    network = TemporalUNet(3, 4, [8, 16], attention=True)
    set_formula_weights(network)
    said = network(windows(4), T)
    assert count(network) == 40_907
    close(said[0].flatten()[:4], [0.25278461, -0.12365043, -0.47000541, -0.03875547], 1e-8)
    close(said.sum(), 1.26042592, 1e-8)


def test_the_value_gives_known_numbers() -> None:
    network = TemporalValue(3, 8, [8, 16, 32])
    set_formula_weights(network)
    assert count(network) == 37_401
    close(network(windows(8), T), [0.19748326, 0.22443763], 1e-8)


def test_time_is_sines_then_cosines_of_the_step_from_0() -> None:
    waves = TimeFeatures(32).waves(th.tensor([4]))[0]
    close(waves[:3], [0.14112001, 0.99861103, 0.76984188], 1e-8)
    close(waves[16:19], [-0.98999250, -0.05268785, 0.63823466], 1e-8)


@pytest.mark.parametrize(
    ("width", "horizon", "channels", "attention", "sizes"),
    [
        (14, 32, (32, 64, 128, 256), False, (3_956_302, 2_294_817)),
        (23, 32, (32, 64, 128, 256), False, (3_958_327, 2_296_545)),
        (23, 4, (32, 128, 256), True, (4_114_423, 2_180_833)),
    ],
)
def test_networks_have_the_codes_sizes(
    width: int, horizon: int, channels: tuple[int, ...], attention: bool, sizes: tuple[int, int]
) -> None:
    networks = TemporalUNet(width, horizon, channels, attention), TemporalValue(width, horizon, channels)
    assert tuple(map(count, networks)) == sizes


def test_one_place_with_one_channel_in_each_group_can_be_normalised() -> None:
    assert bool(TemporalValue(3, 1, [32])(windows(1)[:1], T[:1]).isfinite().all())


@pytest.mark.parametrize("horizon", [4, 12, 20, 40])
def test_every_horizon_that_can_be_halved_is_one(horizon: int) -> None:
    x = windows(horizon)
    assert TemporalUNet(3, horizon, [8, 8, 32])(x, T).shape == x.shape
    assert TemporalValue(3, horizon, [8, 8, 32])(x, T).shape == (2,)


@pytest.mark.parametrize(
    ("horizon", "channels", "message"),
    [
        (6, [8, 16, 32], "horizon=6 can't be halved 2 times, as channels=[8, 16, 32] has it: use a multiple of 4"),
        (8, [8, 12], "channels=[8, 12] must be multiples of 8"),
        (8, [], "channels=[] must be multiples of 8"),
        (8, [8, 16], "channels=[8, 16]: the last one must be a multiple of 32"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(horizon: int, channels: list[int], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        TemporalValue(3, horizon, channels)
