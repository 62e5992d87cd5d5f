"""Folders: what acting needs comes back bit for bit for every algorithm, and everything else that is written is refused."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch as th
from point_agents import ACTION_SPACE, OBSERVATION_SPACE, OBSERVATIONS, act, make_dataset, train
from safetensors.torch import load_file, save_file
from stable_baselines3 import SAC
from worlds import FITTING, make_agent

from sb3_genoffline import ALGOS, download_from_hub, load_from_hub
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.errors import NotFoundError
from sb3_genoffline.files.archive import CheckpointError
from sb3_genoffline.files.manifest import write_manifest
from sb3_genoffline.hub.errors import HubError
from sb3_genoffline.hub.fingerprint import fingerprint_difference, make_fingerprint
from sb3_genoffline.hub.publishing import write_agent_folder
from sb3_genoffline.registry import load_agent


def trained(name: str, steps: int = 3) -> OfflineAlgorithm:
    model = make_agent(name, normalize_observations=True, reward_transform=None)
    return model.learn_offline(make_dataset(), steps)


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    """Edit a JSON file in place."""
    data = json.loads(path.read_text())
    path.write_text(json.dumps(edit(data) or data))


@pytest.fixture
def folder(tmp_path: Path, agent: OfflineAlgorithm) -> Path:
    """A DAC agent's folder without a manifest."""
    return agent.save_pretrained(tmp_path / "dac-point")


# ---------------------------------------------------------------------- every algorithm


@pytest.mark.filterwarnings("ignore:The uncertainty H", "ignore:penalty=")
@pytest.mark.parametrize("name", sorted(ALGOS))
def test_an_agent_comes_back_acting_the_same_and_can_be_trained_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(name, 2)
    th.manual_seed(123)  # not where the loaded agent's seed would put it
    np.random.seed(123)
    for key, tensor in model.policy.named_parameters():
        if "_target." in key:
            tensor.data += th.randn(tensor.shape)  # so that it matters which of the two is kept
    model.save_pretrained(tmp_path)
    model.save(tmp_path / "acting", exclude=["training"])
    for module in (pickle, cloudpickle):
        monkeypatch.setattr(module, "loads", lambda *_: pytest.fail("something was unpickled"))
    before = th.get_rng_state(), np.random.get_state()[1].tolist()
    for path in (tmp_path, tmp_path / "acting"):
        loaded = load_agent(path)
        assert th.equal(th.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
        assert type(loaded) is type(model) and loaded.num_timesteps == 2 and loaded.dataset_info == model.dataset_info
        assert act(loaded) == act(model)
        for target in (part for part, _ in loaded.policy.named_children() if part.endswith("_target")):
            online = getattr(loaded.policy, target.removesuffix("_target")).state_dict()
            for key, tensor in getattr(loaded.policy, target).state_dict().items():
                assert th.equal(tensor, online[key]), f"{target}.{key} is no copy"
        loaded.learn_offline(make_dataset(), 1, reset_num_timesteps=False)
        assert loaded.num_timesteps == 3


@pytest.mark.parametrize("name", sorted(ALGOS))
def test_an_algorithm_is_named_as_its_folder(name: str) -> None:
    assert ALGOS[name].name == name


def test_what_acting_does_without_is_left_out(agent: OfflineAlgorithm, folder: Path) -> None:
    stored = {name.partition(".")[0] for name in load_file(folder / "model.safetensors")}
    assert stored == {"actor", "critic_target"}, "DAC acts with the online actor and the critics' targets"
    config = json.loads((folder / "config.json").read_text())
    assert config["observation_statistics"] is None and config["algo"] == "dac"
    assert config["observation_space"]["low"] == ["-inf"] * 3


def test_statistics_and_settings_survive_exactly(tmp_path: Path) -> None:
    model = trained("td3_bc")
    model.save_pretrained(tmp_path)
    loaded = ALGOS["td3_bc"].from_pretrained(tmp_path, gamma=0.5)
    assert th.equal(loaded.policy.obs_mean, model.policy.obs_mean) and th.equal(loaded.policy.obs_std, model.policy.obs_std)
    assert loaded.gamma == 0.5 and loaded.batch_size == 16 and loaded.observation_space == OBSERVATION_SPACE


def test_an_agent_that_cannot_act_is_not_saved(tmp_path: Path) -> None:
    model = train(ALGOS["bc"])
    with th.no_grad():
        next(model.policy.actor.parameters()).view(-1)[0] = th.nan
    with pytest.raises(ValueError, match=r"actor\.net\.0\.weight"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(format_version=3), "format 3, newer.*upgrade"),
        (lambda c: c.update(format_version="1"), "not of the type int"),
        (lambda c: c.update(algo="os.system"), "algorithm 'os.system'.*knows awac"),
        (lambda c: c.update(policy_class="builtins.exec"), "policy class 'builtins.exec' is not one of DAC's"),
        (lambda c: c.pop("counters"), "no 'counters'"),
        (lambda c: c["hyperparameters"].update(gamma="0.99"), "gamma='0.99' must be a number"),
        (lambda c: c["hyperparameters"].update(sampler="euler"), "sampler='euler' is not known"),
        (lambda c: c["hyperparameters"].update(newer=1), "DAC has no argument 'newer'"),
        (lambda c: c["hyperparameters"].update(n_critics=10**9), "n_critics=1000000000, out of bounds"),
        (lambda c: c["hyperparameters"].update(n_diffusion_steps=10**9), "n_diffusion_steps=1000000000 must lie in"),
        (
            lambda c: c["hyperparameters"].update(policy_kwargs={"net_arch": [100_000] * 3}),
            "ask for networks of up to .* refused",
        ),
        (lambda c: c["hyperparameters"].update(policy_kwargs={"net_arch": [8, 9]}), "do not fit"),
        (lambda c: c["hyperparameters"].update(policy_kwargs={"critic_activation_fn": {"activation": "eval"}}), "'eval'"),
        (lambda c: c["hyperparameters"].update(learning_rate={"linear": [1]}), "does not describe a valid agent"),
        (lambda c: c["observation_space"].update(shape=[4]), "has 3 numbers as low"),
        (lambda c: c["observation_space"].update(shape=[10**9]), "1 to 100,000"),
        (lambda c: c["observation_space"].update(type="Discrete"), "not the Box"),
        (lambda c: c["action_space"].update(low=["-inf", 0]), "finite bounds"),
        (lambda c: c["action_space"].update(dtype="object"), "not numeric"),
        (lambda c: c.update(observation_statistics={"mean": [0, 0, 0], "std": [1, 0, 1]}), "above 0 for std"),
        (lambda c: c["dataset"].update(mean_return=[1]), "has dataset="),
    ],
)
def test_a_config_that_is_not_right_is_refused(folder: Path, edit: Callable[[Any], Any], message: str) -> None:
    change(folder / "config.json", lambda config: edit(config) and None)
    with pytest.raises(CheckpointError, match=message):
        load_agent(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{",
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": 1, "a": 2}',
        '{"a":' * 100_000,
        f'{{"a": {"9" * 5000}}}',
        '{"a": 9999999999999999999}',
    ],
)
def test_json_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_agent(folder)


