"""Writing Minari datasets: whole or absent, by one process at a time, whatever is killed in between."""

import copy
import os
import signal

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium import spaces
from labelled_episodes import ACTION_SPACE, GOAL_SPACE, OBSERVATION_SPACE, Episode, action, as_goal, observation, reward
from minari.data_collector import EpisodeBuffer
from minari.namespace import list_local_namespaces

from sb3_genoffline.data.writing import minari as minari_writing
from sb3_genoffline.data.writing.minari import write_minari
from sb3_genoffline.errors import ExistsError, UserError

NAME = "some/labelled/one-v0"
SPACES = {"observation_space": OBSERVATION_SPACE, "action_space": ACTION_SPACE}


def buffers(n, length=4):
    for number in range(n):
        e = Episode(number, length, "terminated")
        yield EpisodeBuffer(
            observations=observation(number, np.arange(length + 1)).astype(np.float32),
            actions=action(number, e.steps).astype(np.float32),
            rewards=reward(number, e.steps),
            terminations=e.terminations,
            truncations=e.truncations,
        )


@pytest.fixture
def root(own_folders):
    return own_folders / "minari"


class Writer:
    """A process that has written one episode of NAME and waits; :meth:`finish` lets it write two more."""

    def __init__(self):
        begun, told_to_go_on = os.pipe(), os.pipe()
        self.process = os.fork()
        if self.process == 0:
            try:
                write_minari(NAME, self._slowly(begun[1], told_to_go_on[0]), **SPACES, overwrite=True)
                os._exit(0)
            finally:
                os._exit(1)
        self._go_on = told_to_go_on[1]
        assert os.read(begun[0], 1) == b"b"

    @staticmethod
    def _slowly(begun, go_on):
        for i, buffer in enumerate(buffers(3)):
            yield buffer
            if i == 0:
                os.write(begun, b"b")
                os.read(go_on, 1)

    def finish(self):
        os.write(self._go_on, b"g")
        return self._wait()

    def kill(self):
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            self._wait()

    def _wait(self):
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        self.process = None
        return code


@pytest.fixture
def writer():
    process = Writer()
    yield process
    process.kill()


def names(root):
    return sorted(path.name for path in root.iterdir())


def test_infos_and_nested_observations_pass_through_with_the_metadata(root):
    observations = as_goal(observation(0, np.arange(4)))
    buffer = EpisodeBuffer(
        observations=observations,
        actions=action(0, np.arange(3)).astype(np.float32),
        rewards=np.arange(3.0),
        terminations=np.zeros(3, bool),
        truncations=np.array([False, False, True]),
        infos={"success": np.array([False, False, True]), "inner": {"x": np.arange(3)}},
        seed=7,
    )
    written = write_minari(
        NAME,
        iter([buffer]),
        observation_space=GOAL_SPACE,
        action_space=ACTION_SPACE,
        author="A. Person",
        author_email=["a@example.org", "b@example.org"],
        ref_min_score=-1.0,
        ref_max_score=2.0,
        description=None,
    )
    episode = next(written.iterate_episodes())
    for key, values in observations.items():
        np.testing.assert_array_equal(episode.observations[key], values)
    np.testing.assert_array_equal(episode.infos["success"], [False, False, True])
    np.testing.assert_array_equal(episode.infos["inner"]["x"], [0, 1, 2])
    metadata = written.storage.metadata
    assert metadata["author"] == {"A. Person"} and metadata["author_email"] == {"a@example.org", "b@example.org"}
    assert (metadata["ref_min_score"], metadata["ref_max_score"]) == (-1.0, 2.0) and "description" not in metadata
    assert written.env_spec is None and "env_spec" not in metadata
    assert list(minari.list_local_datasets()) == [NAME] and {"some", "some/labelled"} <= set(list_local_namespaces())
    assert names(root) == ["some"]


def test_spaces_and_both_specs_come_from_the_environments():
    made = write_minari("some/pendulum-v0", [pendulum_episode()], env="Pendulum-v1", eval_env="MountainCarContinuous-v0")
    assert made.observation_space.shape == (3,) and made.action_space == spaces.Box(-2.0, 2.0, (1,))
    assert made.recover_environment().spec.id == "Pendulum-v1"
    assert made.recover_environment(eval_env=True).spec.id == "MountainCarContinuous-v0"


def pendulum_episode():
    flags = np.array([True])
    zeros = np.zeros((2, 3), np.float32)
    return EpisodeBuffer(
        observations=zeros, actions=zeros[:1, :1], rewards=np.zeros(1), terminations=flags, truncations=~flags
    )


