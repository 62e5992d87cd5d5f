"""Replay buffers that stable-baselines3 saved are read as data: nothing that a pickle names is imported or called."""

import os
import pickle
import struct

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from worlds import make_agent, make_dataset

from sb3_genoffline import load_dataset
from sb3_genoffline.errors import UserError

ACTIONS = spaces.Box(np.array([0, -2], np.float32), np.array([1, 5], np.float32))
VECTOR = spaces.Box(-np.inf, np.inf, (3,))
NESTED = spaces.Dict({"b": spaces.Box(-9, 9, (3,)), "a": spaces.Box(-9, 9, (2,), np.float64)})


def filled(cls=ReplayBuffer, space=VECTOR, size=20, n_envs=1, **options):
    """A buffer after 15 steps in each environment."""
    buffer, random = cls(size, space, ACTIONS, "cpu", n_envs, **options), np.random.default_rng(0)

    def observation():
        parts = {key: random.normal(size=(n_envs, *box.shape)) for key, box in getattr(space, "spaces", {"": space}).items()}
        return parts if isinstance(space, spaces.Dict) else parts[""]

    for _ in range(15):
        done, reward = random.random(n_envs) < 0.2, random.normal(size=n_envs)
        buffer.add(observation(), observation(), random.uniform(-1, 1, (n_envs, 2)), reward, done, [{}] * n_envs)
    return buffer


BUFFERS = {
    "part": lambda: filled(),
    "full": lambda: filled(size=10),
    "two environments": lambda: filled(n_envs=2),
    "shared observations": lambda: filled(optimize_memory_usage=True, handle_timeout_termination=False),
    "dict": lambda: filled(DictReplayBuffer, NESTED),
}


@pytest.mark.parametrize("kind", BUFFERS)
@pytest.mark.parametrize("protocol", [4, 5])
def test_a_saved_buffer_is_the_dataset_of_the_buffer(kind, protocol, tmp_path):
    buffer = BUFFERS[kind]()
    (tmp_path / "sac.pkl").write_bytes(pickle.dumps(buffer, protocol))
    data, expected = load_dataset(tmp_path / "sac.pkl"), load_dataset(buffer)
    assert data.fingerprint == expected.fingerprint and data.action_space == expected.action_space and data.id == "sac"


class Call:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(mark):
    buffer = filled()
    buffer.rewards = Call(os.mkdir, mark)
    names = filled()
    names.observations = Call(np.load, mark)
    objects = filled()
    objects.rewards = np.array([[Call(os.mkdir, mark)]] * 20, dtype=object)
    shape = filled()
    shape.actions = np.zeros((20, 1, 3), np.float32)
    ends = filled()
    ends.dones = np.zeros((20, 1, 2), np.float32)
    endless = filled()
    endless.buffer_size = 10**12
    nobody = filled()
    nobody.n_envs = 0
    space = filled()
    space.action_space = spaces.Discrete(3)
    huge = struct.pack("<Q", 1 << 40)
    return {
        "a call": pickle.dumps(Call(os.mkdir, mark)),
        "a call in an old protocol": b"cos\nsystem\n(S'mkdir " + mark.encode() + b"'\ntR.",
        "a call in a buffer": pickle.dumps(buffer),
        "a call with a path": pickle.dumps(names),
        "objects": pickle.dumps(objects),
        "another shape": pickle.dumps(shape),
        "too many ends": pickle.dumps(ends),
        "endless": pickle.dumps(endless),
        "no environment": pickle.dumps(nobody),
        "another space": pickle.dumps(space),
        "bytes that are not there": b"\x80\x05\x96" + huge + b"x.",
        "a place far away in the memo": b"\x80\x04Nr\xff\xff\xff\xff.",
        "an extension": b"\x80\x04\x82\x01.",
        "something outside": b"Pos\n.",
        "depth": b"\x80\x04" + b"]" * 10_000 + b"a" * 9_999 + b".",
        "nothing": b"",
        "text": b"a,b\n1,2\n",
        "half": pickle.dumps(filled())[:500],
    }


@pytest.mark.parametrize("kind", hostile(""))
def test_other_pickles_are_refused_and_do_nothing(kind, tmp_path):
    mark = str(tmp_path / "mark")
    (tmp_path / "sac.pkl").write_bytes(hostile(mark)[kind])
    with pytest.raises(UserError, match=r"only replay buffers of stable-baselines3 are read, as data.*this is not one"):
        load_dataset(tmp_path / "sac.pkl")
    assert not os.path.exists(mark)


def test_a_buffer_of_our_agents_is_a_zip_under_the_name_that_is_announced(tmp_path):
    agent = make_agent("td3_bc")
    agent.set_dataset(make_dataset())
    agent.save_replay_buffer(tmp_path / "rl_model_replay_buffer_5_steps.pkl")
    assert [path.name for path in tmp_path.iterdir()] == ["rl_model_replay_buffer_5_steps.pkl"]
    agent.load_replay_buffer(tmp_path / "rl_model_replay_buffer_5_steps.pkl")
    with pytest.raises(UserError, match=r"of an agent of this library.*load_replay_buffer\(path\) on the agent"):
        load_dataset(tmp_path / "rl_model_replay_buffer_5_steps.pkl")
