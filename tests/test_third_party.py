"""An algorithm from outside the package: what it takes to write one, and that everything works for it."""

import inspect
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor
from torch.nn.functional import mse_loss
from worlds import small_settings

from sb3_genoffline import ALGOS, UserError, load_from_hub, register_algorithm, registry
from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm
from sb3_genoffline.common.arguments import NoSize
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.policies import ActorCriticPolicy
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.hub import write_agent_folder
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


@pytest.mark.parametrize("algo", ["td3_bc", "sfbc", "decision_transformer"])
def test_ours_pass_them_too(algo: str) -> None:
    """An algorithm without a fit, one with a fit, and one of sequences."""
    check_algorithm(ALGOS[algo], **small_settings(algo))


def test_it_is_short(registered: type[Toy]) -> None:
    source = Path(__file__).read_text()
    assert source[source.index("class Toy") : source.index("@pytest.fixture")].count("\n") < 80


def test_the_hub_loads_it_by_its_registered_name(registered: type[Toy], tmp_path: Path) -> None:
    agent = registered("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **SMALL).learn_offline(point_dataset(), 3)
    loaded = load_from_hub(agent.save_pretrained(tmp_path / "toy"), device="cpu")
    card = (write_agent_folder(agent, tmp_path / "toy-point") / "README.md").read_text()
    assert f"Toy comes with the module `{__name__}`, which has to be there too." in card
    assert isinstance(loaded, Toy)
    assert (
        loaded.predict(observations(), deterministic=True)[0] == agent.predict(observations(), deterministic=True)[0]
    ).all()


def test_a_file_of_an_algorithm_that_is_not_registered_is_refused(tmp_path: Path) -> None:
    agent = Toy("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **SMALL)
    with pytest.raises(UserError, match=r"algorithm 'toy', and this installation knows .*dac.* register"):
        load_from_hub(agent.save_pretrained(tmp_path / "toy"))


class Odd(Toy):
    """Takes what files have no word for."""

    def __init__(
        self,
        *args: Any,
        pairs: dict[str, float] | None = None,
        by_number: dict[int, dict[str, int]] | None = None,
        words: tuple = (),  # type: ignore[type-arg]
        anything: Any = None,
        **kwargs: Any,
    ) -> None:
        self.pairs, self.by_number, self.words, self.anything = pairs, by_number, words, anything
        super().__init__(*args, **kwargs)

    def declare_state(self) -> None:
        super().declare_state()
        self.add_variable("count", lambda _: 0.0)


@pytest.mark.parametrize(
    "given",
    [
        {"pairs": {"linear": 2.0}},
        {"pairs": {"activation": 1.0, "optimizer": 2.0}},
        {"pairs": {"pairs": 3.0}},
        {"by_number": {1: {"linear": 1}, -2: {}}},
        {"words": ("a", 2)},
        {"anything": {"optimizer": "Adam"}},
        {"anything": [{"linear": None}, {1.5: None}]},
    ],
)
def test_what_its_constructor_takes_comes_back_from_a_file(given: dict[str, Any], tmp_path: Path) -> None:
    agent = Odd("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **SMALL, **given)
    agent.save(tmp_path / "odd")
    loaded = Odd.load(tmp_path / "odd", device="cpu")
    for name, value in given.items():
        assert getattr(loaded, name) == value


@pytest.mark.parametrize("value", [float("nan"), 1j, b"x", th.zeros(1), Path("x"), np.zeros(2), [{1: object()}]])
def test_what_no_file_can_hold_is_refused_when_it_is_given(value: Any) -> None:
    with pytest.raises(UserError, match=r"anything.*(can't be stored without a pickle|not a finite number)"):
        Odd("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **SMALL, anything=value)


def test_a_variable_is_changed_in_place() -> None:
    agent: Any = Odd("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **SMALL)
    with pytest.raises(UserError, match="count is a variable of Odd, which is saved"):
        agent.count = agent.count + 1
    agent.count += 1  # which tensors do in place
    assert agent.state.variables["count"].tensor == 1


class NumberedPolicy(ActorCriticPolicy):
    """Has whole numbers that size nothing."""

    def __init__(self, *args: Any, offset: Annotated[int, NoSize()] = 0, n_rows: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


def test_a_whole_number_that_sizes_nothing_says_so(tmp_path: Path) -> None:
    numbered = {"policy_kwargs": {"net_arch": [8, 8], "offset": -123456789012}}
    agent = Toy(NumberedPolicy, (OBSERVATION_SPACE, ACTION_SPACE), **(SMALL | numbered))
    agent.save(tmp_path / "numbered")
    loaded = Toy.load(tmp_path / "numbered", device="cpu", custom_objects={"policy_class": NumberedPolicy})
    assert loaded.policy_kwargs["offset"] == -123456789012
    agent.policy.save(tmp_path / "policy")
    NumberedPolicy.load(tmp_path / "policy", device="cpu")
    with pytest.raises(UserError, match="n_rows=-1, out of bounds"):
        Toy(NumberedPolicy, (OBSERVATION_SPACE, ACTION_SPACE), **(SMALL | {"policy_kwargs": {"n_rows": -1}}))


@pytest.mark.parametrize("end", [SystemExit("needs a licence"), pytest.skip.Exception("not here"), ZeroDivisionError()])
def test_a_package_that_ends_while_it_is_imported_takes_no_other_down(
    end: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ending:
        name, value = "ending", "x:Y"

        def load(self) -> Any:
            raise end

    monkeypatch.setattr(registry, "entry_points", lambda group: [Ending()])
    with pytest.warns(UserWarning, match=rf"'ending' .* can't be used: {type(end).__name__}"):
        assert "bc" in list(registry.Algorithms(*ALGOS._classes.values()))


def with_argument(name: str, hint: Any) -> type[Toy]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    __init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in ("self", name)]
    )
    __init__.__annotations__ = {name: hint}
    return type("Named", (Toy,), {"__init__": __init__})


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
        (type("Five", (Toy,), {"name": 5}), "must be a word"),
        (type("Bare", (Toy,), {"policy_aliases": {}}), "name its policy classes"),
        (type("Listed", (Toy,), {"policy_aliases": ["x"]}), "name its policy classes"),
        (type("Worded", (Toy,), {"policy_aliases": {"MlpPolicy": "x"}}), "name its policy classes"),
        (with_argument("state", int), "argument 'state', which is an attribute of every agent"),
        (with_argument("logger", int), "argument 'logger', which"),
        (with_argument("save", int), "argument 'save', which"),
        (with_argument("lost", "NoSuchType"), "annotations of Named's arguments can't be read: .*NoSuchType"),
    ],
)
def test_what_can_not_be_registered_is_refused_in_words(wrong: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        register_algorithm(wrong)


def test_policies_are_classes_of_sb3(registered: type[Toy]) -> None:
    assert all(issubclass(policy, BasePolicy) for policy in registered.policy_aliases.values())
