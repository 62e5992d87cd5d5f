"""What goes wrong with sources, and what the errors say."""

import json
import warnings

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from labelled_episodes import ACTION_SPACE, OBSERVATION_SPACE, Episode, arrays, write_minari
from minari.data_collector import EpisodeBuffer
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_genoffline.data import OfflineDataset, export_hdf5, load_dataset
from sb3_genoffline.errors import DownloadError, NotFoundError, UserError

EPISODES = [Episode(0, 3, "truncated"), Episode(1, 2, "terminated")]


def data(**changes):
    return arrays(EPISODES) | {"action_space": ACTION_SPACE} | changes


class Spaces:
    def __init__(self, observation_space=OBSERVATION_SPACE, action_space=ACTION_SPACE):
        self.observation_space, self.action_space = observation_space, action_space


def test_an_offline_dataset_is_returned_as_it_is():
    dataset = load_dataset(data())
    assert isinstance(dataset, OfflineDataset) and load_dataset(dataset) is dataset


def test_spaces_come_from_the_env_else_are_inferred():
    plain = arrays(EPISODES)
    assert load_dataset(plain, env=Spaces()).action_space == ACTION_SPACE
    inferred = load_dataset(plain | {"actions": plain["actions"] / 6})
    assert inferred.action_space == spaces.Box(-1, 1, (2,)) and not inferred.observation_space.is_bounded()
    with pytest.raises(
        ValueError, match=r"actions\[0, 1\] = 6.0 is outside \[-1, 1\], and no action space is given. Give env="
    ):
        load_dataset(plain)


@pytest.mark.parametrize("bounds", [[-9, 9], [[-9, -9], [9, 9]], np.array([[-9.0], [9.0]])])
@pytest.mark.parametrize("kind", ["dict", "npz", "hdf5"])
def test_bounds_of_actions_stand_among_the_arrays(bounds, kind, tmp_path):
    source = arrays([Episode(0, 3, "terminated")]) | {"action_space": bounds}
    if kind == "npz":
        np.savez(tmp_path / "own.npz", **source)
    if kind == "hdf5":
        with h5py.File(tmp_path / "own.hdf5", "w") as file:
            for key, value in source.items():
                file[key] = value
    data = load_dataset(source if kind == "dict" else tmp_path / f"own.{kind}")
    assert data.action_space == spaces.Box(-9, 9, (2,), np.float32)


@pytest.mark.parametrize("bounds", [[1, 1], [2, -2], [9], [-np.inf, 1], [[1, 2, 3], [4, 5, 6]], 3.0, [-1e39, 1e39]])
def test_what_is_no_bounds_of_actions_is_named(bounds):
    with pytest.raises(
        UserError, match=r"action_space is .*its bounds \[low, high\] are needed: two numbers, or two rows of 2"
    ):
        load_dataset(arrays([Episode(0, 3, "terminated")]) | {"action_space": bounds})


def test_an_env_id_brings_its_spec_and_reference_scores():
    pytest.importorskip("mujoco")
    zeros = {
        "observations": np.zeros((2, 11)),
        "actions": np.zeros((2, 3)),
        "rewards": [0, 0],
        "terminals": [0, 0],
        "timeouts": [0, 0],
    }
    dataset = load_dataset(zeros, env="Hopper-v5")
    assert dataset.env_spec.id == "Hopper-v5"
    assert dataset.normalized_score(3234.3) == pytest.approx(100)
    with pytest.raises(UserError, match="The environment 'Hoper-v5' cannot be made"):
        load_dataset(zeros, env="Hoper-v5")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Spaces(spaces.Box(-1, 1, (4,))), r"observation space of the dataset differs .* shape \(3,\) against \(4,\)"),
        (Spaces(action_space=spaces.Box(-1, 1, (1,))), r"action space of the dataset differs .* shape \(2,\) against \(1,\)"),
        (Spaces(action_space=spaces.Box(-1, 1, (2,))), r"action space of the dataset differs .* low\[1\] -2 against -1"),
        (Spaces(action_space=spaces.Discrete(2)), "action space of the dataset differs"),
        (Spaces(spaces.Discrete(2)), r"observation_space is Discrete\(2\), which is not supported"),
        (object(), "an environment, its id or spec, .*or an object with observation_space and action_space is needed"),
    ],
)
def test_an_env_that_does_not_fit_is_named(env, message):
    with pytest.raises(UserError, match=message):
        load_dataset(load_dataset(data()), env=env)


