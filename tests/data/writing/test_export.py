"""What is written as Minari or HDF5 comes back as it was, whatever the episodes look like."""

import warnings

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium import spaces
from labelled_episodes import (
    ACTION_SPACE,
    GOAL_SPACE,
    OBSERVATION_SPACE,
    Episode,
    arrays,
    as_goal,
    assert_aligned,
    observation,
    random_episodes,
)
from labelled_episodes import write_minari as write_with_minari

from sb3_genoffline import OfflineDataset, export_hdf5, export_minari, load_dataset
from sb3_genoffline.errors import ExistsError, UserError

# Every way to end, and episodes of one step.
EPISODES = [
    Episode(0, 3, "truncated"),
    Episode(1, 1, "terminated"),
    Episode(2, 4, "both"),
    Episode(3, 1, "truncated"),
    Episode(4, 2, "cut"),
]
BOUNDED = spaces.Box(np.array([-np.inf, -1, -5], np.float32), np.array([1e6, np.inf, 9e6], np.float32))


class GoalEnv(gym.Env):
    """Nested observations, as the flat ones of the labelled episodes."""

    observation_space, action_space = GOAL_SPACE, ACTION_SPACE

    def reset(self, *, seed=None, options=None):
        return as_goal(observation(0, np.array(0))), {}

    def step(self, action):
        return as_goal(observation(0, np.array(1))), 0.0, False, False, {}


gym.register("LabelledGoal-v0", entry_point=f"{__name__}:GoalEnv", max_episode_steps=9)
gym.register("LabelledEval-v0", entry_point=f"{__name__}:GoalEnv", kwargs={})


def make_dataset(episodes=EPISODES, **changes):
    ends = np.cumsum([e.length for e in episodes])
    fields = {
        "observation_space": BOUNDED,
        "action_space": ACTION_SPACE,
        "episode_ends": ends,
        "id": "labelled/all-v3",
        "env_spec": gym.spec("LabelledGoal-v0"),
        "eval_env_spec": gym.spec("LabelledEval-v0"),
        "ref_min_score": -1.25,
        "ref_max_score": 1 / 3,
    }
    return OfflineDataset(**arrays(episodes), **fields | changes)


@pytest.fixture(params=["minari", "hdf5"])
def round_trip(request, tmp_path):
    def through(dataset, name="labelled/all-v3"):
        if request.param == "minari":
            export_minari(dataset, name)
            return load_dataset(name)
        return load_dataset(export_hdf5(dataset, tmp_path / "some" / f"{name.replace('/', '-')}.hdf5"))

    return through