@pytest.mark.parametrize("algo", FITTING)
def test_no_other_file_is_read_because_a_config_names_it(tmp_path: Path, algo: str) -> None:
    agent = make_agent(algo)
    agent.save_pretrained(tmp_path)
    name = agent.policy.fitted_model
    change(tmp_path / "config.json", lambda config: config["hyperparameters"].update({name: "/etc/passwd"}))
    with pytest.raises(CheckpointError, match=f"{name}='/etc/passwd' names a file"):
        load_agent(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: next(iter(t.values())).view(-1)[:1].fill_(th.nan), "1 entries that are not finite"),
        (lambda t: t.update(extra=th.zeros(3)), "has also extra"),
        (lambda t: t.pop(next(iter(t))), "the file lacks"),
        (lambda t: t.update({key: value.double() for key, value in t.items()}), "has the type torch.float64"),
        (lambda t: t.update({key: value[..., :1].contiguous() for key, value in t.items()}), "has the shape"),
        (lambda t: [value.view(-1)[:1].fill_(th.inf) for value in t.values()], "not finite"),
    ],
)
def test_weights_that_are_not_right_are_refused(folder: Path, edit: Callable[[Any], Any], message: str) -> None:
    change(folder / "config.json", lambda config: config.pop("weights_sha256") and None)  # as one who forges weights would
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_agent(folder)


def test_a_header_that_lies_is_refused(folder: Path) -> None:
    change(folder / "config.json", lambda config: config.pop("weights_sha256") and None)
    content = (folder / "model.safetensors").read_bytes()
    for fake in (b"\xff" * 8 + content[8:], content[:-4], content[:20], b"", (2**62).to_bytes(8, "little")):
        (folder / "model.safetensors").write_bytes(fake)
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
            load_agent(folder)


def test_a_manifest_is_held_against_the_files(folder: Path) -> None:
    write_manifest(folder)
    load_agent(folder)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"model\.safetensors has the sha256"):
        load_agent(folder)
    (folder / "model.safetensors").write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="bytes and the manifest says"):
        load_agent(folder)
    change(folder / "manifest.json", lambda manifest: manifest["files"].pop("model.safetensors") and None)
    with pytest.raises(CheckpointError, match="does not list"):
        load_agent(folder)