def test_the_dtype_and_missing_bounds_do_not_make_spaces_differ():
    bounded = Spaces(spaces.Box(-5000, 5000, (3,), np.float64))
    assert load_dataset(load_dataset(data()), env=bounded).id is None


def test_minari_keeps_the_metadata():
    write_minari("meta/one-v0", EPISODES).storage.update_metadata({"ref_min_score": -3.0, "ref_max_score": 7.0})
    dataset = load_dataset("meta/one-v0")
    assert (dataset.id, dataset.ref_min_score, dataset.ref_max_score) == ("meta/one-v0", -3.0, 7.0)
    np.testing.assert_allclose(dataset.normalized_score([-3, 2, 7]), [0, 50, 100])


def test_minari_metadata_that_make_no_scale_are_left_out_with_a_warning():
    write_minari("meta/one-v0", EPISODES).storage.update_metadata({"ref_min_score": 7.0, "ref_max_score": 7.0})
    with pytest.warns(UserWarning, match=r"metadata of meta/one-v0 have no usable scale.*ref_max_score = 7.0 must be above"):
        dataset = load_dataset("meta/one-v0")
    assert (dataset.ref_min_score, dataset.ref_max_score) == (None, None)


@pytest.mark.parametrize("low", ["x", [], {}, 10**400, True], ids=lambda low: type(low).__name__)
def test_minari_references_that_are_no_numbers_are_left_out_with_a_warning(low):
    write_minari("meta/one-v0", EPISODES).storage.update_metadata({"ref_min_score": low, "ref_max_score": 7.0})
    with pytest.warns(UserWarning, match=r"metadata of meta/one-v0 have no usable scale.*ref_min_score = .* is not a number"):
        assert load_dataset("meta/one-v0").ref_max_score is None


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: [1], "truncated or damaged"),
        (lambda data: data | {"total_steps": "x"}, "truncated or damaged"),
        (lambda data: data | {"total_steps": []}, "truncated or damaged"),
        (lambda data: data | {"minari_version": "x"}, "can't be read by the Minari that is installed: .*0.5"),
    ],
)
def test_minari_metadata_of_other_types_are_named(own_folders, edit, message):
    write_minari("broken/one-v0", EPISODES)
    path = own_folders / "minari/broken/one-v0/data/metadata.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=message):
        load_dataset("broken/one-v0")


@pytest.mark.parametrize("name", ["actions", "rewards", "terminations"])
@pytest.mark.parametrize("value", [0.0, "x", h5py.Empty("f")], ids=["a number", "a word", "nothing"])
def test_a_minari_array_that_is_none_is_named(own_folders, name, value):
    write_minari("broken/one-v0", EPISODES)
    with h5py.File(own_folders / "minari/broken/one-v0/data/main_data.hdf5", "a") as file:
        del file[f"episode_1/{name}"]
        file[f"episode_1/{name}"] = value
    with pytest.raises(UserError, match=rf"broken/one-v0 are truncated or damaged|{name} of episode 1"):
        load_dataset("broken/one-v0")


def test_minari_ids_that_the_table_knows_get_its_references():
    write_minari("mujoco/hopper/medium-v0", EPISODES)
    assert load_dataset("mujoco/hopper/medium-v0").ref_max_score == 3234.3


