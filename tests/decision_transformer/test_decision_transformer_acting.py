"""Decision Transformer acts by its history, which SB3 hands back, and by the rewards that it is told."""

import re
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from exact import close
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from test_decision_transformer_update import RETURNS, R, agent, inputs
from worlds import make_agent, make_dataset

from sb3_genoffline import DecisionTransformer, load_from_hub, with_rewards
from sb3_genoffline.common.callbacks import OfflineEvalCallback
from sb3_genoffline.decision_transformer.policies import History
from sb3_genoffline.errors import UserError
from sb3_genoffline.hub.card import _usage
from sb3_genoffline.ope.acting import TargetPolicy
from sb3_genoffline.testing import ACTION_SPACE, OBSERVATION_SPACE, PointEnv
from zoo.plot.maze import walk
from zoo.runs.film import play
from zoo.runs.sweeping import sweep

RNG = np.random.default_rng(0)
UNTOLD = "was told no reward"


def trained(**changes: Any) -> Any:
    return make_agent("decision_transformer", **changes).learn_offline(make_dataset(), 4)


class Walk(gym.Env):
    """The action moves the place; an episode of environment i ends after 3 + 2i steps, the next ones a step later each."""

    observation_space, action_space = OBSERVATION_SPACE, ACTION_SPACE

    def __init__(self, number: int) -> None:
        self.number, self.episode, self.actions = number, -1, list[np.ndarray]()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episode, self.steps = self.episode + 1, 0
        self.place = np.full(3, 0.1 * (self.number + 1), dtype=np.float32)
        return self.place.copy(), {}

    def step(self, action: np.ndarray) -> Any:
        self.actions.append(action.copy())
        self.steps += 1
        self.place[:2] += 0.1 * action
        done = self.steps >= 3 + 2 * self.number + self.episode
        return self.place.copy(), float(self.place.sum()), done, False, {}


def walks(*numbers: int) -> DummyVecEnv:
    return DummyVecEnv([lambda number=number: Monitor(Walk(number)) for number in numbers])


def actions_of(envs: DummyVecEnv, number: int) -> np.ndarray:
    return np.array(envs.envs[number].unwrapped.actions)


def test_several_environments_act_bit_for_bit_as_each_alone() -> None:
    """README claim 9: whenever their episodes end."""
    model, together = trained(), walks(0, 1, 2)
    evaluate_policy(model, together, 6, callback=with_rewards(model))
    for number in range(3):
        alone = walks(number)
        evaluate_policy(model, alone, 2, callback=with_rewards(model))
        ours = actions_of(alone, 0)
        assert len(ours) == 7 + 4 * number
        assert np.array_equal(actions_of(together, number)[: len(ours)], ours)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("steps", "expected"),
    [(2, [0.90002369, 0.48847335]), (6, [0.52612387, 0.45046724])],
)
def test_acting_gives_known_numbers(steps: int, expected: list[float]) -> None:
    """README claim 7: by the last K steps, counted from the episode's start, and with an action of 0 for the coming one."""
    states, actions, returns_to_go, *_ = (column.flatten(0, 1).numpy() for column in inputs())
    rows = slice(1, 3) if steps == 2 else slice(0, 6)
    states, actions, returns_to_go = states[rows], actions[rows], returns_to_go[rows]
    known = min(steps - 1, 3)
    past = [np.zeros((1, 3, 3)), np.zeros((1, 3, 2)), np.zeros((1, 3))]
    for kept, column in zip(past, (states, actions, returns_to_go), strict=True):
        kept[0, 3 - known :] = column[steps - 1 - known : steps - 1]
    earned = returns_to_go[-2] - returns_to_go[-1]
    state = History(*past, np.array([known]), np.array([steps - 2]), np.array([earned]))
    _, after = agent().predict(states[-1:], state)
    close(after.actions[0, -1], expected, 1e-8)
    close(after.returns_to_go[0, -1], returns_to_go[-1])
    assert after.step.tolist() == [steps - 1] and after.length.tolist() == [min(steps, 3)]