def test_another_class_or_nothing_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'dac' agent, not one of TD3BC"):
        ALGOS["td3_bc"].from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match="not an agent's folder: it has no config"):
        load_from_hub(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder org/dac-point here.*load_from_hub"):
        ALGOS["dac"].from_pretrained("org/dac-point")
    with pytest.raises(ValueError, match="no folder or archive 'nothing-here' here"):
        load_from_hub("nothing-here")
    with pytest.raises(ValueError, match="observation space differs"):
        load_agent(folder, env=(ACTION_SPACE, ACTION_SPACE))


# ---------------------------------------------------------------------- whole folders


def test_a_folder_replaces_another_only_when_told_and_only_when_whole(agent: OfflineAlgorithm, tmp_path: Path) -> None:
    folder = write_agent_folder(agent, tmp_path / "dac-point", command="first")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_agent_folder(agent, folder)
    results = {"mean_reward": np.nan, "n_eval_episodes": 1, "gradient_steps": 3, "env_id": "Pendulum-v1"}
    with pytest.raises(ValueError, match=r"results\.json must be plain data"):
        write_agent_folder(agent, folder, results=results, overwrite=True)
    assert "first" in (folder / "README.md").read_text() and [path.name for path in tmp_path.iterdir()] == ["dac-point"]
    write_agent_folder(agent, folder, command="second", overwrite=True)
    assert "second" in (folder / "README.md").read_text() and [path.name for path in tmp_path.iterdir()] == ["dac-point"]


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_what_is_no_agent_s_folder_is_never_replaced(
    agent: OfflineAlgorithm, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "mine")
    with pytest.raises(FileExistsError, match="is not an agent's folder"):
        write_agent_folder(agent, tmp_path / "mine", overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_an_agent_of_stable_baselines3_is_not_published(tmp_path: Path) -> None:
    foreign: Any = SAC("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs={"net_arch": [4]})
    with pytest.raises(ValueError, match="SAC is not an algorithm of sb3_genoffline"):
        write_agent_folder(foreign, tmp_path / "sac-pendulum")
    assert not list(tmp_path.iterdir())


def test_an_archive_without_the_training_part_is_smaller_and_acts_the_same(agent: OfflineAlgorithm, tmp_path: Path) -> None:
    whole = write_agent_folder(agent, tmp_path / "whole")
    acting = write_agent_folder(agent, tmp_path / "acting", training=False)
    assert (acting / "acting.zip").stat().st_size < 0.5 * (whole / "whole.zip").stat().st_size
    assert act(type(agent).load(acting / "acting.zip")) == act(type(agent).load(whole / "whole.zip")) == act(agent)


def test_a_fingerprint_recognises_its_agent_and_leaves_its_stream_alone(agent: OfflineAlgorithm, tmp_path: Path) -> None:
    agent.policy.seed_acting(3)
    first = agent.predict(OBSERVATIONS, deterministic=False)[0]
    agent.policy.seed_acting(3)
    fingerprint = make_fingerprint(agent)
    np.testing.assert_array_equal(agent.predict(OBSERVATIONS, deterministic=False)[0], first)
    assert fingerprint_difference(agent, json.loads(json.dumps(fingerprint))) == 0
    assert fingerprint_difference(train(seed=1), fingerprint) > 0.01
    stored = json.loads((write_agent_folder(agent, tmp_path / "new") / "fingerprint.json").read_text())
    assert stored == fingerprint


def test_an_agent_that_would_act_otherwise_once_loaded_is_not_published(tmp_path: Path) -> None:
    model = train()
    model.policy.act_with({"clip_denoised": False, "n_action_samples": 7})  # past the agent, which saves its own
    with pytest.raises(ValueError, match="acts otherwise once it is loaded"):
        write_agent_folder(model, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_path_is_not_asked_of_the_hub_and_what_may_be_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "dac-point").mkdir(parents=True)
    for path in ("./models/dac-pint", str(tmp_path / "models" / "dac-pint"), "models/dac-pint.zip"):
        with pytest.raises(NotFoundError, match=r"There is no .*did you mean dac-point\?"):
            load_from_hub(path)
        with pytest.raises(NotFoundError, match=r"There is no .*did you mean dac-point\?"):
            download_from_hub(path, "config.json")
    for load in (load_from_hub, lambda name, **where: download_from_hub(name, "config.json", **where)):
        told = pytest.warns(UserWarning, match=r"no folder 'models/dac-pint' here; did you mean dac-point\? Asking the Hub")
        with told, pytest.raises(HubError):
            load("models/dac-pint", local_files_only=True)
