"""
The questions that every algorithm is asked, for the tests of packages that bring one::

    from sb3_genoffline.testing import check_algorithm

    def test_my_algorithm():
        check_algorithm(MyAlgorithm, policy_kwargs={"net_arch": [8, 8]})

Each question takes a function that makes a small agent, and raises an ``AssertionError`` that says what is wrong.
"""

import io
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.errors import UserError
from sb3_genoffline.registry import ALGOS, load_agent

OBSERVATION_SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTION_SPACE = spaces.Box(np.array([0, -2], np.float32), np.array([1, 5], np.float32))
MakeAgent = Callable[..., AnyAlgorithm]


class PointEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    A point that actions push: three observations, two actions in [0, 1] × [−2, 5]. Episodes are cut after ``limit`` steps, or
    end where the point goes beyond ``goal``.

    :param dtype: of observations and of their space
    :param goal: where an episode terminates
    :param limit: steps after which it is truncated
    """

    action_space = ACTION_SPACE

    def __init__(self, dtype: Any = np.float32, goal: float = np.inf, limit: int = 5) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), dtype)
        self.dtype, self.goal, self.limit = dtype, goal, limit
        self.position, self.steps = np.zeros(3), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.normal(size=3), 0
        return self.position.astype(self.dtype), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(np.asarray(action, np.float32)), f"{action} lies outside the action space"
        self.steps += 1
        self.position = self.position + np.array([action[0], action[1], 1.0])
        reward = float(self.position[0] - abs(self.position[1]))
        ended = bool(self.position[2] > self.goal)
        return self.position.astype(self.dtype), reward, ended, self.steps >= self.limit and not ended, {}


def point_dataset(seed: int = 0, n_rows: int = 60) -> OfflineDataset:
    """
    Rows of random numbers in the point's spaces: episodes of 10, of which every other one terminates.

    :param seed: of the numbers
    :param n_rows: a multiple of 10
    """
    rng = np.random.default_rng(seed)
    last, even = np.arange(n_rows) % 10 == 9, np.arange(n_rows) // 10 % 2 == 0
    observations = rng.normal(2.0, 3.0, size=(n_rows, 3))
    following = np.where(last[:, None], rng.normal(2.0, 3.0, size=(n_rows, 3)), np.roll(observations, -1, axis=0))
    return OfflineDataset(
        observations=observations,
        actions=rng.uniform(ACTION_SPACE.low, ACTION_SPACE.high, size=(n_rows, 2)),
        rewards=rng.normal(size=n_rows),
        next_observations=following,
        terminations=last & even,
        truncations=last & ~even,
        observation_space=OBSERVATION_SPACE,
        action_space=ACTION_SPACE,
        id=f"tests/point-{seed}-v0",
        ref_min_score=-10.0,
        ref_max_score=30.0,
    )


def observations(n: int = 7) -> np.ndarray:
    """(n, 3) observations, always the same."""
    return np.random.default_rng(5).normal(size=(n, 3)).astype(np.float32)


def weights(agent: AnyAlgorithm) -> dict[str, Tensor]:
    """A copy of the policy's state."""
    return {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}


def contents(agent: AnyAlgorithm) -> dict[str, bytes]:
    """The members of the agent's archive that equal agents have alike: weights, counters, optimizers, generators, sampler."""
    file = io.BytesIO()
    agent.save(file)
    with zipfile.ZipFile(file) as archive:
        names = ("data", "policy.safetensors", "training.json", "training.safetensors")
        return {name: archive.read(name) for name in names}


def assert_same(first: AnyAlgorithm, second: AnyAlgorithm, what: str) -> None:
    """Two agents agree bit for bit."""
    ours, theirs = contents(first), contents(second)
    differing = [name for name in ours if ours[name] != theirs[name]]
    assert not differing, f"{what}: {', '.join(differing)} differ"


def trains(make: MakeAgent) -> None:
    """Training moves the weights, keeps them finite, counts updates and logs finite numbers."""
    agent, data = make(), point_dataset()
    before = weights(agent)
    agent.learn_offline(data, 12)
    after = weights(agent)
    assert any(not th.equal(before[name], after[name]) for name in before), "no weight has moved"
    assert all(bool(tensor.isfinite().all()) for name, tensor in after.items() if "nll" not in name), "a weight is not finite"
    assert agent._n_updates == 12 == agent.num_timesteps, "updates are not counted"
    assert agent.last_metrics, "update() logs nothing"


