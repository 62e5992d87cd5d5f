"""What an agent and its policy were given is never changed behind their back: it follows and is saved, or is refused."""

import copy
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch as th
import yaml
from test_live_settings import other_values
from worlds import ACTION_SPACE, OBSERVATION_SPACE, differing, make_agent, make_dataset, snapshot

from sb3_genoffline import ALGOS, UserError
from sb3_genoffline.dql.policies import DiffusionQLPolicy

OBSERVATIONS = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


def reloaded(agent: Any) -> Any:
    file = io.BytesIO()
    agent.save(file)
    return type(agent).load(file, device="cpu")


def acts(agent: Any) -> Any:
    agent.set_acting_seed(3)
    return agent.predict(OBSERVATIONS, deterministic=True)[0].tolist()


def editable(value: Any) -> Iterator[list[Any] | dict[Any, Any]]:
    """All lists and dicts in a value."""
    if isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from editable(item)
    if isinstance(value, list | dict):
        yield value


def test_every_argument_of_the_policy_is_refused_on_it_and_a_settings_place_is_named(algo: str) -> None:
    agent = make_agent(algo)
    before, policy = snapshot(agent), agent.policy
    for name in type(policy).argument_table().arguments:
        with pytest.raises(UserError, match=f"^{name} can't be changed to "):
            setattr(policy, name, 2)
    for name in policy.acting_settings:
        value = other_values(type(policy).argument_table().arguments[name], getattr(policy, name))[0]
        with pytest.raises(UserError, match=r"agent"):
            setattr(policy, name, value)
        if hasattr(agent, name):  # as the message says
            setattr(agent, name, value)
            assert getattr(policy, name) == getattr(reloaded(agent).policy, name) == value
            setattr(agent, name, ALGOS[algo].argument_table().arguments[name].check(getattr(make_agent(algo), name)))
        assert differing(before, snapshot(agent)) == [], name


def test_how_a_policy_acts_is_set_by_policy_kwargs_where_the_algorithm_has_no_word_for_it() -> None:
    agent = make_agent("dql", policy_kwargs={"net_arch": [8, 8], "clip_denoised": False}).learn_offline(make_dataset(), 2)
    before = acts(agent)
    with pytest.raises(
        UserError, match=r"set it on the agent, `model.policy_kwargs = \{\*\*model.policy_kwargs, 'use_critic'"
    ):
        agent.policy.use_critic = False
    agent.policy_kwargs = {**agent.policy_kwargs, "use_critic": False}
    after = acts(agent)
    assert after != before and acts(reloaded(agent)) == acts(copy.deepcopy(agent)) == after
    agent.policy_kwargs = {"net_arch": [8, 8]}  # what is not named is the default
    assert (agent.policy.use_critic, agent.policy.clip_denoised) == (True, True)
    file = io.BytesIO()
    agent.save(file)
    loaded: Any = ALGOS["dql"].load(file, device="cpu", policy_kwargs={"net_arch": [8, 8], "use_critic": False})
    assert (
        loaded.policy.use_critic is False and loaded.actor_optimizer.state_dict()["state"]
    )  # as of the live agent, it goes on
    for wrong, message in (
        ({"net_arch": [8, 8], "use_critic": "never"}, "use_critic='never' must be"),
        ({"net_arch": [8, 8], "n_action_samples": 3}, "n_action_samples.* is an argument of DQL"),
        ({"net_arch": [4]}, r"policy_kwargs can't be changed to \{'net_arch': \[4\]\} on a live agent: it shapes the policy"),
        ({"net_arch": [8, 8], "use_critic": False, "residual": True}, "shapes the policy"),
    ):
        kept = snapshot(agent)
        with pytest.raises(UserError, match=message):
            agent.policy_kwargs = wrong
        assert differing(kept, snapshot(agent)) == [] and agent.policy.use_critic is True