@pytest.mark.usefixtures("float64")
def test_steps_are_those_of_the_episode() -> None:
    """README claim 7: with steps counted anew in each window it would say (0.65657230, 0.47709081)."""
    states, actions, returns_to_go, _, _ = (column[1:] for column in inputs())
    actions[0, -1] = 0.0
    model, valid = agent(), th.ones(1, 3, dtype=th.bool)
    for first, expected in ((0, [0.65657230, 0.47709081]), (3, [0.52612387, 0.45046724])):
        with th.no_grad():
            said = model.actor(states, actions, returns_to_go, first + th.arange(3)[None], valid)
        close(said[0, -1], expected, 1e-8)


@pytest.mark.usefixtures("float64")
def test_rewards_are_subtracted_from_the_return_that_is_asked_for() -> None:
    """README claim 8: each once, before the next action, divided as the return is."""
    model = agent(return_scale=2.0, target_return=2.0 * RETURNS[0])
    state, asked = None, []
    for n in range(6):
        _, state = model.predict(np.zeros((1, 3)), state)
        asked.append(state.returns_to_go[0, -1])
        for part in (0.5, 0.5):
            model.policy.observe_rewards(state, [part * 2.0 * R[n]])
    close(asked, RETURNS, 1e-7)


def test_without_a_target_the_largest_return_of_the_data_is_asked_for() -> None:
    """README claim 8; loaded agents know it too."""
    model = trained()
    _, state = model.predict(np.zeros((2, 3), dtype=np.float32))
    assert state.returns_to_go[:, -1] == pytest.approx(make_dataset().episode_returns().max() / 1000, rel=1e-6)
    model.target_return = 70
    _, state = model.predict(np.zeros((2, 3), dtype=np.float32))
    assert state.returns_to_go[:, -1].tolist() == [0.07, 0.07]


