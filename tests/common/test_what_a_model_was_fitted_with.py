"""A fitted model carries what it was fitted with into every file and copy, and meets no other units in silence."""

import copy
import functools
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from worlds import ACTION_SPACE, FITTING, OBSERVATION_SPACE, PointEnv, differing, make_agent, make_dataset, snapshot

from sb3_genoffline import ALGOS, UserError
from sb3_genoffline.common.fitting import Fit, FitListener
from sb3_genoffline.files.archive import CheckpointError
from sb3_genoffline.registry import load_agent

pytestmark = pytest.mark.filterwarnings("ignore:The uncertainty H is no larger")
# Another value of each hyper-parameter that a model's units follow from
OTHERS = {"gamma": 0.5, "reward_transform": "iql_antmaze", "normalize_observations": True}
UNITS = [(algo, name) for algo in FITTING for name in ALGOS[algo].fitted_model_units]
each = pytest.mark.parametrize("algo", FITTING)
each_unit = pytest.mark.parametrize(("algo", "name"), UNITS)


def refused(algo: str, name: str) -> Any:
    model = next(iter(ALGOS[algo].policy_aliases.values())).fitted_model
    message = (
        f"The {model} was fitted with {name}=.* and is used with .*: what it says|{name} .* on a trained agent: it decides"
    )
    return pytest.raises(UserError, match=message)


@functools.cache
def _fitted(algo: str) -> bytes:
    file = io.BytesIO()
    make_agent(algo).pretrain(make_dataset()).save(file)
    return file.getvalue()


def fitted(algo: str, **changes: Any) -> Any:
    """An agent from a file, whose model is fitted and whose policy is new."""
    return ALGOS[algo].load(io.BytesIO(_fitted(algo)), device="cpu", **changes)


def shared(agent: Any) -> io.BytesIO:
    file = io.BytesIO()
    agent.save_fitted_model(file)
    file.seek(0)
    return file