def test_a_dataset_that_is_not_there_is_named_with_the_nearest_ones():
    write_minari("mujoco/hopper/medium-v0", EPISODES)
    with pytest.raises(
        FileNotFoundError, match=r"download=True fetches it .*Nearest on this machine: mujoco/hopper/medium-v0"
    ):
        load_dataset("mujoco/hoper/medium-v0")
    with pytest.raises(NotFoundError, match="`python -m zoo collect genoffline/hopper/expert-v1` makes it"):
        load_dataset("genoffline/hopper/expert-v1")


@pytest.mark.parametrize("bad_id", ["mujoco/hopper/medium", "m/hopper-v0", "mujoco hopper-v0", "hopper-v", ""])
def test_a_malformed_id_is_named_with_the_nearest_ones(bad_id):
    write_minari("mujoco/hopper/medium-v0", EPISODES)
    with pytest.raises(UserError, match="is neither a file nor a dataset id; ids look like mujoco/hopper/medium-v0") as error:
        load_dataset(bad_id)
    if bad_id == "mujoco/hopper/medium":
        assert "Nearest on this machine: mujoco/hopper/medium-v0." in str(error.value)


def test_download_is_passed_to_minari_and_off_by_default(monkeypatch):
    asked = []

    def fake(dataset_id):
        asked.append(dataset_id)
        write_minari(dataset_id, EPISODES)

    monkeypatch.setattr(minari, "download_dataset", fake)
    with pytest.raises(NotFoundError):
        load_dataset("remote/one-v0")
    assert not asked
    for _ in range(2):
        assert len(load_dataset("remote/one-v0", download=True)) == 5
    assert asked == ["remote/one-v0"]


@pytest.mark.parametrize("failure", [OSError("no route"), ValueError("Couldn't find any version"), FileNotFoundError("404")])
def test_a_download_that_fails_says_why(monkeypatch, failure):
    def fake(dataset_id):
        raise failure

    monkeypatch.setattr(minari, "download_dataset", fake)
    with pytest.raises(DownloadError, match=f"remote/one-v0 could not be downloaded: .*{failure}"):
        load_dataset("remote/one-v0", download=True)


def test_a_damaged_minari_storage_is_named(own_folders):
    write_minari("broken/one-v0", EPISODES)
    path = own_folders / "minari/broken/one-v0/data/main_data.hdf5"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"files of the dataset broken/one-v0 are truncated or damaged .*Delete it"):
        load_dataset("broken/one-v0")
    (own_folders / "minari/broken/one-v0/data/metadata.json").write_text("{")
    with pytest.raises(UserError, match="files of the dataset broken/one-v0 are truncated or damaged"):
        load_dataset("broken/one-v0")


def test_a_minari_episode_whose_arrays_do_not_fit_together_is_named(own_folders):
    write_minari("broken/two-v0", EPISODES)
    with h5py.File(own_folders / "minari/broken/two-v0/data/main_data.hdf5", "a") as file:
        rows = file["episode_1/observations"][:-1]
        del file["episode_1/observations"]
        file["episode_1/observations"] = rows
    with pytest.raises(UserError, match="observations of episode 1 of broken/two-v0 has 2 rows, but 3 are expected"):
        load_dataset("broken/two-v0")


