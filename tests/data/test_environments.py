import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from labelled_episodes import Episode, arrays

from sb3_genoffline.data import (
    FlatFloatObservation,
    OfflineDataset,
    flat_observation_space,
    flatten_env,
    flatten_observations,
    load_dataset,
)
from sb3_genoffline.errors import UserError

NESTED = spaces.Dict(
    {
        "zeta": spaces.Box(-1, 1, (2,), np.float64),
        "alpha": spaces.Box(-2, 2, (2, 3), np.float32),
        "mid": spaces.Tuple(
            (spaces.Box(0, 9, (1,), np.int64), spaces.Dict({"b": spaces.Box(-3, 3, (1,)), "a": spaces.Box(0, 1, (1,))}))
        ),
    }
)
BOX = spaces.Box(-np.inf, np.inf, (3,), np.float64)


class Toy(gym.Env):
    """Returns samples of its space."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012

    def __init__(self, observation_space=BOX, broken=False, render_mode=None):
        if broken:
            raise RuntimeError("broken on purpose")
        self.observation_space, self.action_space = observation_space, spaces.Box(-1, 1, (2,))
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.fixture(autouse=True)
def registered():
    gym.register("Toy-v0", Toy, max_episode_steps=7)
    yield
    del gym.registry["Toy-v0"]


def dataset(**changes):
    data = arrays([Episode(0, 3, "terminated")])
    return load_dataset(data | {"actions": data["actions"] / 6}).replace(**changes)


def test_dicts_flatten_like_gymnasiums_wrapper_number_for_number():
    rng_space = NESTED
    rng_space.seed(0)
    samples = [rng_space.sample() for _ in range(20)]
    batch = {
        "zeta": np.stack([s["zeta"] for s in samples]),
        "alpha": np.stack([s["alpha"] for s in samples]),
        "mid": (
            np.stack([s["mid"][0] for s in samples]),
            {key: np.stack([s["mid"][1][key] for s in samples]) for key in ("b", "a")},
        ),
    }
    expected = np.stack([spaces.utils.flatten(NESTED, s) for s in samples])
    np.testing.assert_array_equal(flatten_observations(NESTED, batch), expected)
    theirs = spaces.utils.flatten_space(NESTED)
    np.testing.assert_array_equal(flat_observation_space(NESTED).low, theirs.low.astype(np.float32))
    np.testing.assert_array_equal(flat_observation_space(NESTED).high, theirs.high.astype(np.float32))

    ours, wrapped = FlatFloatObservation(Toy(NESTED)), gym.wrappers.FlattenObservation(Toy(NESTED))
    np.testing.assert_array_equal(ours.reset(seed=3)[0], wrapped.reset(seed=3)[0].astype(np.float32))
    assert ours.observation_space.contains(ours.step(np.zeros(2))[0])


def test_an_env_of_float32_vectors_is_left_alone():
    env = Toy(spaces.Box(-1, 1, (3,), np.float32))
    assert flatten_env(env) is env


def test_a_point_maze_dataset_and_its_environment_flatten_alike(tmp_path):
    pytest.importorskip("gymnasium_robotics")
    import minari
    from minari.data_collector import EpisodeBuffer

    gym.register_envs(__import__("gymnasium_robotics"))
    env = gym.make("PointMaze_UMaze-v3", max_episode_steps=5)
    observations, _ = env.reset(seed=0)
    episode = {key: [value] for key, value in observations.items()}
    actions = [np.array([0.5, -0.5], np.float32)] * 5
    for action in actions:
        observations, *_ = env.step(action)
        for key, value in observations.items():
            episode[key].append(value)
    buffer = EpisodeBuffer(
        observations={key: np.stack(values) for key, values in episode.items()},
        actions=np.stack(actions),
        rewards=[0.0] * 5,
        terminations=[False] * 5,
        truncations=[False] * 4 + [True],
        infos={},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari asks for an author and more
        minari.create_dataset_from_buffers("maze/toy-v0", [buffer], env=env)
    loaded = load_dataset("maze/toy-v0")
    again = loaded.make_env()
    assert again.observation_space == loaded.observation_space
    assert again.spec.max_episode_steps == 5
    first, _ = again.reset(seed=0)
    np.testing.assert_array_equal(first, loaded.observations[0])
    for t in range(5):
        np.testing.assert_array_equal(again.step(loaded.actions[t])[0], loaded.next_observations[t])
    flattened = gym.wrappers.FlattenObservation(gym.make("PointMaze_UMaze-v3", max_episode_steps=5))
    np.testing.assert_array_equal(flattened.reset(seed=0)[0].astype(np.float32), loaded.observations[0])


def test_the_evaluation_environment_is_preferred_unless_asked_otherwise():
    data = dataset(env_spec=gym.spec("Toy-v0"), eval_env_spec=EnvSpec("Toy-v0", entry_point=Toy, max_episode_steps=99))
    assert data.make_env().spec.max_episode_steps == 99
    assert data.make_env(eval_env=False).spec.max_episode_steps == 7
    assert data.replace(eval_env_spec=None).make_env(render_mode="rgb_array").unwrapped.render_mode == "rgb_array"
    assert data.make_env().observation_space == data.observation_space


def test_a_recorded_spec_that_fails_falls_back_to_what_works_with_a_warning():
    broken = EnvSpec("Toy-v0", entry_point=Toy, kwargs={"broken": True})
    with pytest.warns(UserWarning, match=r"made by its id \(Toy-v0\); .*broken on purpose"):
        assert dataset(env_spec=broken).make_env().spec.max_episode_steps == 7


def test_an_environment_that_cannot_be_made_says_what_was_tried():
    with pytest.raises(UserError, match="No environment is known for this dataset"):
        dataset().make_env()
    gone = EnvSpec("Gone-v0", entry_point="nowhere_at_all:Gone")
    with pytest.raises(
        ValueError, match=r"of mine could not be made. Tried: Gone-v0 as recorded: ModuleNotFoundError.*by its id"
    ):
        dataset(env_spec=gone, id="mine").make_env()
    other = EnvSpec("Toy-v0", entry_point=Toy, kwargs={"observation_space": spaces.Box(-1, 1, (8,))})
    del gym.registry["Toy-v0"]
    with pytest.raises(UserError, match=r"observation space differs from the dataset's: shape \(3,\) against \(8,\)"):
        dataset(env_spec=other).make_env()
    gym.register("Toy-v0", Toy)


def test_a_dataset_is_no_environment_but_gives_spaces():
    given = dataset()
    assert isinstance(given, OfflineDataset)
    assert load_dataset(given, env=given) is given