@pytest.mark.parametrize(
    ("state_dim", "action_dim", "width", "n_heads"), [(1, 1, 128, 1), (3, 1, 128, 1), (17, 6, 10, 5), (17, 3, 128, 2)]
)
def test_sizes_do_not_matter_for_acting_as_alone(state_dim: int, action_dim: int, width: int, n_heads: int) -> None:
    """Matrix products of one sequence may be rounded otherwise than those of several."""
    spaces_of = spaces.Box(-9.0, 9.0, (state_dim,)), spaces.Box(-1.0, 1.0, (action_dim,))
    sizes = {"embed_dim": width, "n_heads": n_heads, "n_layers": 1}
    model = DecisionTransformer("MlpPolicy", spaces_of, seed=0, device="cpu", context_length=3, policy_kwargs=sizes)
    observations = np.random.default_rng(0).normal(size=(60, state_dim)).astype(np.float32)
    alone = np.concatenate([model.predict(observations[[row]])[0] for row in range(60)])
    for n in (2, 3, 60):
        np.testing.assert_array_equal(
            np.concatenate([model.predict(rows)[0] for rows in np.split(observations, 60 // n)]), alone
        )


def test_without_a_state_an_episode_begins_whatever_is_said_of_it() -> None:
    model = trained(target_return=5.0)
    observation = np.ones((2, 3), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actions, state = model.predict(observation, None, np.zeros(2, bool))
    expected = model.predict(observation)
    np.testing.assert_array_equal(actions, expected[0])
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(state, expected[1], strict=True))


def test_an_episode_start_clears_its_own_environment_alone() -> None:
    """README claim 7."""
    model = trained()
    observations = RNG.normal(size=(4, 2, 3)).astype(np.float32)

    def last(starts: Any) -> tuple[np.ndarray, Any]:
        state = None
        for observation in observations[:3]:
            _, state = model.predict(observation, state)
            model.policy.observe_rewards(state, [1.0, 2.0])
        return model.predict(observations[3], state, starts)  # type: ignore[no-any-return]

    fresh, _ = model.predict(observations[3])
    going_on, _ = last(None)
    mixed, state = last(np.array([True, False]))
    assert np.array_equal(mixed[0], fresh[0]) and np.array_equal(mixed[1], going_on[1])
    assert not np.array_equal(fresh[1], going_on[1])
    assert state.length.tolist() == [1, 3] and state.step.tolist() == [0, 3]


def test_predict_leaves_the_state_that_it_is_given() -> None:
    """README claim 7: a caller may go back to it."""
    model = trained()
    _, state = model.predict(np.ones((2, 3), dtype=np.float32))
    model.policy.observe_rewards(state, [0.5, 1.0])
    before = [part.copy() for part in state]
    first, _ = model.predict(np.zeros((2, 3), dtype=np.float32), state)
    assert all(map(np.array_equal, before, state))
    again, _ = model.predict(np.zeros((2, 3), dtype=np.float32), tuple(state))
    assert np.array_equal(first, again)


def test_the_history_holds_actions_as_the_network_says_them() -> None:
    """README claim 7: in [−1, 1], whatever the action space."""
    wide = spaces.Box(np.array([-2.0, 10.0], dtype=np.float32), np.array([2.0, 30.0], dtype=np.float32))
    model = make_agent("decision_transformer", (OBSERVATION_SPACE, wide))
    actions, state = model.predict(RNG.normal(size=(5, 3)).astype(np.float32))
    assert np.abs(state[1][:, -1]).max() <= 1.0 and actions[:, 1].min() >= 10.0
    np.testing.assert_allclose(actions, [0, 20] + state[1][:, -1] * [2, 10], rtol=1e-5)


def test_steps_beyond_the_table_act_like_its_last() -> None:
    """README claim 7."""
    model = make_agent("decision_transformer", context_length=1, max_episode_steps=2)
    observation, state, said = np.ones((1, 3), dtype=np.float32), None, []
    for _ in range(4):
        action, state = model.predict(observation, state)
        model.policy.observe_rewards(state, 0.0)
        said.append(action)
    assert not np.array_equal(said[0], said[1])
    assert np.array_equal(said[1], said[2]) and np.array_equal(said[2], said[3])


@pytest.mark.parametrize("state", [(np.zeros(3),), "what", History(*(np.zeros(1) for _ in range(6)))])
def test_what_is_no_history_is_refused(state: Any) -> None:
    with pytest.raises(UserError, match="The state is not a history of 2 environments"):
        make_agent("decision_transformer").predict(np.zeros((2, 3), dtype=np.float32), state)


def test_untold_rewards_are_warned_of_once() -> None:
    """README claim 8."""
    model = trained()
    with pytest.warns(UserWarning, match=UNTOLD) as caught:
        evaluate_policy(model, walks(0, 1), 4)
    assert len([warning for warning in caught if UNTOLD in str(warning.message)]) == 1


def test_rewards_reach_the_policy_in_both_callbacks_ways(tmp_path: Path) -> None:
    """README claim 8: SB3's own works and warns, ours tells the rewards."""
    model, envs, ours = trained(), walks(0), walks(0)
    with pytest.warns(UserWarning, match=UNTOLD):
        model.learn_offline(make_dataset(), 1, EvalCallback(envs, n_eval_episodes=2, eval_freq=1))
    told: Any = trained()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told.learn_offline(make_dataset(), 1, OfflineEvalCallback(ours, n_eval_episodes=2, eval_freq=1))
    assert not np.array_equal(actions_of(envs, 0), actions_of(ours, 0))


def test_rewards_that_a_wrapper_normalises_are_told_as_they_were() -> None:
    """README claim 8."""
    model, plain, wrapped = trained(), walks(0, 1), walks(0, 1)
    evaluate_policy(model, plain, 4, callback=with_rewards(model))
    normalising = VecNormalize(wrapped, norm_obs=False)
    evaluate_policy(model, normalising, 4, callback=with_rewards(model))
    assert np.array_equal(actions_of(plain, 1), actions_of(wrapped, 1))


def test_a_callback_of_ones_own_is_called_and_other_policies_take_no_notice() -> None:
    calls: list[float] = []
    for model in (trained(), make_agent("bc")):
        evaluate_policy(model, walks(0), 1, callback=with_rewards(model, lambda local, _: calls.append(local["reward"])))
    assert len(calls) == 6


def test_playing_is_evaluating() -> None:
    """README claim 9: `enjoy` hands on the history and the rewards."""
    model, env, envs = trained(), Walk(1), walks(1)
    play(model, env, 11)
    evaluate_policy(model, envs, 2, deterministic=True, callback=with_rewards(model))
    assert np.array_equal(env.actions, actions_of(envs, 0)[:11])


def test_walks_through_a_maze_end_one_by_one_and_the_others_keep_their_history() -> None:
    """README claim 9: as `zoo plot maze` draws them."""
    model, numbers = trained(), iter(range(3))
    together = walk(model, lambda: Walk(next(numbers)), 3)
    for number, ours in enumerate(together):
        (alone,) = walk(model, lambda number=number: Walk(number), 1)  # type: ignore[misc]
        assert len(ours.path) == 4 + 2 * number and np.array_equal(ours.path, alone.path)


def test_the_snippet_of_a_published_agents_card_hands_on_history_and_rewards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """README claim 9."""
    gym.register("dt-tests/Walk-v0", entry_point=lambda: Walk(1))
    model = trained()
    total = play(model, Walk(1), 5).returns[0]
    results: Any = {"env_id": "dt-tests/Walk-v0", "env_spec": None}
    snippet = _usage(model, str(model.save_pretrained(tmp_path / "agent")), "agent", results, False)
    (code,) = re.findall(r"```python\n(.*?)```", snippet, flags=re.DOTALL)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=f".*{UNTOLD}")
        exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == f"return {total:.1f}\n"


def test_target_returns_are_swept() -> None:
    """README claim 9: as `zoo evaluate --sweep target_return ...` does."""
    model = trained(env=PointEnv())
    found = sweep(model, PointEnv, "target_return", ["-3000", "3000"], n_eval_episodes=2, eval_seed=1000)
    assert [result["target_return"] for result in found["results"]] == [-3000.0, 3000.0]
    assert found["results"][0]["mean_reward"] != found["results"][1]["mean_reward"]
    assert model.target_return is None and model.policy.target_return is None


def test_an_agent_from_a_folder_goes_on_with_a_history_as_the_saved_one(tmp_path: Path) -> None:
    """README claim 9: as from the Hub."""
    model = trained(target_return=30.0)
    loaded: Any = load_from_hub(str(model.save_pretrained(tmp_path / "agent")), device="cpu")
    _, state = model.predict(np.ones((2, 3), dtype=np.float32))
    model.policy.observe_rewards(state, [1.0, 2.0])
    ours, _ = model.predict(np.zeros((2, 3), dtype=np.float32), state)
    theirs, after = loaded.predict(np.zeros((2, 3), dtype=np.float32), state)
    assert np.array_equal(ours, theirs)
    assert after.returns_to_go[:, -1].tolist() == pytest.approx([0.029, 0.028])


def test_what_can_not_be_done_is_refused_in_one_sentence() -> None:
    """README claim 10."""
    model = trained(env=PointEnv())
    with pytest.raises(UserError, match="DecisionTransformer can't continue online: it learns from whole episodes"):
        model.learn(5)
    with pytest.raises(UserError, match="DecisionTransformerPolicy acts by its history"):
        TargetPolicy(model, ACTION_SPACE)
    with pytest.raises(UserError, match=r"embed_dim=8 can't be divided among n_heads=3"):
        make_agent("decision_transformer", policy_kwargs={"embed_dim": 8, "n_heads": 3})


def test_more_is_reached_where_more_is_asked_for() -> None:
    """README claim 11: episodes of the data earn their speed at every step, and the speed is told by the return alone."""
    rng = np.random.default_rng(0)
    speeds = np.repeat(rng.uniform(-0.9, 0.9, 100), 5)[:, None].astype(np.float32)
    data = {
        "observations": np.zeros((500, 1), np.float32),
        "actions": speeds,
        "rewards": speeds[:, 0],
        "next_observations": np.zeros((500, 1), np.float32),
        "terminals": np.arange(1, 501) % 5 == 0,
        "action_space": [-1.0, 1.0],
    }
    small = {"context_length": 1, "return_scale": 4.0, "max_episode_steps": 5, "warmup_steps": 10, "learning_rate": 5e-3}
    kwargs = {"embed_dim": 16, "n_layers": 1, "dropout": 0.0}
    model: Any = DecisionTransformer("MlpPolicy", seed=0, device="cpu", policy_kwargs=kwargs, **small)
    model.learn_offline(data, 250, log_interval=None)
    reached = []
    for target in (-4.0, -2.0, 0.0, 2.0, 4.0):
        model.target_return, state, total = target, None, 0.0
        for _ in range(5):
            action, state = model.predict(np.zeros(1, np.float32), state)
            model.policy.observe_rewards(state, action)
            total += float(action[0])
        reached.append(total)
    np.testing.assert_allclose(reached, [-4, -2, 0, 2, 4], atol=0.6)