def is_determined_by_its_seed(make: MakeAgent) -> None:
    """The same seed gives the same agent, another seed another."""
    data = point_dataset()
    first, second, other = (make(seed=seed).learn_offline(data, 7) for seed in (3, 3, 4))
    assert_same(first, second, "two trainings with one seed")
    assert contents(first)["policy.safetensors"] != contents(other)["policy.safetensors"], "the seed has no effect"


def leaves_global_generators_alone(make: MakeAgent) -> None:
    """Training draws from the agent's own generators."""
    agent, data = make().learn_offline(point_dataset(), 1), point_dataset()
    before = th.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    agent.learn_offline(data, 3)
    agent.predict(observations())
    assert th.equal(before[0], th.get_rng_state()), "torch's global generator was used"
    assert (before[1] == np.random.get_state()[1]).all(), "numpy's global generator was used"  # type: ignore[index]


def predicts(make: MakeAgent) -> None:
    """Actions have their shape and lie in the space, for one observation and for many, drawn and not."""
    agent = make().learn_offline(point_dataset(), 3)
    for deterministic in (True, False):
        many, _ = agent.predict(observations(9), deterministic=deterministic)
        one, _ = agent.predict(observations(9)[0], deterministic=deterministic)
        assert many.shape == (9, 2) and one.shape == (2,), f"actions have the shapes {many.shape} and {one.shape}"
        assert all(ACTION_SPACE.contains(action) for action in [*many, one]), "an action lies outside the space"


def evaluating_changes_nothing(make: MakeAgent) -> None:
    """Acting in the middle of a training leaves the training as it would have been."""
    data = point_dataset()

    class Act(BaseCallback):
        def _on_step(self) -> bool:
            self.model.predict(observations(), deterministic=False)
            return True

    assert_same(make().learn_offline(data, 6), make().learn_offline(data, 6, Act()), "a training with evaluations in it")


def goes_on_exactly(make: MakeAgent) -> None:
    """An agent that was saved and loaded trains on as the one that never stopped."""
    data = point_dataset()
    whole = make().learn_offline(data, 9)
    agent = make().learn_offline(data, 5)
    with tempfile.TemporaryDirectory() as folder:
        agent.save(f"{folder}/agent")
        loaded = type(agent).load(f"{folder}/agent", device="cpu")
    assert_same(agent, loaded, "a loaded agent")
    loaded.learn_offline(data, 4, reset_num_timesteps=False)
    whole._total_timesteps = loaded._total_timesteps
    assert_same(whole, loaded, "a training that was interrupted")


def acts_from_a_folder(make: MakeAgent) -> None:
    """``save_pretrained`` keeps all that acting needs, and ``load_agent`` finds the class by its registered name."""
    agent = make().learn_offline(point_dataset(), 3)
    cls = type(agent)
    assert ALGOS.get(cls.name) is cls, f"{cls.__name__} is not registered: call register_algorithm({cls.__name__})"
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_agent(agent.save_pretrained(Path(folder) / "agent"), device="cpu")
    agent.policy.seed_acting(1)
    loaded.policy.seed_acting(1)
    for deterministic in (True, False):
        ours, _ = agent.predict(observations(), deterministic=deterministic)
        theirs, _ = loaded.predict(observations(), deterministic=deterministic)
        assert np.array_equal(ours, theirs), "the loaded agent acts otherwise"


def goes_online(make: MakeAgent) -> None:
    """After offline training it learns in an environment, or says in one sentence that it can't."""
    agent = make(env=PointEnv()).learn_offline(point_dataset(), 3)
    if not agent.goes_online:
        try:
            agent.learn(5)
        except UserError:
            return
        raise AssertionError("goes_online is False, and learn() does not refuse")
    before = agent._n_updates
    agent.learn(8)
    assert agent._n_updates > before, "learn() makes no update"


def stops_when_a_callback_says_so(make: MakeAgent) -> None:
    """A callback ends the training at its step."""
    agent = make()

    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return self.n_calls < 4

    agent.learn_offline(point_dataset(), 20, Stop())
    assert agent.num_timesteps == 4, f"a callback stopped the training after 4 updates, and {agent.num_timesteps} were made"


