"""What the callback records is what the environments logged themselves, row for row, whoever trains in whatever wrapping."""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import TQC, TRPO
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnvWrapper, VecFrameStack, VecNormalize

from sb3_genoffline import RecordDatasetCallback
from sb3_genoffline.data import recording

N_STEPS = 120
ON_POLICY = {
    PPO: {"n_steps": 20, "batch_size": 20, "n_epochs": 1},
    A2C: {"n_steps": 10},
    TRPO: {"n_steps": 20, "batch_size": 20},
}
OFF_POLICY = {
    algorithm: {"learning_starts": 40, "batch_size": 8, "gradient_steps": 1, "train_freq": 3}
    for algorithm in (SAC, TD3, TQC, DDPG)
}
ARGUMENTS: dict[type, dict[str, Any]] = {**ON_POLICY, **OFF_POLICY}


class LoggingEnv(gym.Env):
    """Large observations (``VecNormalize`` clips them), an uneven action box, episodes of 1 to 7 steps, and a log."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (gymnasium's form)
    observation_space: spaces.Space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = spaces.Box(np.array([0, -2], np.float32), np.array([1, 5], np.float32))

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []

    def _observe(self) -> Any:
        self.vector = self.np_random.normal(size=3) * [1.0, 1e3, 1e-3]
        return self.vector

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.log.append(())
        self.at = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> Any:
        before, received = self.vector, np.array(action)
        observation = self._observe()
        self.at += 1
        reward = float(100 * self.np_random.normal())
        terminated, truncated = bool(self.np_random.random() < 0.15), self.at == 7 or bool(self.np_random.random() < 0.1)
        self.log.append((before, received, reward, self.vector, terminated, truncated))
        return observation, reward, terminated, truncated, {}


class LoggingGoalEnv(LoggingEnv):
    """The same with nested observations."""

    observation_space = spaces.Dict(
        observation=spaces.Box(-np.inf, np.inf, (2,), np.float64), achieved=spaces.Box(-np.inf, np.inf, (1,), np.float64)
    )

    def _observe(self) -> Any:
        vector = super()._observe()
        return {"achieved": vector[:1], "observation": vector[1:]}


gym.register("LoggingEnv-v0", entry_point=LoggingEnv)
gym.register("LoggingGoalEnv-v0", entry_point=LoggingGoalEnv)


def make_model(algorithm: type, env: Any, **changes: Any) -> Any:
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = ARGUMENTS[algorithm] | {"policy_kwargs": {"net_arch": [8]}, "seed": 3, "device": "cpu"} | changes
        return algorithm(policy, env, **arguments)


def make_envs(n_envs: int = 2, env_id: str = "LoggingEnv-v0", **kwargs: Any) -> Any:
    return make_vec_env(env_id, n_envs, **kwargs)


def assert_equals_log(dataset: Any, envs: Any, skip_first_episode: bool = False) -> None:
    """Environment by environment, the dataset holds every logged step, and episodes end where the log has the next reset."""
    rows, ends = [], []
    for log in envs.get_attr("log"):
        episodes: list[list[Any]] = []
        for event in log:
            if not event:
                episodes.append([])
            else:
                episodes[-1].append(event)
        for episode in filter(None, episodes[skip_first_episode:]):
            rows += episode
            ends.append(len(rows))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    observations, actions, rewards, following, terminated, truncated = columns
    assert terminated.any() and (truncated & ~terminated).any(), "the test needs both ends"
    last = np.isin(np.arange(len(rows)) + 1, ends)
    for name, expected in [
        ("observations", observations.astype(np.float32)),
        ("actions", actions.astype(np.float32)),
        ("rewards", rewards.astype(np.float32)),
        ("next_observations", following.astype(np.float32)),
        ("terminations", terminated),
        ("truncations", last & ~terminated),
        ("episode_ends", ends),
    ]:
        np.testing.assert_array_equal(getattr(dataset, name), expected, err_msg=name)


@pytest.mark.parametrize("algorithm", ARGUMENTS, ids=lambda algorithm: algorithm.__name__)
def test_the_record_is_the_environments_own_log_below_vec_normalize(algorithm: type) -> None:
    envs = VecNormalize(make_envs())
    recorder = RecordDatasetCallback()
    make_model(algorithm, envs).learn(N_STEPS, callback=recorder)
    dataset = recorder.dataset()
    assert len(dataset) == recorder.n_steps == N_STEPS
    assert_equals_log(dataset, envs)
    assert dataset.action_space == LoggingEnv.action_space and np.abs(dataset.observations).max() > 1e3


def test_environments_in_other_processes_are_recorded_alike() -> None:
    envs = make_envs(3, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"})
    try:
        recorder = RecordDatasetCallback()
        make_model(PPO, envs, batch_size=30).learn(N_STEPS, callback=recorder)
        assert_equals_log(recorder.dataset(), envs)
    finally:
        envs.close()


def test_the_environment_of_a_bare_env_is_known_and_made_again_without_a_word() -> None:
    recorder = RecordDatasetCallback()
    model = make_model(SAC, gym.make("LoggingEnv-v0"))
    model.learn(60, callback=recorder)
    dataset = recorder.dataset()
    assert_equals_log(dataset, model.get_env())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = dataset.make_env()
    assert env.spec is not None and env.spec.id == "LoggingEnv-v0"
    assert env.observation_space == dataset.observation_space
    assert recorder.env_spec is not None and len(model.get_env().get_attr("spec")[0].additional_wrappers) == 1


def test_nested_observations_are_flattened_as_everywhere() -> None:
    envs = VecNormalize(make_envs(env_id="LoggingGoalEnv-v0"))
    recorder = RecordDatasetCallback()
    make_model(SAC, envs, learning_starts=100).learn(80, callback=recorder)
    assert_equals_log(recorder.dataset(), envs)


@pytest.mark.parametrize("algorithm", [PPO, SAC])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("reset", [True, False])
def test_learning_twice_goes_on_or_cuts_as_the_environments_do(algorithm: type, normalize: bool, reset: bool) -> None:
    envs = VecNormalize(make_envs()) if normalize else make_envs()
    recorder = RecordDatasetCallback()
    model = make_model(algorithm, envs, seed=5)
    model.learn(42 if algorithm is SAC else 40, callback=recorder)
    assert any(log[-1][-2:] == (False, False) for log in envs.get_attr("log")), "an episode must be open in between"
    model.learn(40, callback=recorder, reset_num_timesteps=reset)
    assert_equals_log(recorder.dataset(), envs)


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_training_is_the_same_with_and_without(algorithm: type) -> None:
    weights = []
    for callback in (None, RecordDatasetCallback()):
        model = make_model(algorithm, VecNormalize(make_envs()))
        model.learn(N_STEPS, callback=callback)
        weights.append(th.nn.utils.parameters_to_vector(model.policy.parameters()))
    assert th.equal(*weights)


def test_the_memory_grows_and_a_limit_keeps_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_FIRST_CAPACITY", 3)
    everything, newest = RecordDatasetCallback(), RecordDatasetCallback(max_steps=31)
    envs = make_envs()
    make_model(A2C, envs).learn(N_STEPS, callback=[everything, newest])
    assert_equals_log(everything.dataset(), envs)
    whole, kept = everything.dataset(), newest.dataset()
    assert newest.n_steps == len(kept) == 31 and newest.n_recorded == N_STEPS
    half = N_STEPS // 2
    rows = np.r_[half - 15 : half, N_STEPS - 16 : N_STEPS]  # environment 1's row is the later one of each pair
    for name in ("observations", "actions", "rewards", "next_observations", "terminations"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(whole, name)[rows])
    assert {15, 31} <= set(kept.episode_ends)


class InterruptAt(BaseCallback):
    """A user who has had enough."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        if self.n_calls == self.step:
            raise KeyboardInterrupt
        return True