def test_a_policy_of_its_own_is_set_itself_and_saved() -> None:
    policy, file = DiffusionQLPolicy(OBSERVATION_SPACE, ACTION_SPACE, lambda _: 0.0, net_arch=[8]), io.BytesIO()
    policy.n_action_samples, policy.sampler = 7, "ddim"
    with pytest.raises(UserError, match="n_action_samples=0 must lie in"):
        policy.n_action_samples = 0
    with pytest.raises(UserError, match="net_arch can't be changed"):
        policy.net_arch = [4]  # type: ignore[assignment]
    policy.save(file)
    loaded = DiffusionQLPolicy.load(file, "cpu")
    assert (loaded.n_action_samples, loaded.sampler) == (7, "ddim")


def test_no_argument_of_a_live_agent_is_edited_in_place(algo: str) -> None:
    given: dict[str, Any] = {"policy_kwargs": {**make_agent(algo).policy_kwargs, "optimizer_kwargs": {"eps": 1e-7}}}
    agent = make_agent(algo, **given, **({"alpha_schedule": [[0, 3.0], [2, 1.0]]} if algo == "cped" else {}))
    values = [getattr(agent, name) for name in ALGOS[algo].argument_table().arguments]
    found = [*editable([*values, agent.policy.optimizer_kwargs, dict(agent.policy.constructor_values)])]
    kept = copy.deepcopy(found)
    frozen = [value for value in found if type(value) not in (list, dict)]
    assert len(frozen) >= 4 and len(found) - len(frozen) == 2, "some can be edited"  # those two are this test's own
    for value in frozen:
        edits: list[Any] = [value.clear, value.pop]
        edits += [lambda v=value: v.update({}), lambda v=value: v.setdefault("a", 1)] if isinstance(value, dict) else []
        edits += [lambda v=value: v.append(1), lambda v=value: v.sort()] if isinstance(value, list) else []
        for edit in [*edits, lambda v=value: v.__setitem__(0, 1), lambda v=value: v.__delitem__(0)]:
            with pytest.raises(UserError, match=r"can't be edited in place.*set the argument itself"):
                edit()
    assert found == kept and copy.deepcopy(agent).policy_kwargs == agent.policy_kwargs == given["policy_kwargs"]


def test_what_was_given_may_change_afterwards() -> None:
    given: dict[str, Any] = {"policy_kwargs": {"net_arch": [8], "optimizer_kwargs": {"betas": [0.5, 0.9]}}}
    agent = make_agent("td3_bc", **given)
    policy = type(agent.policy)(OBSERVATION_SPACE, ACTION_SPACE, lambda _: 0.0, **given["policy_kwargs"])
    given["policy_kwargs"]["net_arch"][0] = 9
    given["policy_kwargs"]["optimizer_kwargs"]["betas"][0] = 0.1
    expected = {"net_arch": [8], "optimizer_kwargs": {"betas": [0.5, 0.9]}}
    assert reloaded(agent).policy_kwargs == agent.policy_kwargs == policy.constructor_values == expected
    assert list(agent.actor_optimizer.param_groups[0]["betas"]) == [0.5, 0.9]  # type: ignore[attr-defined]


def test_an_optimizers_settings_are_not_set_on_the_policy() -> None:
    agent = make_agent("td3_bc")
    with pytest.raises(UserError, match="optimizer_class can't be changed"):
        agent.policy.optimizer_class = th.optim.SGD


def test_what_an_agent_was_given_is_written_as_plain_yaml() -> None:
    given = {"net_arch": {"pi": [8], "qf": [8, 8]}, "optimizer_kwargs": {"betas": [0.5, 0.9]}}
    agent = make_agent("td3_bc", policy_kwargs=given)
    for dump in (yaml.safe_dump, yaml.dump):
        assert yaml.safe_load(dump(agent.policy_kwargs)) == given


def test_no_setting_of_a_network_is_changed_behind_the_agents_back(algo: str) -> None:
    agent = make_agent(algo)
    settings = 0
    for network in agent.policy.modules():
        if network is agent.policy or not type(network).__module__.startswith("sb3_genoffline."):
            continue
        for name in [name for name in vars(network) if not name.startswith("_") and name not in ("training", "fitted_with")]:
            settings += 1
            with pytest.raises(UserError, match=f"{name} can't be changed on the {type(network).__name__}"):
                setattr(network, name, 0.1)
    assert settings or algo == "bc"
    copied = copy.deepcopy(agent)
    assert not differing(snapshot(agent), snapshot(copied))
