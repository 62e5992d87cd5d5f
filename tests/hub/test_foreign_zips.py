"""Agents of stable-baselines3 and sb3-contrib act as saved, while unpickling raises; hostile archives run nothing."""

import base64
import io
import json
import os
import pickle
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import QRDQN, TQC, CrossQ, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_genoffline import load_from_hub
from sb3_genoffline.files.archive import CheckpointError, read_archive

ACTIONS = spaces.Box(np.array([-0.4, -2.0], np.float32), np.array([0.4, 5.0], np.float32))


class Room(gym.Env):
    """
    :param action_space: of the room
    :param observation_space: of the room
    """

    def __init__(self, action_space: spaces.Space = ACTIONS, observation_space: spaces.Space | None = None) -> None:
        self.action_space = action_space
        self.observation_space = observation_space or spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, bool(self.np_random.random() < 0.2), False, {}


SMALL: dict[str, Any] = {"device": "cpu", "seed": 0}
OFF: dict[str, Any] = SMALL | {"buffer_size": 50, "learning_starts": 5, "batch_size": 4}
NETWORKS: dict[str, Any] = {"net_arch": [8, 8], "activation_fn": th.nn.Tanh}


def learned(
    cls: type[BaseAlgorithm], env: gym.Env | None = None, policy: str = "MlpPolicy", **arguments: Any
) -> BaseAlgorithm:
    return cls(policy, env or Room(), **arguments).learn(16)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sac") / "sac-Room-v0.zip"
    learned(SAC, policy_kwargs=NETWORKS, **OFF).save(path)
    return path


