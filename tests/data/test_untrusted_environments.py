"""Data never choose code: every spec here would leave a mark if it were built."""

import json
from types import SimpleNamespace

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from labelled_episodes import ACTION_SPACE, OBSERVATION_SPACE, Episode, arrays, write_minari

from sb3_genoffline.common.envs import as_env
from sb3_genoffline.data import combine, export_hdf5, export_minari, load_dataset, split
from sb3_genoffline.data.environments import (
    RecordedSpec,
    check_recorded_arguments,
    make_from_spec,
    recorded,
    registered_spec,
    spec_of_recorded_id,
)
from sb3_genoffline.data.writing.minari import write_minari as write_ours
from sb3_genoffline.errors import UserError

EPISODES = [Episode(0, 3, "truncated"), Episode(1, 2, "terminated")]


class Plain(gym.Env):
    """An environment like any other."""

    observation_space, action_space = OBSERVATION_SPACE, ACTION_SPACE

    def __init__(self, level=0, names=(), **others):
        self.level, self.names, self.others = level, names, others


@pytest.fixture(autouse=True)
def registered():
    gym.register("Registered-v0", f"{__name__}:Plain", max_episode_steps=7, kwargs={"level": 1})
    yield
    del gym.registry["Registered-v0"]


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """A folder that appears when anything of others runs, and a module that makes it when it is imported."""
    path = tmp_path / "mark"
    (tmp_path / "hostile_module.py").write_text(f"import os\nos.mkdir({str(path)!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    assert not path.exists()


def mkdir(path, **changes):
    return EnvSpec("Evil-v0", entry_point="os:mkdir", kwargs={"path": str(path)}, **changes)


HOSTILE = {
    "entry point": lambda path: mkdir(path),
    "entry point under a registered id": lambda path: EnvSpec(
        "Registered-v0", entry_point="os:mkdir", kwargs={"path": str(path)}
    ),
    "module that is imported": lambda path: EnvSpec("Evil-v0", entry_point="hostile_module:Env"),
    "wrapper": lambda path: EnvSpec(
        "Registered-v0",
        entry_point=f"{__name__}:Plain",
        additional_wrappers=(WrapperSpec("Evil", "hostile_module:Wrapper", {}),),
    ),
}


def module_in_the_id(path):
    spec = EnvSpec("Evil-v0")
    spec.id = "hostile_module:Evil-v0"
    return spec


def hdf5_with(tmp_path, spec):
    """A file of ours that records a spec, whatever it holds."""
    plain = load_dataset(arrays(EPISODES) | {"action_space": ACTION_SPACE})
    path = export_hdf5(plain, tmp_path / "theirs.hdf5")
    with h5py.File(path, "a") as file:
        file["metadata/env_spec"] = spec.to_json()
    return path


def minari_with(spec, *without):
    """A Minari dataset that records a spec, and lacks some of its spaces."""
    folder = write_minari("evil/one-v0", EPISODES).storage.data_path
    metadata = json.loads((folder / "metadata.json").read_text())
    for name in without:
        del metadata[name]
    (folder / "metadata.json").write_text(json.dumps(metadata | {"env_spec": spec.to_json()}))
    return "evil/one-v0"


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("source", ["hdf5", "minari"])
def test_no_recorded_environment_runs_what_it_names(kind, source, mark, tmp_path):
    spec = HOSTILE[kind](mark)
    data = load_dataset(hdf5_with(tmp_path, spec) if source == "hdf5" else minari_with(spec))
    assert isinstance(data.env_spec, RecordedSpec) and data.env_spec == spec
    for dataset in (data, combine(data, data), *split(data, [1.0], seed=0), data.replace(eval_env_spec=data.env_spec)):
        with pytest.raises(UserError, match=r"data must not choose what runs: give your own environment .*or trust_env=True"):
            dataset.make_env()
        with pytest.raises(UserError, match="data must not choose what runs"):
            dataset.make_env(eval_env=False)
    with pytest.raises(UserError, match="data must not choose what runs"):
        load_dataset(arrays(EPISODES), env=data.env_spec)
    with pytest.raises(UserError, match="data must not choose what runs"):
        as_env(data.env_spec)
    with pytest.raises(UserError, match="data must not choose what runs"):
        write_ours("evil/two-v0", [], env=data.env_spec)
    export_minari(data, "evil/three-v0", overwrite=True)
    assert isinstance(load_dataset("evil/three-v0").env_spec, RecordedSpec)


def test_an_id_with_a_module_is_refused(mark):
    with pytest.raises(UserError, match="'hostile_module:Evil-v0' names a module to import"):
        make_from_spec(recorded(module_in_the_id(mark)))


@pytest.mark.parametrize("missing", [("observation_space",), ("action_space",), ("observation_space", "action_space")])
@pytest.mark.parametrize("download", [False, True])
def test_minari_metadata_that_lack_a_space_build_no_environment(missing, download, mark, monkeypatch):
    name = "evil/one-v0"
    if download:
        monkeypatch.setattr(minari, "download_dataset", lambda dataset_id: minari_with(mkdir(mark), *missing))
    else:
        minari_with(mkdir(mark), *missing)
    with pytest.raises(UserError, match=f"metadata of evil/one-v0 have no {missing[0]}.*data must not choose what runs"):
        load_dataset(name, download=download)
    given = SimpleNamespace(observation_space=OBSERVATION_SPACE, action_space=ACTION_SPACE)
    assert load_dataset(name, env=given).action_space == ACTION_SPACE


def test_minari_metadata_that_lack_a_space_get_it_from_a_registered_environment():
    minari_with(gym.spec("Registered-v0"), "observation_space", "action_space")
    assert load_dataset("evil/one-v0").action_space == ACTION_SPACE


def test_minaris_ids_of_other_datasets_are_listed_without_building_theirs(mark):
    minari_with(mkdir(mark), "observation_space")
    with pytest.raises(FileNotFoundError, match="Nearest on this machine: evil/one-v0"):
        load_dataset("evil/ones-v0")


def test_a_registered_environment_with_plain_arguments_is_built_with_them(tmp_path):
    spec = EnvSpec(
        "Registered-v0", f"{__name__}:Plain", max_episode_steps=9, kwargs={"names": [["r", 1, 0.5], None, True, "a.xml"]}
    )
    env = load_dataset(hdf5_with(tmp_path, spec)).make_env()
    assert env.unwrapped.names == [["r", 1, 0.5], None, True, "a.xml"] and env.unwrapped.level == 1
    assert env.spec.max_episode_steps == 9


def test_another_name_for_a_registered_environment_is_built():
    spec = EnvSpec("Mine-v3", f"{__name__}:Plain", max_episode_steps=4, kwargs={"level": 5})
    env = make_from_spec(recorded(spec))
    assert (env.spec.id, env.spec.max_episode_steps, env.unwrapped.level) == ("Mine-v3", 4, 5)
    assert gym.spec("Registered-v0").kwargs == {"level": 1}


def test_environments_of_gymnasium_robotics_are_registered_for_the_data():
    pytest.importorskip("gymnasium_robotics")
    entry_point, maze = "gymnasium_robotics.envs.maze.point_maze:PointMazeEnv", [[1, 1, 1, 1], [1, "r", "g", 1], [1, 1, 1, 1]]
    for name in ("PointMaze_UMaze-v3", "PointMaze_Mine-v3"):
        spec = EnvSpec(name, entry_point, max_episode_steps=250, kwargs={"maze_map": maze, "continuing_task": True})
        found = registered_spec(recorded(spec))
        assert (found.id, found.entry_point, found.kwargs["maze_map"]) == (name, entry_point, maze)


@pytest.mark.parametrize(
    "value", ["/etc/passwd", "../up", "~/x", "module:Class", "a\\b", ".hidden", {"a": 1}, float("nan"), "x" * 200, [["a/b"]]]
)
def test_arguments_that_are_no_plain_values_are_refused(value):
    spec = EnvSpec("Registered-v0", f"{__name__}:Plain", kwargs={"level": value})
    with pytest.raises(UserError, match=r"has 'level'=.* among its arguments, which is not a plain value"):
        registered_spec(spec)


def test_what_the_user_trusts_or_gives_is_built_as_it_is(tmp_path):
    spec = EnvSpec("Unregistered-v0", f"{__name__}:Plain", kwargs={"level": 3, "others": {"a": 1}})
    path = hdf5_with(tmp_path, spec)
    del gym.registry["Registered-v0"]
    with pytest.raises(UserError, match="is not registered on this machine"):
        load_dataset(path).make_env()
    assert load_dataset(path).make_env(trust_env=True).unwrapped.others == {"others": {"a": 1}}
    assert load_dataset(path, trust_env=True).make_env().unwrapped.level == 3
    assert load_dataset(path).replace(env_spec=spec).make_env().unwrapped.level == 3
    gym.register("Registered-v0", f"{__name__}:Plain")


def test_the_environment_that_the_user_gives_takes_the_place_of_the_recorded_ones(mark, tmp_path):
    for source in (hdf5_with(tmp_path, mkdir(mark)), minari_with(mkdir(mark))):
        for env in ("Registered-v0", gym.spec("Registered-v0"), gym.make("Registered-v0")):
            data = load_dataset(source, env=env)
            assert data.make_env().spec.id == "Registered-v0" == data.make_env(eval_env=False).spec.id
        with pytest.raises(UserError, match="No environment is known"):  # not the recorded one
            load_dataset(source, env=Plain()).make_env()


def test_a_spec_that_cannot_be_read_is_left_out_with_a_warning(tmp_path):
    path = hdf5_with(tmp_path, gym.spec("Registered-v0"))
    with h5py.File(path, "a") as file:
        del file["metadata/env_spec"]
        file["metadata/env_spec"] = '{"id": 3}'
    with pytest.warns(UserWarning, match="environment that .*theirs.hdf5 records cannot be read and is left out"):
        assert load_dataset(path).env_spec is None


def test_unbounded_actions_of_minari_take_the_bounds_of_the_given_environment():
    folder = write_minari("free/one-v0", EPISODES).storage.data_path
    metadata = json.loads((folder / "metadata.json").read_text())
    free = spaces.Box(-np.inf, np.inf, (2,))
    metadata["action_space"] = minari.serialization.serialize_space(free)
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="finite bounds are needed"):
        load_dataset("free/one-v0")
    for cache in (False, True, True):
        assert load_dataset("free/one-v0", env="Registered-v0", cache=cache).action_space == ACTION_SPACE


def test_an_id_that_a_file_names_is_that_of_a_registered_environment():
    spec = spec_of_recorded_id("Registered-v0")
    assert isinstance(spec, RecordedSpec) and make_from_spec(spec).spec == gym.make("Registered-v0").spec
    assert make_from_spec(spec, level=4).unwrapped.level == 4
    for named, reason in (
        ("hostile_module:Evil-v0", "names a module to import"),
        (["os:mkdir"], "is not an id"),
        ("Evil-v0", "is not registered on this machine, and"),
    ):
        with pytest.raises(UserError, match=f"{reason}.*data must not choose what runs"):
            spec_of_recorded_id(named)


@pytest.mark.parametrize("kwargs", [{"level": "a/b"}, {3: 1}, ["level"], "level", {"level": object()}])
def test_arguments_that_a_file_names_are_plain_values_by_name(kwargs):
    with pytest.raises(UserError, match="data must not choose what runs"):
        check_recorded_arguments("Registered-v0", kwargs)


def test_a_file_may_name_an_environment_of_gymnasium_robotics():
    pytest.importorskip("gymnasium_robotics")
    assert spec_of_recorded_id("PointMaze_UMaze-v3").max_episode_steps == 300
