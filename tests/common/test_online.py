"""``learn()`` goes on online from the same weights, and the offline rows stay."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from worlds import ACTION_SPACE, EXAMPLES, N_ROWS, OBSERVATION_SPACE, PointEnv, differing, make_dataset, snapshot

from sb3_genoffline import ALGOS, OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.data.buffers import OfflineBuffer, TransitionBatch

MakeAgent = Callable[..., OfflineAlgorithm]
every_algorithm = pytest.mark.parametrize("algo", sorted(name for name, cls in ALGOS.items() if cls.goes_online))


@pytest.fixture(params=EXAMPLES)
def algo(request: pytest.FixtureRequest) -> str:
    """What most tests here ask about is code that the algorithms share."""
    return request.param


class Recording(PointEnv):
    """Keeps every step: (observation, action, reward, next observation, terminated)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.log: list[tuple[Any, ...]] = []

    def step(self, action: np.ndarray) -> Any:
        before = self.position.copy()
        result = super().step(action)
        self.log.append((before, np.array(action), result[1], result[0], result[2]))
        return result


def buffer_of(model: OfflineAlgorithm) -> OfflineBuffer:
    assert isinstance(model.replay_buffer, OfflineBuffer)
    return model.replay_buffer


def offline_rows(model: OfflineAlgorithm) -> TransitionBatch:
    return TransitionBatch(*(column.clone() for column in buffer_of(model).rows_at(th.arange(N_ROWS))))


def online_rows(model: OfflineAlgorithm) -> TransitionBatch:
    buffer = buffer_of(model)
    return buffer.rows_at(th.arange(buffer.n_offline, buffer.size()))


def assert_rows_equal(first: TransitionBatch, second: TransitionBatch) -> None:
    assert all(th.equal(a, b) for a, b in zip(first, second, strict=True))


@every_algorithm
def test_learning_goes_on_from_the_same_weights_and_keeps_the_offline_rows(agent: MakeAgent, dataset: OfflineDataset) -> None:
    model = agent(env=PointEnv()).learn_offline(dataset, 3)
    rows, updates = offline_rows(model), model._n_updates
    weights = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    model.learn(6)
    assert model.num_timesteps == 6  # counts environment steps now
    assert model._n_updates == updates + 6
    assert buffer_of(model).n_offline == N_ROWS and buffer_of(model).size() == N_ROWS + 6
    assert_rows_equal(offline_rows(model), rows)
    after = model.policy.state_dict()
    changes = [(after[name].double() - tensor.double()).abs().max().item() for name, tensor in weights.items()]
    assert 0 < max(changes) < 0.1  # six small steps from where the offline training stopped
    model.learn(2, reset_num_timesteps=False)
    assert model.num_timesteps == 8


def test_online_batches_hold_offline_and_online_rows(agent: MakeAgent, dataset: OfflineDataset) -> None:
    model = agent(env=PointEnv()).learn_offline(dataset, 1)
    model.learn(30)
    drawn = buffer_of(model)._next_indices(4000)
    assert drawn.min() == 0 and drawn.max() == N_ROWS + 29
    assert abs((drawn < N_ROWS).double().mean().item() - N_ROWS / (N_ROWS + 30)) < 0.05


@pytest.mark.parametrize("goal", [np.inf, 1.5], ids=["truncated", "terminated"])
def test_online_rows_are_stored_as_offline_ones_are(agent: MakeAgent, dataset: OfflineDataset, goal: float) -> None:
    env = Recording(goal=goal)
    model = agent(env=Monitor(env)).learn_offline(dataset, 1)
    model.learn(12)
    scale, shift = model.dataset_info["reward_scale"], model.dataset_info["reward_shift"]
    assert scale != 1.0 and shift != 0.0
    observations, actions, rewards, next_observations, terminated = (np.array(column) for column in zip(*env.log, strict=True))
    rows = online_rows(model)
    low, high = ACTION_SPACE.low, ACTION_SPACE.high
    scaled = np.clip(2 * (actions - low) / (high - low) - 1, -(1 - 1e-5), 1 - 1e-5)
    np.testing.assert_allclose(rows.observations, observations, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rows.actions, scaled, atol=1e-5)
    np.testing.assert_allclose(rows.rewards, scale * rewards + shift, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rows.next_observations, next_observations, rtol=1e-5, atol=1e-6)  # not those of the reset
    np.testing.assert_array_equal(rows.masks, 1.0 - terminated)
    assert terminated.any() == (goal < np.inf)


