"""Diffuser plans with its slow copies, for each environment apart, and keeps plans only where it is told to."""

from typing import Any

import numpy as np
import pytest
import torch as th
from exact import close
from test_diffuser_update import agent, random_batch
from worlds import make_agent, make_dataset

from sb3_genoffline import Diffuser, load_agent
from sb3_genoffline.diffuser import policies
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.archive import CheckpointError
from sb3_genoffline.files.untrusted import check_sizes
from sb3_genoffline.generative.window_diffusion import plan_windows

OBSERVATIONS = np.linspace(-1, 1, 9).reshape(3, 3)


def planner(**changes: Any) -> Any:
    """An agent whose copies are not its networks, and whose statistics are not 0 and 1."""
    model = agent(**({"guide_scale": 0.5} | changes))
    model.policy.set_observation_statistics(th.tensor([0.5, -1.0, 0.2]), th.tensor([2.0, 0.7, 1.3]))
    model.policy.set_action_statistics(th.tensor([0.1, -0.2]), th.tensor([0.3, 0.4]))
    for seed in range(3):
        model.step(random_batch(seed), model.draw_noise(2))
    return model


@pytest.mark.usefixtures("float64")
def test_each_environment_gets_the_best_of_its_own_plans() -> None:
    """README claim 6: whatever the values of the others, and with the copies of both networks."""
    model = planner()
    policy, n = model.policy, 3
    model.set_acting_seed(5)
    actions, state = model.predict(OBSERVATIONS, deterministic=True)
    assert state is None
    model.set_acting_seed(5)
    noise = policy.acting_noise(5, n * 3, 4, 5)
    for number, state_now in enumerate(policy.normalize_observations(th.as_tensor(OBSERVATIONS))):
        own = noise[:, 3 * number : 3 * number + 3]
        windows, values = plan_windows(
            policy.diffusion_target.predict_clean,
            lambda x, t: policy.value_target(x, th.full((len(x),), t)),
            policy.diffusion.schedule,
            own,
            state_now.repeat(3, 1),
            guide_scale=0.5,
        )
        first = windows[values.argmax(), 0, :2] * th.tensor([0.3, 0.4]) + th.tensor([0.1, -0.2])
        close(actions[number], first.clamp(-1, 1), 1e-6)


@pytest.mark.usefixtures("float64")
def test_online_networks_take_no_part_in_acting_and_planning_leaves_no_gradient() -> None:
    """README claim 6."""
    model, found = planner(), []
    for parameter in model.policy.parameters():
        parameter.grad = None
    for _ in range(2):
        model.set_acting_seed(1)
        found.append(model.predict(OBSERVATIONS, deterministic=True)[0])
        assert all(parameter.grad is None for parameter in model.policy.parameters())
        for network in (model.diffusion, model.value):
            for parameter in network.parameters():
                parameter.data += 1.0
    assert np.array_equal(*found)


@pytest.mark.usefixtures("float64")
def test_plans_begin_in_the_present_and_are_in_the_datas_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """README claim 6: however many are made at once."""
    monkeypatch.setattr(policies, "PLANNED_TOGETHER", 5)
    model = planner()
    with th.no_grad():
        plans = model.policy.plan(th.as_tensor(OBSERVATIONS))
    close(plans.observations[:, 0], OBSERVATIONS, 1e-12)
    assert plans.observations.shape == (3, 4, 3) and plans.actions.shape == (3, 4, 2) and plans.values.shape == (3,)
    assert bool((plans.actions.abs() <= 1).all())


def test_how_far_the_guide_goes_is_a_setting_of_a_live_agent() -> None:
    """README claim 6: without a scale, plans are the diffusion's."""
    model: Any = make_agent("diffuser")
    found = []
    for scale, n_steps in ((0.0, 2), (0.1, 0), (0.1, 2)):
        model.guide_scale, model.n_guide_steps = scale, n_steps
        model.set_acting_seed(0)
        found.append(model.predict(OBSERVATIONS, deterministic=True)[0])
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[1], found[2])


def test_plans_that_are_no_numbers_are_not_chosen() -> None:
    """README claim 6: where none is left, the action is the data's mean."""
    model: Any = make_agent("diffuser", n_plans=50)
    model.policy.action_mean.fill_(0.25)
    model.set_acting_seed(0)
    with th.no_grad():
        for weight in model.policy.value_target.parameters():
            weight.mul_(th.inf)
        plans = model.policy.plan(th.zeros(2, 3))
    assert bool((plans.actions[:, 0] == 0.25).all())


