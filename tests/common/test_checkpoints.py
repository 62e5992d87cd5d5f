"""Saved agents hold no pickles, load without running anything, survive a crash, and fail with a message a user can act on."""

import base64
import io
import json
import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.utils import LinearSchedule
from worlds import (
    ACTION_SPACE,
    EXAMPLES,
    FITTING,
    OBSERVATION_SPACE,
    PointEnv,
    differing,
    make_agent,
    make_dataset,
    members,
    of_each_kind,
    snapshot,
)

from sb3_genoffline import ALGOS, OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.archive import CheckpointError

MakeAgent = Callable[..., OfflineAlgorithm]


@pytest.fixture(params=EXAMPLES)
def algo(request: pytest.FixtureRequest) -> str:
    """What most tests here ask about is code that the algorithms share."""
    return request.param


def write(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def edited(model: OfflineAlgorithm, **changes: Any) -> dict[str, bytes]:
    """Members of a saved agent with other entries in ``data``."""
    found = members(model)
    found["data"] = json.dumps(json.loads(found["data"]) | changes).encode()
    return found


def forbid_unpickling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was unpickled")

    for module, names in ((pickle, ("load", "loads", "Unpickler")), (cloudpickle, ("load", "loads")), (th, ("load",))):
        for name in names:
            monkeypatch.setattr(module, name, refuse)


class Payload:
    """Unpickling an instance makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.path,))


# ---------------------------------------------------------------------- nothing is unpickled


@of_each_kind
def test_a_saved_agent_holds_no_pickle(agent: MakeAgent, dataset: OfflineDataset) -> None:
    for name, content in members(agent().learn_offline(dataset, 3)).items():
        assert Path(name).suffix in ("", ".json", ".safetensors", ".txt"), name
        if name.endswith(".safetensors"):
            assert content[8:9] == b"{"  # behind the length of the header
        else:
            assert not content.startswith((b"\x80", b"PK"))  # a pickle, or the zip that torch.save wraps one in
        assert b":serialized:" not in content


@of_each_kind
def test_loading_unpickles_nothing(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = agent(learning_rate=LinearSchedule(1e-3, 1e-4, 1.0)).learn_offline(dataset, 3)
    model.save(tmp_path / "agent")
    forbid_unpickling(monkeypatch)
    loaded = type(model).load(tmp_path / "agent", env=PointEnv())
    loaded.learn_offline(dataset, 2, reset_num_timesteps=False)
    assert loaded.num_timesteps == 5


def test_planted_pickles_do_not_run(agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    evil = pickle.dumps(Payload(trap))
    pickle.loads(evil)
    assert trap.exists()  # the trap works
    trap.rmdir()
    model = agent().learn_offline(dataset, 3)
    serialized = {":type:": "<class 'object'>", ":serialized:": base64.b64encode(evil).decode()}
    stored = json.loads(members(model)["data"])
    contents = edited(
        model,
        lr_schedule=serialized,
        unknown=serialized,
        counters=stored["counters"] | {"_last_obs": serialized, "replay_buffer": serialized},
    )
    contents |= dict.fromkeys(["policy.pth", "pytorch_variables.pth", "policy.optimizer.pth", "data.pkl"], evil)
    loaded = type(model).load(write(tmp_path / "evil.zip", contents))
    loaded.learn_offline(dataset, 1)
    assert loaded._last_obs is None
    contents = edited(model, hyperparameters=stored["hyperparameters"] | {"unknown": serialized})
    with pytest.raises(CheckpointError, match="no argument 'unknown'"):
        type(model).load(write(tmp_path / "evil.zip", contents))
    assert not trap.exists()


def test_stable_baselines3_reads_our_archives_without_unpickling(
    agent: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent().save(tmp_path / "agent")
    forbid_unpickling(monkeypatch)
    data, parameters, variables = load_from_zip_file(tmp_path / "agent.zip")
    assert data is not None and data["hyperparameters"]["gamma"] == 0.99
    assert parameters == {} and variables is None


# ---------------------------------------------------------------------- clear errors


def test_a_missing_file_is_named(agent: MakeAgent, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.*nowhere\.zip"):
        type(agent()).load(tmp_path / "nowhere")


@pytest.mark.parametrize("place", [3, None, ["a.zip"], b"a.zip", io.StringIO()], ids=lambda place: type(place).__name__)
def test_what_is_no_place_for_a_file_is_named(agent: MakeAgent, place: Any) -> None:
    for act in (agent().save, type(agent()).load, agent().policy.save):
        with pytest.raises(UserError, match=rf"A {type(place).__name__} is not a place for a file: give a path"):
            act(place)


def test_an_agent_of_stable_baselines3_is_recognised(agent: MakeAgent, tmp_path: Path) -> None:
    SAC("MlpPolicy", PointEnv(), buffer_size=10, policy_kwargs={"net_arch": [4]}, device="cpu").save(tmp_path / "sac")
    with pytest.raises(CheckpointError, match="was not saved by sb3_genoffline"):
        type(agent()).load(tmp_path / "sac")


def test_another_algorithms_agent_is_refused_and_named(agent: MakeAgent, tmp_path: Path) -> None:
    model = agent()
    path = write(tmp_path / "agent.zip", edited(model, algo="dreamer"))
    with pytest.raises(CheckpointError, match=r"holds a 'dreamer' agent, not one of .*load_agent"):
        type(model).load(path)


def test_a_newer_format_asks_for_an_upgrade(agent: MakeAgent, tmp_path: Path) -> None:
    model = agent()
    path = write(tmp_path / "agent.zip", edited(model, format_version=99))
    with pytest.raises(CheckpointError, match=r"format 99.*upgrade"):
        type(model).load(path)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 0.99])
def test_a_truncated_file_is_called_unreadable(agent: MakeAgent, tmp_path: Path, share: float) -> None:
    model = agent()
    model.save(tmp_path / "agent")
    whole = (tmp_path / "agent.zip").read_bytes()
    (tmp_path / "agent.zip").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"agent\.zip is not a readable zip archive"):
        type(model).load(tmp_path / "agent")


def test_a_flipped_bit_is_noticed(agent: MakeAgent, tmp_path: Path) -> None:
    model = agent()
    model.save(tmp_path / "agent")
    content = bytearray((tmp_path / "agent.zip").read_bytes())
    content[content.find(b"policy.safetensors") + 2000] ^= 1
    (tmp_path / "agent.zip").write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"is not a readable zip archive.*CRC"):
        type(model).load(tmp_path / "agent")


@pytest.mark.parametrize("member", ["policy.safetensors", "training.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "header", "empty"])
def test_damaged_weights_are_named(agent: MakeAgent, tmp_path: Path, member: str, damage: str) -> None:
    model = agent()
    contents = members(model)
    whole = contents[member]
    contents[member] = {"cut": whole[:-20], "header": b"\xff" * 16 + whole[16:], "empty": b""}[damage]
    with pytest.raises(CheckpointError, match=f"'{member}' is damaged"):
        type(model).load(write(tmp_path / "agent.zip", contents))


@pytest.mark.parametrize("member", ["data", "policy.safetensors", "training.safetensors"])
def test_a_missing_member_is_named(agent: MakeAgent, tmp_path: Path, member: str) -> None:
    model = agent()
    contents = members(model)
    del contents[member]
    with pytest.raises(CheckpointError, match=f"'{member}'"):
        type(model).load(write(tmp_path / "agent.zip", contents))


def test_data_that_is_no_json_is_named(agent: MakeAgent, tmp_path: Path) -> None:
    model = agent()
    for content, message in (
        (b"{", "'data' is not JSON"),
        (b"\xff\xfe", "'data' is not JSON"),
        (b"[1]", "does not hold a JSON object"),
    ):
        with pytest.raises(CheckpointError, match=message):
            type(model).load(write(tmp_path / "agent.zip", members(model) | {"data": content}))


def test_weights_of_another_size_are_refused(agent: MakeAgent, tmp_path: Path) -> None:
    model = agent()
    contents = members(model)
    contents["policy.safetensors"] = members(agent(policy_kwargs={"net_arch": [6, 6]}))["policy.safetensors"]
    with pytest.raises(CheckpointError, match="do not fit"):
        type(model).load(write(tmp_path / "agent.zip", contents))


def test_an_unknown_policy_class_says_how_to_pass_it(agent: MakeAgent, tmp_path: Path) -> None:
    model = agent()
    path = write(tmp_path / "agent.zip", edited(model, policy_class="MyPolicy"))
    with pytest.raises(CheckpointError, match=r"MyPolicy.*custom_objects"):
        type(model).load(path)
    loaded = type(model).load(path, custom_objects={"policy_class": model.policy_class})
    assert type(loaded.policy) is model.policy_class


# ---------------------------------------------------------------------- writing


def test_a_crash_while_saving_leaves_the_old_file_and_no_other(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = agent()
    model.save(tmp_path / "agent")
    old = (tmp_path / "agent.zip").read_bytes()
    model.learn_offline(dataset, 2)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    for target, name in ((os, "replace"), (os, "fsync"), (zipfile.ZipFile, "writestr")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                model.save(tmp_path / "agent")
        assert os.listdir(tmp_path) == ["agent.zip"]
        assert (tmp_path / "agent.zip").read_bytes() == old
    model.save(tmp_path / "agent")
    assert (tmp_path / "agent.zip").read_bytes() != old


def test_a_schedule_that_is_a_function_is_refused_and_the_old_file_stays(agent: MakeAgent, tmp_path: Path) -> None:
    agent().save(tmp_path / "agent")
    old = (tmp_path / "agent.zip").read_bytes()
    model, schedule = agent(), lambda progress: 1e-3 * progress
    for attempt in (lambda: agent(learning_rate=schedule), lambda: setattr(model, "learning_rate", schedule)):
        with pytest.raises(ValueError, match=r"learning_rate=<function .* without a pickle: use .*LinearSchedule"):
            attempt()
    model.__dict__["learning_rate"] = schedule  # past the check
    with pytest.raises(ValueError, match=r"learning_rate=<function .* without a pickle"):
        model.save(tmp_path / "agent")
    assert os.listdir(tmp_path) == ["agent.zip"] and (tmp_path / "agent.zip").read_bytes() == old


@pytest.mark.parametrize(
    ("given", "made"), [("a", "a.zip"), ("b.zip", "b.zip"), ("run-v1.5", "run-v1.5.zip"), ("x/y/c", "x/y/c.zip")]
)
def test_files_end_in_zip_and_folders_are_made(agent: MakeAgent, tmp_path: Path, given: str, made: str) -> None:
    model = agent()
    model.save(str(tmp_path / given))
    assert (tmp_path / made).is_file()
    assert snapshot(type(model).load(tmp_path / given)).keys() == snapshot(model).keys()


def test_an_open_file_can_be_written_and_read(agent: MakeAgent) -> None:
    model, file = agent(), io.BytesIO()
    model.save(file)
    file.seek(0)
    assert differing(snapshot(model), snapshot(type(model).load(file))) == []


def test_saved_files_have_the_users_usual_permissions(agent: MakeAgent, tmp_path: Path) -> None:
    agent().save(tmp_path / "agent")
    (tmp_path / "usual").touch()
    assert stat.S_IMODE((tmp_path / "agent.zip").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


@of_each_kind
def test_an_agent_saved_for_acting_alone_is_smaller_and_acts_the_same(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path
) -> None:
    model = agent().learn_offline(dataset, 2)
    model.save(tmp_path / "whole")
    model.save(tmp_path / "acting", exclude=["training"])
    assert (tmp_path / "acting.zip").stat().st_size < (tmp_path / "whole.zip").stat().st_size
    observations = np.random.default_rng(0).normal(size=(4, 3))
    actions = [type(model).load(tmp_path / name).predict(observations)[0] for name in ("whole", "acting")]
    np.testing.assert_array_equal(*actions)


@of_each_kind
def test_weights_can_be_taken_over_from_a_file_or_another_agent(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path
) -> None:
    trained = agent().learn_offline(dataset, 2)
    trained.save(tmp_path / "agent")
    for source in (tmp_path / "agent", trained.get_parameters()):
        fresh = agent(seed=1)
        fresh.set_parameters(source)
        for key, value in trained.policy.state_dict().items():
            assert th.equal(fresh.policy.state_dict()[key], value)


@pytest.mark.parametrize("rate", [5e-4, LinearSchedule(1e-3, 1e-4, 0.5)])
def test_learning_rates_survive(agent: MakeAgent, tmp_path: Path, rate: Any) -> None:
    model = agent(learning_rate=rate)
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent")
    for progress in (1.0, 0.8, 0.5, 0.1, 0.0):
        assert loaded.lr_schedule(progress) == model.lr_schedule(progress)


def test_spaces_survive_exactly(agent: MakeAgent, tmp_path: Path) -> None:
    model = agent()
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent")
    assert loaded.observation_space == OBSERVATION_SPACE and loaded.action_space == ACTION_SPACE


def test_going_on_on_another_kind_of_device_keeps_the_weights_and_warns(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path
) -> None:
    model = agent().learn_offline(dataset, 3)
    state = model.training_state() | {"device": "cuda", "generator": th.zeros(16, dtype=th.uint8)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "training_state", lambda self: state)
        model.save(tmp_path / "agent")
    with pytest.warns(UserWarning, match="trained on cuda and is loaded on cpu"):
        loaded = type(model).load(tmp_path / "agent", device="cpu")
    for name, tensor in model.policy.state_dict().items():
        assert th.equal(loaded.policy.state_dict()[name], tensor)
    assert loaded.learn_offline(dataset, 2, reset_num_timesteps=False).num_timesteps == 5


@pytest.mark.parametrize("algo", FITTING)
def test_a_file_never_names_another_to_be_read(algo: str, tmp_path: Path) -> None:
    name = make_agent(algo).policy.fitted_model
    make_agent(algo).save(tmp_path / "fitted-elsewhere")
    contents = members(make_agent(algo))
    data = json.loads(contents["data"])
    data["hyperparameters"][name] = str(tmp_path / "fitted-elsewhere.zip")
    contents["data"] = json.dumps(data).encode()
    with pytest.raises(CheckpointError, match=f"{name}=.* names a file to read"):
        ALGOS[algo].load(write(tmp_path / "evil.zip", contents))


def test_variables_are_part_of_an_agents_file(tmp_path: Path) -> None:
    agent = make_agent("dac", eta=1.0, eta_lr=0.5, bc_threshold=0.1).learn_offline(make_dataset(), 6)
    assert agent.eta_tensor.item() != 1.0
    agent.save(tmp_path / "agent")
    assert ALGOS["dac"].load(tmp_path / "agent", device="cpu").eta_tensor.item() == agent.eta_tensor.item()
