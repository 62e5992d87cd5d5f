"""An algorithm from outside the package: what it takes to write one, and that everything works for it."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor
from torch.nn.functional import mse_loss

from sb3_genoffline import ALGOS, UserError, load_from_hub, register_algorithm, registry
from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.policies import ActorCriticPolicy
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import soft_update
from sb3_genoffline.testing import ACTION_SPACE, OBSERVATION_SPACE, check_algorithm, observations, point_dataset

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8, 8]}, "batch_size": 16, "device": "cpu"}


class Toy(ActorCriticAlgorithm[Tensor]):
    """
    SARSA of the data's actions, and an actor that climbs Q beside imitation.

    :param weight: of Q against imitation
    """

    policy_aliases = {"MlpPolicy": ActorCriticPolicy}  # noqa: RUF012

    def __init__(self, policy: Any, env: Any = None, learning_rate: Any = 3e-4, *, weight: float = 0.5, **kwargs: Any) -> None:
        self.weight = weight
        super().__init__(policy, env, learning_rate, **kwargs)

    def draw_noise(self, batch_size: int) -> Tensor:
        return self.normal_noise(batch_size, self.policy.action_dim)

    def update(self, batch: TransitionBatch, noise: Tensor) -> dict[str, Tensor]:
        states = self.policy.normalize_observations(batch.observations)
        next_states = self.policy.normalize_observations(batch.next_observations)
        with th.no_grad():
            next_actions = (self.actor_target(next_states) + 0.1 * noise).clamp(-1, 1)
            target = self.td_target(batch, self.critic_target(next_states, next_actions).amin(0))
        info = self.critic_step(states, batch.actions, target)
        actions = self.actor(states)
        loss = mse_loss(actions, batch.actions) - self.weight * self.critic(states, actions).mean()
        gradient_step(self.actor_optimizer, loss, self.actor_rate_now(), self.max_grad_norm)
        soft_update(self.critic, self.critic_target, self.tau)
        soft_update(self.actor, self.actor_target, self.tau)
        return info | {"actor_loss": loss.detach()}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> type[Toy]:
    monkeypatch.setattr(ALGOS, "_classes", dict(ALGOS._classes))
    return register_algorithm(Toy)


def test_a_toy_from_outside_passes_all_questions(registered: type[Toy]) -> None:
    check_algorithm(registered, **SMALL)


def test_it_is_short(registered: type[Toy]) -> None:
    source = Path(__file__).read_text()
    assert source[source.index("class Toy") : source.index("@pytest.fixture")].count("\n") < 80


def test_the_hub_loads_it_by_its_registered_name(registered: type[Toy], tmp_path: Path) -> None:
    agent = registered("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **SMALL).learn_offline(point_dataset(), 3)
    loaded = load_from_hub(agent.save_pretrained(tmp_path / "toy"), device="cpu")
    assert isinstance(loaded, Toy)
    assert (
        loaded.predict(observations(), deterministic=True)[0] == agent.predict(observations(), deterministic=True)[0]
    ).all()


def test_a_file_of_an_algorithm_that_is_not_registered_is_refused(tmp_path: Path) -> None:
    agent = Toy("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **SMALL)
    with pytest.raises(UserError, match=r"algorithm 'toy', and this installation knows .*dac.* register"):
        load_from_hub(agent.save_pretrained(tmp_path / "toy"))


def test_installed_packages_bring_algorithms_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "toy_package", sys.modules[__name__])
    points = [
        EntryPoint("toy", "toy_package:Toy", registry.ENTRY_POINTS),
        EntryPoint("lost", "no_such:X", registry.ENTRY_POINTS),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    found = registry.Algorithms(*ALGOS._classes.values())
    with pytest.warns(UserWarning, match=r"'lost' of 'no_such:X' .* can't be used: ModuleNotFoundError"):
        assert found["toy"] is Toy
    assert "toy" in list(found)
    assert "dac" in found


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (object, "not a class derived"),
        (type("Bad", (Toy,), {"name": "../x"}), "must be a word"),
        (type("Mine", (Toy,), {"name": "dac"}), "is taken by"),
        (type("Bare", (Toy,), {"policy_aliases": {}}), "no policy_aliases"),
    ],
)
def test_what_can_not_be_registered_is_refused_in_words(wrong: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        register_algorithm(wrong)


def test_policies_are_classes_of_sb3(registered: type[Toy]) -> None:
    assert all(issubclass(policy, BasePolicy) for policy in registered.policy_aliases.values())