def without_facts(content: bytes) -> io.BytesIO:
    """An archive as it was before models carried their facts."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(file, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "data":
                data = json.dumps({key: value for key, value in json.loads(data).items() if key != "fitted_with"}).encode()
            target.writestr(name, data)
    file.seek(0)
    return file


@each
def test_facts_go_with_the_model_into_every_file_and_copy(algo: str, tmp_path: Path) -> None:
    live = make_agent(algo).pretrain(make_dataset())
    facts, model = live.policy.fitted_with, live.policy.fitted_model or ""
    assert facts["fingerprint"] == make_dataset().fingerprint and facts["id"] == make_dataset().id
    assert {"action_low", "action_high", *getattr(live.policy, model).settings, *live.fitted_model_units} <= facts.keys()
    copies = {
        "archive": fitted(algo),
        "folder": load_agent(live.save_pretrained(tmp_path / "agent"), device="cpu"),
        "deep copy": copy.deepcopy(live),
        "file of the model": make_agent(algo, seed=4, **{model: shared(live)}),
        "the model itself": make_agent(algo, seed=4, **{model: getattr(live.policy, model)}),
        "parameters": make_agent(algo, seed=4),
    }
    copies["parameters"].set_parameters(io.BytesIO(_fitted(algo)))
    for way, agent in copies.items():
        assert agent.policy.fitted_with == facts, way
        assert make_agent(algo, **{model: shared(agent)}).policy.fitted_with == facts, way
    live.policy.save(tmp_path / "policy")
    assert type(live.policy).load(tmp_path / "policy", "cpu").fitted_with == facts


@each_unit
def test_other_units_are_refused_wherever_settings_meet_the_model(algo: str, name: str) -> None:
    live, other = fitted(algo), {name: OTHERS[name]}
    model, before = live.policy.fitted_model, snapshot(live)
    with refused(algo, name):
        fitted(algo, **other)
    for source in (shared(live), getattr(live.policy, model)):
        with refused(algo, name):
            make_agent(algo, **other, **{model: source})
        unfitted = make_agent(algo, **other)
        start = snapshot(unfitted)
        with refused(algo, name):
            unfitted.set_fitted_model(source)
        assert differing(start, snapshot(unfitted)) == []
    taker = make_agent(algo, **other)
    start = snapshot(taker)
    with refused(algo, name):
        taker.set_parameters(io.BytesIO(_fitted(algo)))
    assert differing(start, snapshot(taker)) == []
    with pytest.raises(UserError, match=f"{name} can't be changed to "):
        setattr(live, name, OTHERS[name])
    assert differing(before, snapshot(live)) == []


@each_unit
def test_units_are_not_left_out_of_a_file(algo: str, name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' can't be left out"):
        fitted(algo).save(io.BytesIO(), exclude=[name])


def test_statistics_of_data_that_are_refused_are_not_kept() -> None:
    given: Any = make_agent("qdq", normalize_observations=True).pretrain(make_dataset())
    agent = make_agent("qdq", normalize_observations=True, q_sampler=given.policy.q_sampler)
    before = snapshot(agent)
    with pytest.raises(UserError, match=r"fitted with (reward_scale|obs_mean)="):
        agent.learn_offline(make_dataset(1), 1)
    assert differing(before, snapshot(agent)) == []


@each_unit
def test_a_file_of_before_was_fitted_with_its_own_settings(algo: str, name: str) -> None:
    loaded = ALGOS[algo].load(without_facts(_fitted(algo)), device="cpu")
    assert {key: loaded.policy.fitted_with.get(key) for key in ("id", name)} == {"id": None, name: getattr(loaded, name)}
    with refused(algo, name):
        ALGOS[algo].load(without_facts(_fitted(algo)), device="cpu", **{name: OTHERS[name]})


@each
def test_a_model_of_other_actions_or_another_shape_is_refused(algo: str) -> None:
    other = spaces.Box(ACTION_SPACE.low * 2 - 1, ACTION_SPACE.high * 2 + 1)
    with refused(algo, "action_low"):
        make_agent(algo, (OBSERVATION_SPACE, other), **{fitted(algo).policy.fitted_model: shared(fitted(algo))})


@each
def test_what_a_live_agent_refuses_load_refuses_too(algo: str) -> None:
    live = fitted(algo)
    for name in live.fit_arguments():
        value = getattr(live, name)
        other = value + 1 if isinstance(value, int) and not isinstance(value, bool) else None
        if other is not None:
            with pytest.raises(
                UserError, match=f"{name} can't be changed to {other} in load: .* a fit that is done or at work"
            ):
                fitted(algo, **{name: other})
    shapes = {"flow": "affine"} if algo == "cped" else {"beta": 0.2} if algo == "spot" else {}
    for name, other in shapes.items():
        with pytest.raises(UserError, match=f"{name} can't be changed to .* in load: it shapes the policy"):
            fitted(algo, **{name: other})


def test_a_networks_argument_that_has_no_tensor_is_noticed() -> None:
    kwargs = fitted("qdq").policy_kwargs
    with pytest.raises(
        UserError, match=r"policy_kwargs can't be changed to .*'q_data_std': 0.7.* in load: it shapes the policy"
    ):
        fitted("qdq", policy_kwargs={**kwargs, "q_data_std": 0.7})


@pytest.mark.parametrize("way", ["live", "loaded", "given"])
@pytest.mark.parametrize("algo", [algo for algo, name in UNITS if name == "reward_transform"])
def test_data_of_another_scale_are_refused_and_leave_the_agent(algo: str, way: str) -> None:
    data, given = make_dataset(), {fitted(algo).policy.fitted_model: shared(fitted(algo))}
    agent: Any = fitted(algo) if way == "loaded" else make_agent(algo, **given)
    if way == "live":
        agent.learn_offline(data, 2)
    before, buffer = snapshot(agent), agent.replay_buffer
    for _ in range(2):
        with refused(algo, "reward_scale"):
            agent.learn_offline(make_dataset(1), 2)
    assert differing(before, snapshot(agent)) == [] and agent.replay_buffer is buffer
    agent.learn_offline(data, 2)


def test_rewards_of_online_steps_alone_are_compared_too() -> None:
    agent = make_agent("qdq", PointEnv(), q_sampler=shared(fitted("qdq")))
    with refused("qdq", "reward_scale"):
        agent.learn(4)


def test_a_model_without_a_part_to_play_is_compared_when_it_gets_one() -> None:
    agent: Any = make_agent("qdq", penalty="none", gamma=0.5, q_sampler=shared(fitted("qdq")))
    agent.learn_offline(make_dataset(), 2)
    with pytest.raises(
        UserError, match=r"penalty can't be changed to 'paper' .*fitted with gamma=0\.99 and is used with 0\.5"
    ):
        agent.penalty = "paper"
    agent.gamma = 0.99
    agent.penalty = "paper"
    agent.learn_offline(make_dataset(), 2)


class Stop(BaseCallback, FitListener):
    """Ends the training in the midst of a fit."""

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        return False

    def _on_step(self) -> bool:
        return True


@each_unit
def test_a_fit_goes_on_with_what_it_began_with(algo: str, name: str) -> None:
    agent, file = make_agent(algo).pretrain(make_dataset(), callback=Stop()), io.BytesIO()
    agent.save(file)
    with refused(algo, name):
        ALGOS[algo].load(file, device="cpu", **{name: OTHERS[name]})
    with pytest.raises(UserError, match=f"{name} can't be changed"):
        setattr(agent, name, OTHERS[name])
    other = make_agent(algo, gamma=0.5).pretrain(make_dataset(1))  # other data begin anew, with facts of their own
    agent.set_dataset(make_dataset(1))
    assert agent.pretrain(make_dataset(1)).policy.fitted_with["fingerprint"] == other.policy.fitted_with["fingerprint"]


@each
def test_a_dict_of_weights_does_not_say_how_they_were_fitted(algo: str) -> None:
    agent, other = fitted(algo), make_agent(algo, seed=8).pretrain(make_dataset())
    facts = agent.policy.fitted_with
    agent.set_parameters(agent.get_parameters())
    assert agent.policy.fitted_with == facts
    agent.set_parameters(other.get_parameters())
    assert agent.policy.fitted_with == {}
    file = io.BytesIO()
    agent.save(file)
    assert ALGOS[algo].load(file, device="cpu").policy.fitted_with == {}


def test_a_density_measures_data_that_are_new_to_it_and_no_others(tmp_path: Path) -> None:
    agent: Any = make_agent("cped", epsilon="quantile").learn_offline(make_dataset(), 2)
    first = agent.policy.nll_threshold.clone()
    agent.save(tmp_path / "agent")
    loaded: Any = ALGOS["cped"].load(tmp_path / "agent", device="cpu")
    loaded.policy.nll_threshold += 1.0
    loaded.learn_offline(make_dataset(), 2)
    assert loaded.policy.nll_threshold == first + 1.0
    with pytest.warns(UserWarning, match="The density was fitted on tests/point-0-v0 and is used with tests/point-1-v0"):
        agent.learn_offline(make_dataset(1), 2)
    expected = agent.policy.nll_of_rows(*agent.offline_rows()).quantile(agent.epsilon_quantile)
    assert agent.policy.nll_threshold == pytest.approx(float(expected)) and not th.equal(agent.policy.nll_threshold, first)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (3, "has fitted_with=3, which is not of the type"),
        ({"gamma": {"a": 1}}, "which is not of the type"),
        ({"gamma": "much"}, "fitted with gamma='much' and is used with 0.99"),
        ({"action_low": [1.0]}, "fitted with action_low="),
        ({"action_low": None}, "fitted with action_low=None"),
    ],
)
def test_facts_of_a_file_are_not_trusted(tmp_path: Path, facts: Any, message: str) -> None:
    config = fitted("qdq").save_pretrained(tmp_path) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"fitted_with": facts}))
    with pytest.raises(CheckpointError, match=message):
        load_agent(tmp_path)


def test_facts_are_plain_and_not_edited() -> None:
    facts = fitted("qdq").policy.fitted_with
    assert json.loads(json.dumps(facts)) == facts
    np.testing.assert_array_equal(facts["action_high"], ACTION_SPACE.high)
    with pytest.raises(UserError, match="can't be edited in place"):
        facts["gamma"] = 0.5  # type: ignore[index]