def test_minari_spaces_that_are_not_supported_are_named():
    def write(dataset_id, observation_space, action_space):
        samples = [observation_space.sample() for _ in range(3)]
        nested = isinstance(observation_space, spaces.Dict)
        buffer = EpisodeBuffer(
            observations={key: [s[key] for s in samples] for key in samples[0]} if nested else samples,
            actions=[action_space.sample() for _ in range(2)],
            rewards=[0.0, 0.0],
            terminations=[False, True],
            truncations=[False, False],
            infos={},
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari asks for an author and more
            minari.create_dataset_from_buffers(
                dataset_id, [buffer], observation_space=observation_space, action_space=action_space
            )

    box = spaces.Box(-1, 1, (2,))
    write("bad/discrete-v0", box, spaces.Discrete(3))
    write("bad/states-v0", spaces.Dict(a=box, b=spaces.Discrete(4)), box)
    write("bad/image-v0", spaces.Box(0, 255, (40, 40, 3), np.uint8), box)
    with pytest.raises(UserError, match=r"action_space is Discrete\(3\), which is not supported"):
        load_dataset("bad/discrete-v0")
    with pytest.raises(UserError, match=r"observation_space\['b'\] is Discrete\(4\), which is not supported"):
        load_dataset("bad/states-v0")
    with pytest.raises(UserError, match="observation_space is an image space"):
        load_dataset("bad/image-v0")


def test_missing_and_unknown_keys_are_listed():
    with pytest.raises(
        UserError, match=r"lacks 'rewards', 'terminations' or 'terminals' or 'dones'; it has \['actions', 'obs'\]"
    ):
        load_dataset({"obs": np.zeros((2, 3)), "actions": np.zeros((2, 2))})
    with pytest.raises(UserError, match=r"unknown key 'reward'. Accepted are: observations/obs, actions, rewards, next_obs"):
        load_dataset({"reward": np.zeros(3)})
    with pytest.raises(UserError, match="terminations twice, under terminals and dones"):
        load_dataset({"terminals": np.zeros(5), "dones": np.zeros(5)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": np.zeros(4)}, "rewards in the dict has 4 rows, but observations has 5"),
        ({"truncations": np.zeros(6)}, "truncations in the dict has 6 rows, but observations has 5"),
        ({"observations": np.zeros((5, 8, 8, 3), np.uint8)}, "observation_space is an image space"),
        ({"observations": {"a": np.zeros((5, 3))}}, "observations are nested, so their space is needed"),
        ({"actions": np.zeros(5, np.int64)}, "actions have dtype int64: discrete actions are not supported"),
        (
            {"next_observations": np.zeros((5, 2))},
            r"next_observations has shape \(5, 2\), but the observation space says \(N, 3\)",
        ),
        ({"episode_ends": [2, 4]}, "episode_ends ends with 4, but there are 5 transitions"),
        ({name: array[:0] for name, array in arrays(EPISODES).items()}, "the dict is empty"),
        ({"actions": np.full((5, 2), 7.0)}, r"actions\[0, 0\] = 7.0 is outside the action space"),
    ],
)
def test_bad_arrays_are_named(change, message):
    with pytest.raises(UserError, match=message):
        load_dataset(data(**change))


def test_without_next_observations_something_must_say_where_episodes_were_cut():
    plain = data()
    del plain["next_observations"]
    with pytest.raises(UserError, match="episode_ends but no next_observations"):
        load_dataset(plain | {"episode_ends": [3, 5]})
    with pytest.raises(UserError, match="no other row is left"):
        load_dataset(plain | {"truncations": np.ones(5)})
    del plain["truncations"]
    with pytest.raises(UserError, match="neither next_observations nor truncations/timeouts"):
        load_dataset(plain)


def test_a_goal_observation_that_lacks_a_key_is_named():
    space = spaces.Dict(a=spaces.Box(-1, 1, (1,)), b=spaces.Box(-1, 1, (2,)))
    nested = {"a": np.zeros((5, 1))}
    with pytest.raises(UserError, match=r"observations\['b'\] is missing, though the observation space has it"):
        load_dataset(data(observations=nested, next_observations=nested, observation_space=space))


def write_hdf5(path, **arrays_by_name):
    with h5py.File(path, "w") as file:
        for name, array in arrays_by_name.items():
            file[name] = array
    return path


def test_a_d4rl_file_name_brings_reference_scores_and_the_environment_of_today(tmp_path):
    shapes = {"observations": np.zeros((3, 11)), "actions": np.zeros((3, 3)), "rewards": np.zeros(3)}
    path = write_hdf5(tmp_path / "hopper_medium-v2.hdf5", **shapes, terminals=np.zeros(3), timeouts=np.zeros(3))
    dataset = load_dataset(path)
    assert dataset.id == "hopper_medium-v2"
    assert (dataset.ref_min_score, dataset.ref_max_score) == (-20.272305, 3234.3)
    assert dataset.env_spec.id == "Hopper-v4"


def test_arrays_of_a_file_that_are_not_read_are_named(tmp_path):
    rows = {"observations": np.zeros((4, 3)), "next_observations": np.zeros((4, 3)), "actions": np.zeros((4, 1))}
    rows |= {"rewards": np.zeros(4), "terminals": np.zeros(4)}
    ignored = {"infos/qpos": np.zeros((4, 3)), "metadata/algorithm": "SAC", "notes": "mine", "seeds": np.zeros(7)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset(write_hdf5(tmp_path / "mine.hdf5", **rows, **ignored))
    misnamed = write_hdf5(tmp_path / "mine.hdf5", **rows, Timeout=np.eye(4)[1], terminated=np.zeros(4), zzz=np.zeros((4, 2)))
    with pytest.warns(UserWarning) as caught:
        load_dataset(misnamed)
    assert [str(warning.message) for warning in caught] == [
        f"{misnamed} has arrays of one row per step that are not read: 'Timeout' (rename it to 'timeouts' if it is that), "
        "'terminated', 'zzz'."
    ]
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["mine.HDF5", "mine.H5", "mine.NPZ"])
def test_the_home_folder_and_the_case_of_a_suffix_are_understood(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    plain = arrays(EPISODES)
    plain["actions"] = plain["actions"] / 6
    if name.endswith("NPZ"):
        with (tmp_path / name).open("wb") as file:
            np.savez(file, **plain)
    else:
        assert export_hdf5(load_dataset(plain), f"~/{name}") == tmp_path / name
    assert (
        load_dataset(f"~/{name}").fingerprint == load_dataset(tmp_path / name).fingerprint == load_dataset(plain).fingerprint
    )


@pytest.mark.parametrize(
    ("name", "limit"), [("hopper-random-v0", 1000), ("antmaze-umaze-v0", 700), ("antmaze-large-play-v0", 1000)]
)
def test_old_d4rl_files_without_time_out_flags_are_cut_at_the_step_limit_of_the_task(tmp_path, name, limit):
    zeros = np.zeros(1500)
    columns = {"observations": zeros[:, None], "actions": zeros[:, None], "rewards": zeros, "terminals": zeros}
    dataset = load_dataset(write_hdf5(tmp_path / f"{name}.hdf5", **columns))
    np.testing.assert_array_equal(dataset.episode_ends[:1], [limit - 1])


def test_files_that_cannot_be_read_are_named(tmp_path):
    whole = write_hdf5(tmp_path / "whole.hdf5", observations=np.random.default_rng(0).normal(size=(1000, 3)))
    (tmp_path / "cut.hdf5").write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "page.hdf5").write_text("<html>Not found</html>")
    (tmp_path / "data.csv").write_text("1,2,3")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 nothing more")
    np.savez(tmp_path / "pickled.npz", observations=np.array([{}, None], dtype=object))
    for name, error, message in [
        ("cut.hdf5", ValueError, r"cut.hdf5 is truncated or damaged: .*Fetch or write it again"),
        ("page.hdf5", ValueError, r"page.hdf5 is not an HDF5 file \(22 bytes\)"),
        ("whole.hdf5", UserError, "whole.hdf5 lacks 'actions', 'rewards', 'terminations'"),
        ("hole.hdf5", FileNotFoundError, "hole.hdf5 does not exist; did you mean whole.hdf5"),
        ("data.csv", ValueError, "has the suffix '.csv'; .*numpy or pandas"),
        ("cut.npz", ValueError, "cut.npz cannot be read as .npz"),
        ("pickled.npz", ValueError, "holds Python objects; save plain arrays"),
    ]:
        with pytest.raises(error, match=message):
            load_dataset(tmp_path / name)


def test_a_minari_storage_file_is_recognised(own_folders):
    write_minari("some/one-v0", EPISODES)
    with pytest.raises(UserError, match="is the storage of a Minari dataset; load it by its id"):
        load_dataset(own_folders / "minari/some/one-v0/data/main_data.hdf5")


def test_replay_buffers_that_cannot_be_used_are_named():
    with pytest.raises(UserError, match="The replay buffer is empty"):
        load_dataset(ReplayBuffer(10, OBSERVATION_SPACE, ACTION_SPACE, device="cpu"))
    with pytest.raises(UserError, match=r"action_space is Discrete\(2\)"):
        load_dataset(ReplayBuffer(10, OBSERVATION_SPACE, spaces.Discrete(2), device="cpu"))
    buffer = ReplayBuffer(10, OBSERVATION_SPACE, ACTION_SPACE, device="cpu")
    buffer.add(np.zeros((1, 3)), np.zeros((1, 3)), np.array([[0.0, 6.0]]), np.zeros(1), np.zeros(1), [{}])
    with pytest.raises(UserError, match=r"actions\[0, 1\] = 6.0 in the replay buffer is outside \[-1, 1\]"):
        load_dataset(buffer)


def test_other_things_are_refused():
    with pytest.raises(UserError, match="cannot be loaded from a list"):
        load_dataset([1, 2, 3])


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("steps", [5, 11])
def test_the_buffer_of_our_own_agents_gives_their_dataset_and_their_own_steps(n_envs, steps):
    from sb3_genoffline.data.buffers import OfflineBuffer

    def buffer(dataset):
        made = OfflineBuffer(
            8 * n_envs - (n_envs > 1),  # a ring that is no multiple of the environments
            OBSERVATION_SPACE,
            ACTION_SPACE,
            "cpu",
            n_envs,
            dataset=dataset,
            reward_scale=2.0,
            reward_shift=-1.0,
        )
        for t in range(steps):
            rows = np.array([[e, t, 100.0 * e + t] for e in range(n_envs)])
            done = np.full(n_envs, t == 3)
            made.add(rows, rows + np.array([0, 1, 1]), np.full((n_envs, 2), 0.5), rows[:, 2], done, [{}] * n_envs)
        return made

    offline = load_dataset(data()).replace(id="mine-v0")
    both, online = load_dataset(buffer(offline)), load_dataset(buffer(None))
    assert both.id == "mine-v0" and len(both) == len(offline) + len(online)
    np.testing.assert_array_equal(both.observations[: len(offline)], offline.observations)
    np.testing.assert_array_equal(both.observations[len(offline) :], online.observations)
    kept = min(steps * n_envs, 8 * n_envs - (n_envs > 1))
    expected = [(e, t) for t in range(steps) for e in range(n_envs)][-kept:]
    assert [tuple(row) for row in online.observations[:, :2].astype(int)] == sorted(expected)
    np.testing.assert_allclose(online.rewards, online.observations[:, 2], rtol=1e-6)
    np.testing.assert_allclose(online.actions[0], [0.5, 4.0], rtol=1e-5)
    np.testing.assert_array_equal(online.terminations, online.observations[:, 1] == 3)
    with pytest.raises(UserError, match="agent's buffer is empty"):
        load_dataset(OfflineBuffer(3, OBSERVATION_SPACE, ACTION_SPACE, "cpu"))


def test_a_table_is_told_how_it_becomes_a_dataset() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(UserError, match=r"A table does not say which of its columns.*data/README.md"):
        load_dataset(pandas.DataFrame({"obs_0": [1.0]}))
    with pytest.raises(UserError, match="cannot be loaded from an int"):
        load_dataset(3)  # type: ignore[arg-type]


def test_a_name_of_d4rl_is_told_of_its_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"load_dataset\('hopper-medium-v2\.hdf5'\)"):
        load_dataset("hopper-medium-v2")
