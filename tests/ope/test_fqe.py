"""FQE finds values that are known, keeps policy and data as they were, and goes on exactly."""

import io
from typing import Any

import numpy as np
import pytest
import torch as th
from problems import Linear, linear_data
from worlds import differing, make_agent, make_dataset, snapshot

from sb3_genoffline import UserError
from sb3_genoffline.ope import FQE

STATES, CHOSEN = np.array([[-1.0], [0.5], [2.0]], np.float32), np.array([[0.5], [-1.0], [1.5]], np.float32)


def linear(policy: Any, data: Any, **settings: Any) -> FQE:
    """Q-functions without hidden layers: what they can say of a linear problem is exact."""
    arguments: dict[str, Any] = {"gamma": 0.95, "net_arch": (), "weight_decay": 0.0, "learning_rate": 3e-3, "device": "cpu"}
    return FQE(policy, data, **(arguments | {"clip_targets": False, "n_members": 2} | settings))


def test_a_linear_problem_is_solved():
    """Q = 2.69011628 s + 2.37790698 a and V = 1.97674419 s; actions come in the box's units, ± 2."""
    data = linear_data()
    fqe = linear(Linear(), data, batch_size=250, tau=0.3, learning_rate=1e-2, initial_observations=STATES).fit(500)
    expected = (2.69011628 * STATES + 2.37790698 * CHOSEN)[:, 0]
    assert fqe.predict_value(STATES, CHOSEN) == pytest.approx(np.stack([expected, expected]), abs=0.08)
    assert fqe.estimate().value == pytest.approx(1.97674419 * STATES.mean(), abs=0.08)
    assert fqe.td_error() < 1e-3
    assert fqe.drift < 0.05


@pytest.mark.parametrize("terminal", [False, True])
def test_time_outs_go_on_and_terminations_do_not(terminal: bool):
    """Reward 1 in every row, each of them an episode's end: worth 1/(1 − γ), or 1."""
    n = 200
    data = linear_data(n, n_rows_episode=1)
    ends = {"terminations": np.full(n, terminal), "truncations": np.full(n, not terminal)}
    fqe = linear(
        Linear(),
        data.replace(rewards=np.ones(n, np.float32), **ends),
        gamma=0.9,
        tau=0.5,
        learning_rate=3e-2,
        clip_targets=True,
    )
    assert fqe.fit(200).estimate().value == pytest.approx(1.0 if terminal else 10.0, rel=0.02)


def test_the_members_mean_counts_and_not_their_minimum():
    fqe = linear(Linear(), linear_data(200), n_members=3).fit(5)
    q = fqe.predict_value(STATES, CHOSEN)
    assert q.shape == (3, 3) and np.ptp(q, axis=0).min() > 0
    values = fqe.state_values(fqe.initial_observations)
    weighed = (values * fqe._row_weights).sum(1) / fqe._row_weights.sum(1)
    assert fqe.estimate().value == pytest.approx(weighed.mean())


def test_each_member_learns_from_its_own_episodes():
    """A member that has none of an episode's rows does not see it."""
    data = linear_data(80, n_rows_episode=40)
    changed = data.replace(rewards=np.where(np.arange(80) < 40, data.rewards, 1e3).astype(np.float32))
    members = []
    for rows in (data, changed):
        fqe = linear(Linear(), rows, n_members=2)
        fqe.reward_scale, fqe._fit.buffer.reward_scale = 1.0, 1.0
        fqe._fit.row_weights = th.tensor([[2.0, 0.0], [1.0, 1.0]])
        members.append(fqe.fit(20).predict_value(STATES, CHOSEN))
    assert members[0][0] == pytest.approx(members[1][0], abs=1e-9)
    assert abs(members[0][1] - members[1][1]).max() > 1e-3


def test_targets_beyond_what_is_attainable_are_clipped_and_said():
    data = linear_data(200)
    fqe = linear(Linear(), data, clip_targets=True)
    low, high = fqe._fit.bounds
    assert (low, high) == pytest.approx((data.rewards.min() / fqe.reward_scale, data.rewards.max() / fqe.reward_scale))
    with th.no_grad():
        fqe._fit.target.output_layer.bias += 10 * high
    with pytest.warns(UserWarning, match=r"% of the targets lie beyond what is attainable"):
        fqe.fit(3)