def test_an_agent_explores_with_one_guided_plan() -> None:
    """README claim 6."""
    model = make_agent("diffuser")
    model.set_acting_seed(3)
    actions, _ = model.predict(OBSERVATIONS, deterministic=False)
    model.n_plans = 1  # type: ignore[attr-defined]
    model.set_acting_seed(3)
    assert np.array_equal(model.predict(OBSERVATIONS, deterministic=True)[0], actions)


def test_plans_are_kept_for_as_many_actions_as_is_said() -> None:
    """README claim 7: each environment's own, anew where an episode begins; the caller's state stays."""
    model = make_agent("diffuser", replan_every=3)
    assert model.policy.has_memory and not make_agent("diffuser").policy.has_memory
    _, state = model.predict(OBSERVATIONS, deterministic=True)
    kept = tuple(part.copy() for part in state)
    second, after = model.predict(OBSERVATIONS + 1, state, np.array([False, True, False]), deterministic=True)
    assert all(map(np.array_equal, state, kept)) and after.step.tolist() == [2, 1, 2]
    assert np.array_equal(model.policy.unscale_action(state.actions[:, 1])[[0, 2]], second[[0, 2]])
    assert not np.array_equal(after.actions[1], state.actions[1])
    assert np.array_equal(model.policy.unscale_action(after.actions[1, 0]), second[1])
    _, third = model.predict(OBSERVATIONS, after)
    _, fourth = model.predict(OBSERVATIONS, third)
    assert third.step.tolist() == [3, 2, 3] and fourth.step.tolist() == [1, 3, 1]
    assert not np.array_equal(fourth.actions[0], third.actions[0]) and np.array_equal(fourth.actions[1], third.actions[1])


def test_a_plan_is_not_followed_beyond_its_end() -> None:
    """README claim 7."""
    model = make_agent("diffuser", replan_every=100)
    action, state = model.predict(OBSERVATIONS[0], deterministic=True)
    assert action.shape == (2,) and state.actions.shape == (1, 4, 2)
    for _ in range(4):
        _, state = model.predict(OBSERVATIONS[0], state, deterministic=True)
    assert state.step.tolist() == [1]


def test_no_observations_get_no_plans() -> None:
    model = make_agent("diffuser", replan_every=1)
    assert model.predict(OBSERVATIONS[:0], deterministic=True)[0].shape == (0, 2)


def test_a_state_that_is_no_plan_is_refused() -> None:
    """README claim 7."""
    model = make_agent("diffuser", replan_every=2)
    _, state = model.predict(OBSERVATIONS)
    for wrong in (np.zeros(3), tuple(part[:2] for part in state)):
        with pytest.raises(UserError, match=r"The state is not a plan for 3 environments with replan_every=2"):
            model.predict(OBSERVATIONS, wrong)


def test_what_can_not_be_done_is_refused_in_one_sentence(tmp_path: Any) -> None:
    """README claim 8."""
    model = make_agent("diffuser")
    with pytest.raises(UserError, match="Diffuser can't continue online"):
        model.learn(1)
    with pytest.raises(UserError, match="horizon=6 can't be halved 2 times"):
        make_agent("diffuser", horizon=6, policy_kwargs={"channels": [8, 16, 32]})
    for sizes in ({"channels": [8, 4096]}, {"horizon": 1000}):
        with pytest.raises(CheckpointError, match="refused"):
            check_sizes(sizes, 3, 2, 1000)


def test_statistics_of_actions_are_saved_with_the_agent(tmp_path: Any) -> None:
    """README claim 2."""
    model = make_agent("diffuser")
    model.learn_offline(make_dataset(), 2)
    model.save_pretrained(tmp_path / "agent")
    again: Any = load_agent(tmp_path / "agent", device="cpu")
    assert isinstance(again, Diffuser) and again.policy.action_std.ne(1).all()
    found = []
    for one in (model, again):
        one.set_acting_seed(0)
        found.append(one.predict(OBSERVATIONS, deterministic=True)[0])
    assert np.array_equal(*found)