def test_after_an_interrupt_others_steps_are_not_recorded_and_learning_goes_on() -> None:
    envs = make_envs()
    recorder = RecordDatasetCallback()
    model = make_model(PPO, envs)
    with pytest.raises(KeyboardInterrupt):
        model.learn(N_STEPS, callback=[recorder, InterruptAt(25)])
    assert len(recorder.dataset()) == 50
    lengths = [len(log) for log in envs.get_attr("log")]
    envs.reset()
    for _ in range(10):
        envs.step(np.zeros((2, 2), np.float32))
    assert len(recorder.dataset()) == 50
    for env, length in zip(envs.envs, lengths, strict=True):
        del env.unwrapped.log[length:]
    model.learn(N_STEPS, callback=recorder)
    assert_equals_log(recorder.dataset(), envs)
    assert not {"step_wait", "step_async", "reset"} & vars(envs).keys()


def test_a_step_that_an_interrupt_swallowed_is_a_gap_between_two_episodes() -> None:
    envs = VecNormalize(make_envs())
    recorder = RecordDatasetCallback()
    model = make_model(A2C, envs)
    with pytest.raises(KeyboardInterrupt):
        model.learn(N_STEPS, callback=[InterruptAt(26), recorder])
    for env in envs.unwrapped.envs:
        log = env.unwrapped.log
        swallowed = len(log) - 1 - (not log[-1])
        assert log[swallowed] and log[swallowed - 1]
        log[swallowed] = ()
    model.learn(N_STEPS, callback=recorder, reset_num_timesteps=False)
    assert_equals_log(recorder.dataset(), envs)