def test_an_existing_dataset_stays_unless_told_otherwise(root):
    write_minari(NAME, buffers(1), **SPACES)
    with pytest.raises(ExistsError, match=r"one-v0 exists already, with 4 steps.*pass overwrite=True"):
        write_minari(NAME, buffers(2), **SPACES)
    assert minari.load_dataset(NAME).total_steps == 4
    assert write_minari(NAME, buffers(2), **SPACES, overwrite=True).total_steps == 8
    assert names(root) == ["some"]


@pytest.mark.parametrize("bad", ["no-version", "../up-v0", "a/b-v0", ""])
def test_a_malformed_id_is_refused_before_anything_is_written(root, bad):
    with pytest.raises(UserError, match=f"{bad!r} cannot be the id of a dataset"):
        write_minari(bad, buffers(1), **SPACES)
    assert not root.exists()


def test_the_root_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "data")
    assert write_minari(NAME, buffers(2), **SPACES).total_episodes == 2
    assert (tmp_path / "data" / NAME).is_dir()


def test_nothing_to_write_and_nowhere_to_take_spaces_from_are_errors(root):
    with pytest.raises(UserError, match="would be empty: no episode was given"):
        write_minari(NAME, [], **SPACES)
    with pytest.raises(UserError, match="needs an observation_space and an action_space, or an env"):
        write_minari(NAME, buffers(1))
    assert names(root) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_what_was_there(root, error):
    def broken():
        yield from buffers(2)
        raise error

    with pytest.raises(error):
        write_minari(NAME, broken(), **SPACES)
    assert names(root) == []
    write_minari(NAME, buffers(1), **SPACES)
    with pytest.raises(error):
        write_minari(NAME, broken(), **SPACES, overwrite=True)
    assert minari.load_dataset(NAME).total_steps == 4 and names(root) == ["some"]


def test_episodes_are_taken_one_at_a_time(root):
    alive = []

    class Counted(EpisodeBuffer):
        def __del__(self):
            alive.remove(self.rewards[0])

    def counted():
        for buffer in buffers(20):
            alive.append(buffer.rewards[0])
            yield Counted(**vars(buffer))
            assert len(alive) <= 2

    assert write_minari(NAME, counted(), **SPACES).total_episodes == 20


def test_a_killed_writer_leaves_no_dataset_and_the_next_write_of_any_id_cleans_up(root, writer):
    writer.kill()
    assert len(names(root)) == 2 and all(name.startswith(".collecting-some%2F") for name in names(root))
    assert not minari.list_local_datasets()
    write_minari("another/one-v0", buffers(1), **SPACES)
    assert names(root) == ["another"]
    assert write_minari(NAME, buffers(2), **SPACES).total_steps == 8


def test_a_second_writer_is_told_and_the_first_one_is_not_disturbed(root, writer):
    with pytest.raises(ExistsError, match="one-v0 is being written by another process"):
        write_minari(NAME, buffers(1), **SPACES, overwrite=True)
    write_minari("another/one-v0", buffers(1), **SPACES)
    assert writer.finish() == 0
    assert minari.load_dataset(NAME).total_episodes == 3
    assert names(root) == ["another", "some"]


def test_a_dataset_that_a_killed_process_had_moved_aside_comes_back(root, monkeypatch):
    write_minari(NAME, buffers(1), **SPACES)
    replace = os.replace

    def die_between(source, target):
        if str(source).endswith("whole"):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(os, "replace", die_between)
            write_minari(NAME, buffers(2), **SPACES, overwrite=True)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not minari.list_local_datasets()
    write_minari("another/one-v0", buffers(1), **SPACES)
    assert minari.load_dataset(NAME).total_steps == 4 and names(root) == ["another", "some"]


def test_a_temporary_folder_without_a_lock_file_is_not_touched(root):
    foreign = root / ".collecting-of-another-program"
    foreign.mkdir(parents=True)
    write_minari(NAME, buffers(1), **SPACES)
    assert foreign.exists()


def test_without_file_locks_a_leftover_is_named(root, monkeypatch):
    monkeypatch.setattr(minari_writing, "fcntl", None)
    write_minari(NAME, buffers(1), **SPACES)
    assert names(root) == ["some"]
    (root / ".collecting-another%2Fone-v0.lock").touch()
    with pytest.raises(ExistsError, match=r"another process.*if none is running, delete .*another%2Fone-v0.lock"):
        write_minari("another/one-v0", buffers(1), **SPACES)


def test_a_spec_that_json_cannot_hold_is_left_out_with_a_warning(root):
    spec = copy.deepcopy(gym.spec("Pendulum-v1"))
    spec.kwargs = {"noise": np.zeros(3)}
    with pytest.warns(UserWarning, match="spec of the environment Pendulum-v1 cannot be written"):
        assert write_minari(NAME, buffers(1), env=spec, **SPACES).env_spec is None