def rewritten(source: Path, target: Path, **members: bytes) -> Path:
    """A copy of an archive with other members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name not in members:
                new.writestr(name, old.read(name))
        for name, content in members.items():
            new.writestr(name, content)
    return target


@pytest.fixture
def no_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("load", "loads"):
        monkeypatch.setattr(cloudpickle, name, lambda *_, **__: pytest.fail("something was unpickled"))


class Trap:
    """Unpickling an instance makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sac", lambda: learned(SAC, policy_kwargs=NETWORKS, use_sde=True, **OFF)),
        ("td3", lambda: learned(TD3, policy_kwargs={"net_arch": {"pi": [8], "qf": [4, 4]}}, **OFF)),
        ("tqc", lambda: learned(TQC, policy_kwargs=NETWORKS | {"n_critics": 3, "n_quantiles": 5}, **OFF)),
        ("crossq", lambda: learned(CrossQ, policy_kwargs=NETWORKS, **OFF)),
        ("ppo", lambda: learned(PPO, n_steps=8, batch_size=4, learning_rate=lambda left: 1e-3 * left, **SMALL)),
        ("a2c", lambda: learned(A2C, policy_kwargs={"ortho_init": False, "log_std_init": -1.0}, **SMALL)),
        ("ppo_lstm", lambda: learned(RecurrentPPO, policy="MlpLstmPolicy", n_steps=8, batch_size=4, **SMALL)),
        ("dqn", lambda: learned(DQN, Room(spaces.Discrete(3, start=0)), policy_kwargs={"net_arch": [8]}, **OFF)),
        ("qrdqn", lambda: learned(QRDQN, Room(spaces.Discrete(3)), policy_kwargs={"net_arch": [8], "n_quantiles": 5}, **OFF)),
        (
            "ppo",
            lambda: learned(PPO, Room(spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(4)), n_steps=8, batch_size=4, **SMALL),
        ),
    ],
)
def test_an_agent_acts_as_saved_and_nothing_is_unpickled(name: str, make: Any, tmp_path: Path, no_pickles: None) -> None:
    model = make()
    for path in (tmp_path / f"{name}-Room-v0.zip", tmp_path / "agent.zip"):
        model.save(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            loaded = load_from_hub(path, device="cpu")
        assert type(loaded) is type(model) and type(loaded.policy) is type(model.policy)
        observations = np.stack([model.observation_space.sample() for _ in range(5)])
        ours, theirs = (agent.predict(observations, deterministic=True)[0] for agent in (loaded, model))
        np.testing.assert_array_equal(ours, theirs)


def test_dict_observations_are_taken_from_the_env(tmp_path: Path, no_pickles: None) -> None:
    env = Room(observation_space=spaces.Dict(goal=spaces.Box(-1, 1, (2,)), place=spaces.Box(-1, 1, (3,))))
    model = learned(SAC, env, policy="MultiInputPolicy", **OFF)
    model.save(tmp_path / "sac-Room-v0")
    with pytest.raises(CheckpointError, match=r"observation space can't be read.*pass env="):
        load_from_hub(tmp_path / "sac-Room-v0.zip")
    loaded = load_from_hub(tmp_path / "sac-Room-v0.zip", env=env)
    seen = env.observation_space.sample()
    np.testing.assert_array_equal(loaded.predict(seen, deterministic=True)[0], model.predict(seen, deterministic=True)[0])


def test_what_cannot_be_read_is_left_out_with_one_warning(sac: Path, tmp_path: Path) -> None:
    data = json.loads(read_archive(sac)["data"])
    trap = tmp_path / "sprung"
    planted = {":type:": "<class 'x.Y'>", ":serialized:": base64.b64encode(pickle.dumps(Trap(trap))).decode()}
    data |= {"unknown": planted, "action_noise": planted, "_last_obs": planted, "other": planted}
    data["policy_kwargs"]["features_extractor_class"] = "<class 'os.path.Evil'>"
    path = rewritten(sac, tmp_path / "sac.zip", data=json.dumps(data).encode())
    with pytest.warns(
        UserWarning, match=r"left out.*: other, policy_kwargs\['features_extractor_class'\], unknown\."
    ) as caught:
        load_from_hub(path)
    assert len(caught) == 1 and not trap.exists()
    with pytest.raises(Exception):  # noqa: B017  (the trap makes a folder and returns None instead of what is wanted)
        load_from_hub(path, trust_remote_code=True).predict(np.zeros(3))
    assert trap.exists(), "the trap works, where the caller asks for it"


def test_pickles_in_the_weights_do_not_run(sac: Path, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    saved = io.BytesIO()
    th.save({"actor": Trap(trap)}, saved)
    for content in (saved.getvalue(), pickle.dumps(Trap(trap)), b"", b"PK\x03\x04", read_archive(sac)["policy.pth"][:-99]):
        path = rewritten(sac, tmp_path / "sac.zip", **{"policy.pth": content})
        with pytest.raises(CheckpointError, match=r"policy\.pth"):
            load_from_hub(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(observation_space=None), "pass env="),
        (lambda d: d["observation_space"].update(_shape="[1000000000]"), "out of bounds"),
        (lambda d: d["action_space"].update(low="[1. 2. 3.]"), "3 numbers instead of 2"),
        (lambda d: d["action_space"].update(dtype="object"), "out of bounds"),
        (lambda d: d["policy_kwargs"].update(net_arch="[100000, 100000, 100000]"), "ask for networks of up to"),
        (lambda d: d["policy_kwargs"].update(net_arch="[8, 9]"), "do not fit"),
        (lambda d: d["policy_kwargs"].update(n_critics="'two'"), "does not describe a valid agent"),
    ],
)
def test_descriptions_that_are_not_right_are_refused(sac: Path, tmp_path: Path, edit: Any, message: str) -> None:
    data = json.loads(read_archive(sac)["data"])
    edit(data)
    with pytest.raises(CheckpointError, match=message):
        load_from_hub(rewritten(sac, tmp_path / "sac.zip", data=json.dumps(data).encode()))


def test_an_unknown_algorithm_says_which_are_known(sac: Path, tmp_path: Path) -> None:
    data = json.loads(read_archive(sac)["data"]) | {"policy_class": {":serialized:": "", "__module__": "os.policies"}}
    with pytest.raises(CheckpointError, match=r"'os\.policies'.*'sac-'.*tqc"):
        load_from_hub(rewritten(sac, tmp_path / "dreamer-x.zip", data=json.dumps(data).encode()))


def test_an_env_that_does_not_fit_is_told(sac: Path) -> None:
    with pytest.raises(ValueError, match=r"action space differs.*shape"):
        load_from_hub(sac, env=Room(spaces.Box(-1, 1, (3,))))


# ---------------------------------------------------------------------- archives in general


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "..\\out", "C:\\out", ""])
def test_member_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name or "/", b"x")
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        read_archive(tmp_path / "a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_bombs_and_doubles_are_refused_before_they_unpack(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(30 * 2**20))
    with pytest.raises(CheckpointError, match="zip bomb"):
        read_archive(tmp_path / "bomb.zip")
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("data", b"1")
        archive.writestr("data", b"2")
    with pytest.raises(CheckpointError, match="'data' more than once"):
        read_archive(tmp_path / "twice.zip")


def test_a_size_that_lies_unpacks_no_more_than_it_says(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(30 * 2**20))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.find(signature) + offset
        content[place : place + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(bytes(content))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="not a readable zip archive"):
        read_archive(tmp_path / "a.zip")
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()