def refuses_bad_arguments(make: MakeAgent) -> None:
    """Numbers out of range, unknown names and functions in place of rates are refused, and the argument is named."""
    bad: dict[str, Any] = {"batch_size": 0, "gamma": 1.5, "tau": -1.0, "learning_rate": lambda progress: 1e-3}
    bad |= {"no_such_argument": 1, "policy_kwargs": {"no_such_argument": 1}}
    for name, value in bad.items():
        try:
            make(**{name: value})
        except (UserError, TypeError) as error:
            wanted = "no_such_argument" if name == "policy_kwargs" else name
            assert wanted in str(error), f"the error about {name} does not name it: {error}"
        else:
            raise AssertionError(f"{name}={value!r} is accepted")


def a_live_setting_holds_or_is_refused(make: MakeAgent) -> None:
    """Setting an argument works at once and is saved, or is refused and nothing changes."""
    data, new = point_dataset(), make()
    for name, value in {**_other_numbers(new), "max_grad_norm": 0.5}.items():
        agent = make().learn_offline(data, 3)
        before = getattr(agent, name)
        try:
            setattr(agent, name, value)
        except UserError:
            assert getattr(agent, name) == before, f"{name} was refused and changed all the same"
            continue
        file = io.BytesIO()
        agent.save(file)
        copy = type(agent).load(file, device="cpu")
        for one in (agent, copy):
            one.learn_offline(data, 4, reset_num_timesteps=False)
        assert_same(agent, copy, f"after {name}={value}, the agent and a copy of it")


def _other_numbers(agent: AnyAlgorithm) -> dict[str, Any]:
    """For each switch and number of an agent another one, as near as it can be."""
    given = {name: getattr(agent, name) for name in agent.argument_table().arguments if name not in ("seed", "verbose")}
    switched = {name: not value for name, value in given.items() if isinstance(value, bool)}
    counted = {name: value + 1 for name, value in given.items() if type(value) is int}
    return switched | counted | {name: 0.9 * value for name, value in given.items() if isinstance(value, float)}


def a_policy_of_its_own_acts_as_the_agent(make: MakeAgent) -> None:
    """``policy.save`` and ``Policy.load``: what is loaded acts as the agent does."""
    agent, file = make().learn_offline(point_dataset(), 3), io.BytesIO()
    agent.policy.save(file)
    file.seek(0)
    policy = type(agent.policy).load(file, device="cpu")
    for deterministic in (True, False):
        agent.set_acting_seed(5)
        policy.seed_acting(5)
        ours, theirs = (one.predict(observations(), deterministic=deterministic)[0] for one in (agent, policy))
        assert np.array_equal(ours, theirs), "a policy loaded from its own file acts otherwise"


QUESTIONS: dict[str, Callable[[MakeAgent], None]] = {
    question.__name__: question
    for question in (
        trains,
        is_determined_by_its_seed,
        leaves_global_generators_alone,
        predicts,
        evaluating_changes_nothing,
        goes_on_exactly,
        acts_from_a_folder,
        a_policy_of_its_own_acts_as_the_agent,
        goes_online,
        stops_when_a_callback_says_so,
        refuses_bad_arguments,
        a_live_setting_holds_or_is_refused,
    )
}
"""All questions by name, for ``pytest.mark.parametrize``."""


def check_algorithm(cls: type[AnyAlgorithm], policy: str = "MlpPolicy", **small: Any) -> None:
    """
    Ask an algorithm all questions, on a CPU, in seconds.

    :param cls: the algorithm
    :param policy: name of its policy
    :param small: arguments that make it small
    :raises AssertionError: naming the question and what is wrong
    """

    def make(env: Any = (OBSERVATION_SPACE, ACTION_SPACE), **changes: Any) -> AnyAlgorithm:
        arguments: dict[str, Any] = {"batch_size": 16, "seed": 0, "device": "cpu"} | small | changes
        made: AnyAlgorithm = cls(policy, env, **arguments)
        return made

    for name, question in QUESTIONS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                question(make)
            except AssertionError as error:
                raise AssertionError(f"{cls.__name__}: {name}: {error}") from error
