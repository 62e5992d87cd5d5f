"""IQL in float64 against numbers of the authors' functions (ikostrikov/implicit_q_learning, JAX with x64)."""

import pytest
import torch as th
from authors import SPACES, close, fill_critics, fill_network, golden_batch

from sb3_genoffline import IQL

pytestmark = pytest.mark.usefixtures("float64")

# expectile, beta, factor of the critics, update: losses of V, critics and actor there
LOSSES = {
    (0.7, 3.0, 1.0, 1): (0.0161246986, 0.8922061193, 1.1768245408),
    (0.7, 3.0, 1.0, 5): (0.0158133699, 0.8905407519, 1.1859620808),
    (0.9, 10.0, -30.0, 3): (15742.4627168078, 2854109.8629721724, 105.8016393394),  # half of the weights at the cap of 100
}


@pytest.mark.parametrize("setting", LOSSES, ids=str)
def test_the_losses_are_the_authors(setting: tuple[float, float, float, int]) -> None:
    expectile, beta, factor, update = setting
    settings = {"expectile": expectile, "temperature": beta, "lr_decay_steps": 1000, "policy_kwargs": {"net_arch": [4, 4]}}
    model = IQL("MlpPolicy", SPACES, seed=0, device="cpu", **settings)
    fill_network(model.actor, 3)
    model.actor.log_std.data.copy_(th.tensor([-0.3, 0.2]))
    fill_network(model.value, 5)
    fill_critics(model.critic, factor)
    fill_critics(model.critic_target, 0.8 * factor)
    for _ in range(update):
        info = model.step(golden_batch(), None)
    found = [info[name].item() for name in ("value_loss", "critic_loss", "actor_loss")]
    for value, expected in zip(found, LOSSES[setting], strict=True):
        close(value / max(1.0, abs(expected)), expected / max(1.0, abs(expected)))