def test_a_dataset_and_its_steps_taken_online_fill_the_buffer_with_the_same_rows(dataset: OfflineDataset) -> None:
    kwargs = {"reward_scale": 3.0, "reward_shift": -1.0, "seed": 0}
    offline = OfflineBuffer(100, OBSERVATION_SPACE, ACTION_SPACE, "cpu", dataset=dataset, **kwargs)
    online = OfflineBuffer(100, OBSERVATION_SPACE, ACTION_SPACE, "cpu", **kwargs)
    low, high = ACTION_SPACE.low, ACTION_SPACE.high
    for i in range(N_ROWS):
        action = 2 * (dataset.actions[i] - low) / (high - low) - 1
        done = dataset.terminations[i] or dataset.truncations[i]
        infos = [{"TimeLimit.truncated": bool(dataset.truncations[i])}]
        row = (dataset.observations[i], dataset.next_observations[i], action, dataset.rewards[i], done)
        online.add(*(np.asarray(value)[None] for value in row), infos)
    for ours, theirs in zip(online.rows_at(th.arange(N_ROWS)), offline.rows_at(th.arange(N_ROWS)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_online_rows_wrap_around_among_themselves(agent: MakeAgent, dataset: OfflineDataset) -> None:
    env = Recording()
    model = agent(env=Monitor(env), buffer_size=8).learn_offline(dataset, 1)
    rows = offline_rows(model)
    model.learn(21)
    buffer = buffer_of(model)
    assert buffer.n_offline == N_ROWS and buffer.n_online == 8 and buffer.size() == N_ROWS + 8
    assert_rows_equal(offline_rows(model), rows)
    last = np.array([entry[3] for entry in env.log[-8:]])
    kept = online_rows(model).next_observations.numpy()
    np.testing.assert_allclose(kept[np.lexsort(kept.T)], last[np.lexsort(last.T)], rtol=1e-6)


def test_several_environments_fill_the_buffer_together(agent: MakeAgent, dataset: OfflineDataset) -> None:
    model = agent(env=make_vec_env(PointEnv, 3), gradient_steps=-1).learn_offline(dataset, 1)
    model.learn(12)
    assert buffer_of(model).n_online == 12 and model._n_updates >= 4


def test_offline_training_can_go_on_after_online_steps(agent: MakeAgent, dataset: OfflineDataset) -> None:
    model = agent(env=PointEnv()).learn_offline(dataset, 2)
    model.learn(5)
    model.learn_offline(dataset, 4)
    assert model.num_timesteps == 4 and buffer_of(model).n_online == 5


def test_online_steps_may_come_first(agent: MakeAgent, dataset: OfflineDataset) -> None:
    env = Recording()
    model = agent(env=Monitor(env))
    try:
        model.learn(7)
    except ValueError as error:
        assert "learn_offline(dataset)" in str(error) and env.log == []
        pytest.skip("the algorithm needs a model that is fitted to data first")
    assert buffer_of(model).n_offline == 0
    model.learn_offline(dataset, 2)
    assert buffer_of(model).n_offline == N_ROWS and buffer_of(model).n_online == 7
    scale, shift = model.dataset_info["reward_scale"], model.dataset_info["reward_shift"]
    expected = [scale * entry[2] + shift for entry in env.log]
    np.testing.assert_allclose(online_rows(model).rewards, expected, rtol=1e-4, atol=1e-5)


def test_random_steps_come_before_the_policys_if_asked(agent: MakeAgent, dataset: OfflineDataset) -> None:
    model = agent(env=PointEnv(), learning_starts=5).learn_offline(dataset, 2)
    model.learn(7)
    assert model._n_updates == 2 + 2


def test_learning_online_without_an_environment_says_what_to_do(agent: MakeAgent, dataset: OfflineDataset) -> None:
    with pytest.raises(ValueError, match=r"model\.set_env"):
        agent().learn_offline(dataset, 1).learn(5)
    with pytest.raises(ValueError, match=r"model\.set_env"):
        agent(env=None).learn(5)


# ---------------------------------------------------------------------- after a load


def saved(agent: MakeAgent, dataset: OfflineDataset, path: Path) -> OfflineAlgorithm:
    model = agent(env=PointEnv()).learn_offline(dataset, 3)
    model.save(path)
    return model


def test_learning_online_after_a_load_warns_that_offline_rows_are_missing(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path
) -> None:
    model = saved(agent, dataset, tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", env=PointEnv())
    with pytest.warns(UserWarning, match=r"set_dataset"):
        loaded.learn(5)
    assert buffer_of(loaded).n_offline == 0 and buffer_of(loaded).n_online == 5
    assert buffer_of(loaded).reward_scale == model.dataset_info["reward_scale"]
    loaded.learn_offline(dataset, 2)
    assert buffer_of(loaded).n_offline == N_ROWS and buffer_of(loaded).n_online == 5


def test_offline_rows_given_back_after_a_load_are_kept(agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path) -> None:
    model = saved(agent, dataset, tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", env=PointEnv())
    loaded.set_dataset(make_dataset())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.learn(5)
    assert buffer_of(loaded).n_offline == N_ROWS and buffer_of(loaded).n_online == 5
    assert_rows_equal(offline_rows(loaded), offline_rows(model))


def test_an_online_run_resumes_with_its_online_rows(agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path) -> None:
    model = agent(env=PointEnv()).learn_offline(dataset, 2)
    model.learn(6)
    model.save(tmp_path / "agent")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = type(model).load(tmp_path / "agent", env=PointEnv())
    loaded.set_dataset(dataset)
    assert buffer_of(loaded).n_online == 0  # as in SB3, an agent's file holds none
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert_rows_equal(online_rows(loaded), online_rows(model))
    for resumed in (model, loaded):
        resumed.learn_offline(dataset, 3)
    # what is left of the epoch that the online rows broke off is of no use any more
    assert {"data", "policy.safetensors"}.isdisjoint(differing(snapshot(model), snapshot(loaded)))


def test_the_replay_buffer_survives_a_round_trip(agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path) -> None:
    model = agent(env=PointEnv(), buffer_size=8).learn_offline(dataset, 3)
    model.learn(11)
    model.save_replay_buffer(tmp_path / "buffer")
    other = agent(env=PointEnv(), buffer_size=8)
    other.set_dataset(dataset)
    other.load_replay_buffer(tmp_path / "buffer")
    assert_rows_equal(online_rows(other), online_rows(model))
    assert th.equal(buffer_of(other)._next_indices(50), buffer_of(model)._next_indices(50))
    for m in (model, other):
        m.learn(3)
    assert buffer_of(other).pos == buffer_of(model).pos
    without_dataset = agent(env=PointEnv(), buffer_size=8)
    without_dataset.load_replay_buffer(tmp_path / "buffer")
    assert buffer_of(without_dataset).size() == 8
    foreign = {**buffer_of(model).state_dict(), "device": "cuda", "online_rng": th.zeros(16, dtype=th.uint8)}
    buffer_of(other).load_state_dict(foreign)
    assert_rows_equal(online_rows(other), online_rows(model))


def test_a_replay_buffer_that_is_too_small_or_missing_says_so(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no buffer to save"):
        agent(env=None).save_replay_buffer(tmp_path / "buffer")
    model = agent(env=PointEnv()).learn_offline(dataset, 1)
    model.learn(9)
    model.save_replay_buffer(tmp_path / "buffer")
    small = agent(buffer_size=4)
    small.set_dataset(dataset)
    with pytest.raises(ValueError, match=r"9 online rows.*buffer_size=4"):
        small.load_replay_buffer(tmp_path / "buffer")
