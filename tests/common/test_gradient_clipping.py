"""``max_grad_norm`` of every algorithm."""

from collections.abc import Callable

import torch as th

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm

# Where a paper clips one of the two only, or has neither; AWAC's weight decay moves the actor without a gradient
CLIPPED = {"AWAC": ["critic"], "CPED": ["actor"], "Diffuser": ["diffusion", "value"], "QDQ": ["critic"]}


def test_a_tiny_norm_holds_actor_and_critics_where_they_are(
    agent: Callable[..., OfflineAlgorithm], dataset: OfflineDataset
) -> None:
    def distances(norm: float | None) -> dict[str, float]:
        model = agent(max_grad_norm=norm).pretrain(dataset)  # a fit may give the policy its start
        names = [name for name in CLIPPED.get(type(model).__name__, ["actor", "critic"]) if hasattr(model.policy, name)]
        before = [th.nn.utils.parameters_to_vector(getattr(model.policy, name).parameters()).clone() for name in names]
        model.learn_offline(dataset, 3)
        after = [th.nn.utils.parameters_to_vector(getattr(model.policy, name).parameters()) for name in names]
        return {name: float((new - old).detach().abs().max()) for name, old, new in zip(names, before, after, strict=True)}

    held, free = distances(1e-14), distances(None)
    assert held.keys() == free.keys() != set()
    for name in held:
        assert held[name] < 1e-6 < 1e-5 < free[name], name