def test_a_reset_is_an_end_also_where_it_shows_the_same_observation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoggingEnv, "_observe", lambda self: np.zeros(3))
    monkeypatch.setattr(LoggingEnv, "vector", np.zeros(3), raising=False)
    envs = make_envs()
    recorder = RecordDatasetCallback()
    model = make_model(A2C, envs)
    for _ in range(6):
        model.learn(10, callback=recorder)
    assert_equals_log(recorder.dataset(), envs)


class PassingThrough(VecEnvWrapper):
    """A user's wrapper, which the recorder does not know."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()


@pytest.mark.parametrize("env_id", ["LoggingEnv-v0", "LoggingGoalEnv-v0"])
@pytest.mark.parametrize("wrap", [PassingThrough, lambda envs: VecFrameStack(VecNormalize(envs), 2)])
@pytest.mark.filterwarnings("error:.*may have changed")
def test_below_any_wrapper_the_first_episodes_are_recorded_too(wrap: Callable[[Any], Any], env_id: str) -> None:
    envs = wrap(make_envs(env_id=env_id))
    recorder = RecordDatasetCallback()
    model = make_model(PPO, envs)
    model.learn(40, callback=recorder)
    model.learn(80, callback=recorder, reset_num_timesteps=False)
    assert len(recorder.dataset()) == 120
    assert_equals_log(recorder.dataset(), envs)


def test_other_processes_keep_no_observations_below_unknown_wrappers_which_is_said() -> None:
    processes = make_envs(2, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"})
    envs = VecFrameStack(processes, 2)
    try:
        recorder = RecordDatasetCallback()
        with pytest.warns(
            UserWarning, match=r"VecFrameStack may have changed .* SubprocVecEnv has not kept them: .*next episode on"
        ):
            make_model(A2C, envs).learn(N_STEPS, callback=recorder)
        assert_equals_log(recorder.dataset(), envs, skip_first_episode=True)
    finally:
        envs.close()


def test_what_others_did_to_the_environments_between_two_calls_is_not_recorded_as_ours() -> None:
    envs = make_envs()
    recorder = RecordDatasetCallback()
    model = make_model(A2C, envs)
    model.learn(20, callback=recorder)
    lengths = [len(log) for log in envs.get_attr("log")]
    envs.reset()
    for _ in range(3):
        envs.step(np.zeros((2, 2), np.float32))
    model.learn(N_STEPS, callback=recorder, reset_num_timesteps=False)
    for env, length in zip(envs.envs, lengths, strict=True):
        log = env.unwrapped.log
        others = [i for i in range(length, len(log)) if log[i]][:3]
        log[length : others[-1] + 1] = [()]
    assert_equals_log(recorder.dataset(), envs)


def test_what_cannot_be_recorded_is_named() -> None:
    recorder = RecordDatasetCallback()
    with pytest.raises(ValueError, match="Nothing has been recorded"):
        recorder.dataset()
    with pytest.raises(ValueError, match="max_steps is 0"):
        RecordDatasetCallback(max_steps=0)
    with pytest.raises(ValueError, match=r"action_space is Discrete\(2\)"):
        A2C("MlpPolicy", "CartPole-v1").learn(5, callback=RecordDatasetCallback())
    make_model(A2C, make_envs()).learn(20, callback=recorder)
    with pytest.raises(ValueError, match="another environment now"):
        A2C("MlpPolicy", "Pendulum-v1").learn(5, callback=recorder)


def test_a_vec_env_without_terminal_observations_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    step_wait: Callable[[Any], Any] = DummyVecEnv.step_wait

    def forgetful(self: DummyVecEnv) -> Any:
        observations, rewards, dones, _ = step_wait(self)
        return observations, rewards, dones, [{} for _ in dones]

    monkeypatch.setattr(DummyVecEnv, "step_wait", forgetful)
    with pytest.raises(ValueError, match=r"DummyVecEnv gives no infos\['terminal_observation'\]"):
        make_model(A2C, make_envs()).learn(N_STEPS, callback=RecordDatasetCallback())


@pytest.mark.parametrize("kind", ["DummyVecEnv", "SubprocVecEnv"])
@pytest.mark.parametrize("wrapper", ["NormalizeObservation", "NormalizeReward"])
def test_running_statistics_below_the_recorder_are_named(wrapper, kind):
    from stable_baselines3.common import vec_env

    def make():
        return getattr(gym.wrappers, wrapper)(gym.make("Pendulum-v1"))

    model = SAC("MlpPolicy", getattr(vec_env, kind)([make]), learning_starts=99, device="cpu", policy_kwargs={"net_arch": [4]})
    with pytest.warns(UserWarning, match=f"The environment is wrapped in {wrapper}, whose running statistics change"):
        model.learn(3, callback=RecordDatasetCallback())
    model.env.close()