@pytest.mark.parametrize("sign", [1, -1])
def test_bounds_reach_zero_where_episodes_terminate(sign: int):
    data = linear_data(200)
    ends = {"terminations": data.truncations, "truncations": np.zeros(200, bool)}
    fqe = linear(Linear(), data.replace(rewards=sign * (1 + abs(data.rewards)), **ends), clip_targets=True)
    assert fqe._fit.bounds[0 if sign > 0 else 1] == 0


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("cached", [True, False])
def test_a_fit_goes_on_bit_for_bit(noise: float, cached: bool):
    data = linear_data(120)
    make = lambda: linear(Linear(noise=noise), data, cache_actions=cached, net_arch=(8,))  # noqa: E731
    whole, first = make().fit(7), make().fit(3)
    file = io.BytesIO()
    first.save(file)
    second = make().load(io.BytesIO(file.getvalue())).fit(4)
    assert second.predict_value(STATES, CHOSEN).tolist() == whole.predict_value(STATES, CHOSEN).tolist()
    assert second.estimate() == whole.estimate()


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (STATES[:2], CHOSEN, r"observations \(2, 1\) and actions \(3, 1\) must have the shapes \(B, 1\) and \(B, 1\)"),
        (STATES, np.zeros((3, 2)), r"actions \(3, 2\) must have"),
        (STATES[:, 0], CHOSEN, r"observations of shape \(3,\) must be finite numbers in two axes"),
        (STATES, CHOSEN * np.nan, r"actions of shape \(3, 1\) must be finite numbers"),
        (STATES, "x", "actions must be numbers, not 'x'"),
        (None, CHOSEN, "observations"),
    ],
)
def test_values_are_asked_for_in_the_datas_shapes(observations: Any, actions: Any, message: str):
    with pytest.raises(UserError, match=message):
        linear(Linear(), linear_data(80)).predict_value(observations, actions)


@pytest.mark.parametrize(
    ("observations", "message"),
    [
        (np.zeros((3, 2)), r"observations \(3, 2\) must be \(B, 1\)"),
        (STATES * np.nan, r"observations of shape \(3, 1\) must be finite numbers"),
        (STATES[:, 0], r"observations of shape \(3,\) must be finite numbers in two axes"),
        ("x", "observations must be numbers, not 'x'"),
    ],
)
def test_values_of_states_are_asked_for_in_the_datas_shape(observations: Any, message: str):
    fqe = linear(Linear(), linear_data(80))
    with pytest.raises(UserError, match=message):
        fqe.state_values(observations)
    with pytest.raises(UserError, match="n_samples=0 must be at least 1"):
        fqe.state_values(STATES, 0)


@pytest.mark.parametrize("algo", ["dac", "qdq", "bc"])
def test_judging_leaves_the_agent_as_it_was(algo: str):
    data = make_dataset()
    judged, left_alone = make_agent(algo), make_agent(algo)
    for agent in (judged, left_alone):
        agent.learn_offline(data, 2)
    before, world = snapshot(judged), th.get_rng_state()
    fqe = FQE(judged, data, gamma=0.9, net_arch=(8,), n_members=2, device="cpu").fit(2)
    assert np.isfinite(fqe.estimate().value)
    assert th.equal(th.get_rng_state(), world)
    assert not differing(before, snapshot(judged))
    observations = data.observations[:5]
    assert judged.predict(observations)[0].tolist() == left_alone.predict(observations)[0].tolist()


def test_the_agents_own_critic_is_never_asked(monkeypatch: pytest.MonkeyPatch):
    data, agent = make_dataset(), make_agent("td3_bc")
    agent.learn_offline(data, 1)
    monkeypatch.setattr(agent.policy.critic, "forward", lambda *_: pytest.fail("asked"))
    monkeypatch.setattr(agent.policy.critic, "of_samples", lambda *_: pytest.fail("asked"))
    FQE(agent, data, net_arch=(8,), n_members=2, device="cpu").fit(2).estimate()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": 1.0}, r"gamma=1.0 must lie in \(0, 1\)"),
        ({"n_members": 0}, "n_members=0 must be at least 1"),
        ({"initial_observations": np.zeros((2, 3))}, r"initial_observations has shape \(2, 3\), but \(n, 1\) is expected"),
    ],
)
def test_bad_arguments_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        FQE(Linear(), linear_data(80), device="cpu", **settings)


class Wrong:
    def __init__(self, actions: Any) -> None:
        self.actions = actions

    def predict(self, observations: Any, deterministic: bool = False) -> Any:
        return self.actions(observations), None


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Linear, "Linear is a class, not an agent: make and train one"),
        (object(), "object has no predict, so it can't be judged"),
        (Wrong(lambda o: np.zeros((len(o), 3))), r"returned actions of shape .* not \(\d+, 1\)"),
        (Wrong(lambda o: np.full((len(o), 1), np.nan)), "returned actions that are not finite"),
    ],
)
def test_what_is_no_policy_of_the_data_is_refused(policy: Any, message: str):
    with pytest.raises(UserError, match=message):
        FQE(policy, linear_data(80), device="cpu").fit(1)
