"""Frozen copies of networks."""

import torch as th

from sb3_genoffline.nets.ensembles import EnsembleQ
from sb3_genoffline.nets.network import frozen_copy


def test_a_frozen_copy_is_equal_and_shares_nothing_with_the_network() -> None:
    network = EnsembleQ(2, 3, 1, (4,), layer_norm=True)
    kept = network.register_forward_hook(lambda *_: None)  # a hook that is there is copied too
    copy = frozen_copy(network)
    states, actions = th.randn(5, 3), th.randn(5, 1)
    before = network(states, actions)
    assert th.equal(copy(states, actions), before) and len(copy._forward_hooks) == 1
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    calls: list[str] = []
    for part in (copy, *copy.modules()):
        part.register_forward_hook(lambda *_: calls.append("copy"))
    with th.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    kept.remove()
    assert not th.equal(network(states, actions), before) and calls == []
    assert th.equal(copy(states, actions), before) and len(calls) > 3
