"""Acting: shapes, bounds, dtypes, and that the same agent acts the same wherever it came from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from worlds import ACTION_SPACE, OBSERVATION_SPACE, PointEnv, make_agent, of_each_kind

from sb3_genoffline import ALGOS, OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm

MakeAgent = Callable[..., OfflineAlgorithm]
OBSERVATIONS = np.random.default_rng(0).normal(2.0, 3.0, size=(5, 3)).astype(np.float32)


def test_actions_have_the_shape_of_the_request_and_lie_in_the_space(agent: MakeAgent) -> None:
    model = agent()
    for deterministic in (True, False):
        single, state = model.predict(OBSERVATIONS[0], deterministic=deterministic)
        assert single.shape == (2,) and (state is not None) == model.policy.has_memory and ACTION_SPACE.contains(single)
        batch, _ = model.predict(OBSERVATIONS, deterministic=deterministic)
        assert batch.shape == (5, 2) and all(ACTION_SPACE.contains(action) for action in batch)


def test_extreme_networks_stay_inside_a_box_whose_bounds_floats_cannot_hit(agent: MakeAgent) -> None:
    space = spaces.Box(np.array([0.1, -0.3], np.float32), np.array([0.7, 1.1], np.float32))
    model = agent(env=(OBSERVATION_SPACE, space))
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(50)
    for deterministic in (True, False):
        actions, _ = model.predict(100 * np.random.default_rng(1).normal(size=(50, 3)), deterministic=deterministic)
        assert all(space.contains(action) for action in actions)
    for bound in (-1.0, 1.0):
        assert space.contains(model.policy.unscale_action(np.full(2, bound, np.float32)))


@of_each_kind
def test_actions_are_rescaled_from_the_unit_box(agent: MakeAgent) -> None:
    model, unit = agent(), agent(env=(OBSERVATION_SPACE, spaces.Box(-1, 1, (2,))))
    actions, scaled = (m.predict(OBSERVATIONS)[0] for m in (model, unit))
    np.testing.assert_allclose(
        actions, ACTION_SPACE.low + (scaled + 1) / 2 * (ACTION_SPACE.high - ACTION_SPACE.low), atol=1e-6
    )
    assert (np.abs(scaled) > 1e-3).any()


def test_a_deterministic_actor_acts_as_it_is() -> None:
    model = make_agent("td3_bc", (OBSERVATION_SPACE, spaces.Box(-1, 1, (2,))))
    with th.no_grad():
        expected = model.policy.actor(th.as_tensor(OBSERVATIONS))
    np.testing.assert_allclose(model.predict(OBSERVATIONS, deterministic=True)[0], expected, atol=1e-6)


@of_each_kind
@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_observations_may_have_any_precision(agent: MakeAgent, dtype: Any) -> None:
    given = OBSERVATIONS.astype(dtype)
    np.testing.assert_array_equal(agent().predict(given)[0], agent().predict(given.astype(np.float32))[0])


@of_each_kind
def test_observations_of_another_shape_are_refused(agent: MakeAgent) -> None:
    with pytest.raises(ValueError, match="shape"):
        agent().predict(np.zeros((5, 4), np.float32))


def test_the_same_seed_acts_the_same_and_the_stream_goes_on(agent: MakeAgent) -> None:
    first, second = agent(), agent()
    kinds = (True, False, False)
    sequences = [[m.predict(OBSERVATIONS, deterministic=kind)[0] for kind in kinds] for m in (first, second)]
    np.testing.assert_array_equal(*sequences)
    first.set_random_seed(0)
    np.testing.assert_array_equal(first.predict(OBSERVATIONS, deterministic=True)[0], sequences[0][0])


@of_each_kind
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_loaded_agent_acts_as_the_original_did_at_first(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path, deterministic: bool
) -> None:
    model = agent(normalize_observations=True).learn_offline(dataset, 2)
    model.save(tmp_path / "agent")
    model.set_random_seed(0)
    expected = model.predict(OBSERVATIONS, deterministic=deterministic)[0]
    loaded = type(model).load(tmp_path / "agent")
    assert th.equal(loaded.policy.obs_mean, model.policy.obs_mean) and loaded.policy.obs_mean.abs().min() > 0
    np.testing.assert_array_equal(loaded.predict(OBSERVATIONS, deterministic=deterministic)[0], expected)


def test_statistics_normalise_what_predict_is_given(agent: MakeAgent, dataset: OfflineDataset) -> None:
    normalising = agent(normalize_observations=True)
    normalising.set_dataset(dataset)
    mean, std = dataset.observations.mean(0), dataset.observations.std(0)
    np.testing.assert_allclose(normalising.policy.obs_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(normalising.policy.obs_std, std, rtol=1e-5)
    plain = agent()
    for name in ("action_mean", "action_std"):  # of those that standardise actions, too
        if hasattr(plain.policy, name):
            getattr(plain.policy, name).copy_(getattr(normalising.policy, name))
    expected = plain.predict((OBSERVATIONS - mean) / std)[0]
    np.testing.assert_allclose(normalising.predict(OBSERVATIONS)[0], expected, atol=1e-4)


@of_each_kind
def test_a_constant_column_is_not_divided_by_its_spread(agent: MakeAgent, dataset: OfflineDataset) -> None:
    observations = dataset.observations.copy()
    observations[:, 1] = 7.0
    model = agent(normalize_observations=True)
    model.set_dataset(dataset.replace(observations=observations))
    assert model.policy.obs_std[1] == 1.0 and model.policy.obs_mean[1] == 7.0


@of_each_kind
@pytest.mark.parametrize("source", ["dataset", "spaces"])
def test_no_simulator_is_needed_to_train_and_to_act(agent: MakeAgent, dataset: OfflineDataset, source: str) -> None:
    model = agent(env=dataset if source == "dataset" else (OBSERVATION_SPACE, ACTION_SPACE)).learn_offline(dataset, 2)
    assert model.predict(OBSERVATIONS)[0].shape == (5, 2)
    with pytest.raises(ValueError, match="set_env"):
        evaluate_policy(model, model.get_env(), n_eval_episodes=1, warn=False)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- set_env


@of_each_kind
@pytest.mark.parametrize(("dtype", "n_envs"), [(np.float32, 3), (np.float64, 1)])
def test_an_environment_can_be_given_later_whatever_its_precision_and_number(
    agent: MakeAgent, dtype: Any, n_envs: int
) -> None:
    model = agent()
    model.set_env(make_vec_env(PointEnv, n_envs, env_kwargs={"dtype": dtype}))
    env = model.get_env()
    assert env is not None and env.num_envs == n_envs
    mean_return, _ = evaluate_policy(model, env, n_eval_episodes=2, warn=False)
    assert np.isfinite(mean_return)


@of_each_kind
def test_a_wrong_environment_is_refused_and_its_space_named(agent: MakeAgent, tmp_path: Path) -> None:
    model = agent()
    model.save(tmp_path / "agent")

    class Wide(PointEnv):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Box(-np.inf, np.inf, (4,))

    class Strong(PointEnv):
        action_space = spaces.Box(np.array([0, -2], np.float32), np.array([1, 7], np.float32))

    for env, message in ((Wide(), r"observation space .*\(3,\).*\(4,\)"), (Strong(), r"action space .*high\[1\] 5 .* 7")):
        with pytest.raises(ValueError, match=message):
            model.set_env(env)
        with pytest.raises(ValueError, match=message):
            type(model).load(tmp_path / "agent", env=env)
    model.set_env(PointEnv())


@pytest.mark.parametrize("algo", [name for name, cls in ALGOS.items() if cls.__module__.startswith("sb3_genoffline.")])
def test_no_observations_get_no_actions(algo: str) -> None:
    model = make_agent(algo)
    for deterministic in (True, False):
        assert model.predict(np.zeros((0, 3), np.float32), deterministic=deterministic)[0].shape == (0, 2)