def assert_same(ours, theirs):
    assert ours.fingerprint == theirs.fingerprint
    for name in ("observation_space", "action_space", "id", "env_spec", "eval_env_spec", "ref_min_score", "ref_max_score"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_everything_comes_back_and_a_cut_is_a_truncation(round_trip):
    written = make_dataset()
    read = round_trip(written)
    assert_aligned(read, EPISODES)
    assert not written.truncations[-1] and read.truncations[-1]
    assert_same(written.replace(truncations=read.truncations), read)
    assert_same(read, round_trip(read, "labelled/again-v0").replace(id=read.id))


@pytest.mark.parametrize("seed", range(5))
def test_random_episodes_come_back(round_trip, seed):
    episodes = random_episodes(seed)
    assert_aligned(round_trip(make_dataset(episodes)), episodes)


def test_what_is_not_known_stays_unknown(round_trip):
    read = round_trip(make_dataset(id=None, env_spec=None, eval_env_spec=None, ref_min_score=None, ref_max_score=None))
    assert (read.env_spec, read.eval_env_spec, read.ref_min_score, read.ref_max_score) == (None,) * 4
    read = round_trip(make_dataset(eval_env_spec=None, ref_min_score=None), "other/one-v0")
    assert (read.env_spec.id, read.eval_env_spec, read.ref_min_score) == ("LabelledGoal-v0", None, None)
    assert read.ref_max_score == 1 / 3


def test_flattened_goal_observations_come_back_with_an_environment_that_works(round_trip):
    write_with_minari("goal/one-v0", EPISODES, goal=True)
    nested = load_dataset("goal/one-v0", env="LabelledGoal-v0")
    read = round_trip(nested, "goal/flat-v0")
    assert read.fingerprint == nested.fingerprint and read.observation_space == nested.observation_space
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = read.make_env()
    np.testing.assert_array_equal(env.reset()[0], observation(0, np.array(0)).astype(np.float32))
    assert env.observation_space == read.observation_space


def test_minari_sees_whole_episodes_both_environments_and_who_made_them():
    exported = export_minari(
        make_dataset(), "labelled/all-v3", author="A. Person", author_email={"a@example.org"}, algorithm_name="none"
    )
    assert [len(e) for e in exported.iterate_episodes()] == [3, 1, 4, 1, 2]
    for e, episode in zip(EPISODES, exported.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(episode.observations, observation(e.number, np.arange(e.length + 1)))
        assert episode.terminations[-1] or episode.truncations[-1]
    assert exported.recover_environment(eval_env=True).spec.id == "LabelledEval-v0"
    metadata = exported.storage.metadata
    assert (metadata["author"], metadata["author_email"], metadata["algorithm_name"]) == (
        {"A. Person"},
        {"a@example.org"},
        "none",
    )


def test_an_own_next_observation_inside_an_episode_needs_hdf5(tmp_path):
    parts = arrays([Episode(0, 2, "truncated"), Episode(1, 3, "terminated")])
    parts["truncations"] = np.zeros(5)
    joined = make_dataset().replace(**parts, episode_ends=[5])
    with pytest.raises(
        ValueError, match=r"next_observations\[1\] is not observations\[2\], though both rows are in episode 0"
    ):
        export_minari(joined, "labelled/gap-v0")
    assert_same(load_dataset(export_hdf5(joined, tmp_path / "gap.h5")), joined)


def test_an_hdf5_file_is_in_the_layout_of_d4rl(tmp_path):
    with h5py.File(export_hdf5(make_dataset(), tmp_path / "one.hdf5")) as file:
        layout = {key: (item.shape, item.dtype) for key, item in file.items() if isinstance(item, h5py.Dataset)}
    n = sum(e.length for e in EPISODES)
    assert layout.pop("episode_ends")[0] == (5,)
    assert layout == {
        "observations": ((n, 3), np.float32),
        "actions": ((n, 2), np.float32),
        "rewards": ((n,), np.float32),
        "next_observations": ((n, 3), np.float32),
        "terminals": ((n,), np.bool_),
        "timeouts": ((n,), np.bool_),
    }


def test_an_hdf5_file_without_an_id_takes_its_name_and_fits_a_given_env(tmp_path):
    path = export_hdf5(make_dataset(id=None, env_spec=None, eval_env_spec=None), tmp_path / "named.hdf5")
    assert load_dataset(path).id == "named"
    assert load_dataset(path, env="LabelledEval-v0").env_spec.id == "LabelledEval-v0"
    path = export_hdf5(make_dataset(), tmp_path / "known.hdf5")
    given = load_dataset(path, env="LabelledEval-v0")
    assert (given.env_spec.id, given.eval_env_spec) == ("LabelledEval-v0", None)  # the user's, not the file's
    with pytest.raises(UserError, match=r"observation space of .* differs"):
        load_dataset(path, env="Pendulum-v1")


def test_nothing_is_lost_where_a_file_or_dataset_is_in_the_way(tmp_path, monkeypatch):
    small, path = make_dataset([Episode(0, 2, "terminated")]), tmp_path / "one.hdf5"
    export_hdf5(make_dataset(), path)
    with pytest.raises(ExistsError, match=r"one.hdf5 exists already; pass overwrite=True"):
        export_hdf5(small, path)
    with monkeypatch.context() as patch:
        patch.setattr(h5py.Group, "create_dataset", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            export_hdf5(small, path, overwrite=True)
    assert len(load_dataset(path)) == 11 and [p.name for p in tmp_path.glob("*one*")] == ["one.hdf5"]
    assert len(load_dataset(export_hdf5(small, path, overwrite=True))) == 2
    export_minari(make_dataset(), "labelled/all-v3")
    with pytest.raises(ExistsError, match="labelled/all-v3 exists already, with 11 steps"):
        export_minari(small, "labelled/all-v3")
    export_minari(small, "labelled/all-v3", overwrite=True)
    assert len(load_dataset("labelled/all-v3")) == 2


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"one.npz has the suffix '.npz'; HDF5 files are called .hdf5 or .h5"):
        export_hdf5(make_dataset(), tmp_path / "one.npz")


def test_a_known_environment_needs_no_names_for_its_scores(round_trip):
    hopper = OfflineDataset(
        **{name: np.zeros((2, 11)) for name in ("observations", "next_observations")},
        actions=np.zeros((2, 3)),
        **{name: np.zeros(2) for name in ("rewards", "terminations", "truncations")},
        observation_space=spaces.Box(-np.inf, np.inf, (11,)),
        action_space=spaces.Box(-1, 1, (3,)),
        env_spec=gym.spec("Hopper-v5"),
    )
    assert round_trip(hopper, "own/hops-v0").normalized_score(3234.3) == pytest.approx(100)


def test_spaces_keep_their_bounds_and_dtype(round_trip):
    thirds = spaces.Box(np.array([-10 / 3, -2.0]), np.array([1.0, 6.1]), dtype=np.float64)
    assert round_trip(make_dataset(action_space=thirds, observation_space=OBSERVATION_SPACE)).action_space == thirds
