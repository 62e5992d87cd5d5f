"""Train small, publish, and load by somebody else: through the real client and the loopback Hub."""

import hashlib
import json
import pickle
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch as th
from huggingface_hub import HfApi
from point_agents import NEEDED, OBSERVATIONS, REPO, act, make_dataset, train
from stable_baselines3 import TD3

from sb3_genoffline import DAC, TD3BC, download_from_hub, load_from_hub, push_to_hub
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.hub import HubError, push_folder, write_agent_folder

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own


@pytest.fixture(scope="module")
def other() -> OfflineAlgorithm:
    """Another agent for the same repository."""
    return train(seed=1)


@pytest.mark.slow  # an empty cache is asked of in test_zoo_publish.py, another process in test_determinism.py
def test_agents_act_the_same_in_a_fresh_process_with_an_empty_cache(hub, agent, fresh_process):
    push_to_hub(agent, REPO)
    push_to_hub(second := train(TD3BC), "ada/td3-point")
    expected = {REPO: act(agent).hex(), "ada/td3-point": act(second).hex()}
    hub.log.clear()
    code = f"""
        import json
        import numpy as np
        from sb3_genoffline import load_from_hub

        seen = {{}}
        for repo in {list(expected)}:
            model = load_from_hub(repo, device="cpu")
            model.policy.seed_acting(7)
            observations = np.linspace(-3, 3, 12, dtype=np.float32).reshape(4, 3)
            actions = [model.predict(observations, deterministic=mode)[0].tobytes() for mode in (True, False)]
            seen[repo] = [type(model).__name__, b"".join(actions).hex()]
        print(json.dumps(seen))
    """
    seen = json.loads(fresh_process(code))
    assert seen == {REPO: ["DAC", expected[REPO]], "ada/td3-point": ["TD3BC", expected["ada/td3-point"]]}
    assert hub.downloaded() == NEEDED + NEEDED, "no more than acting needs"


def test_a_second_load_downloads_nothing_and_works_without_a_hub(hub, agent, published):
    load_from_hub(REPO)
    hub.log.clear()
    assert act(load_from_hub(REPO)) == act(agent) and hub.downloaded() == []
    hub.log.clear()
    assert act(load_from_hub(REPO, local_files_only=True)) == act(agent) and hub.log == []
    hub.stop()
    assert act(load_from_hub(REPO)) == act(agent)


def test_all_files_are_of_one_commit(hub, agent, published):
    """Somebody pushes between the first request and the second."""
    first, pushed = hub.repo(REPO).at("main").sha, []

    def push(body: bytes) -> bytes:
        if not pushed:
            pushed.append(hub.put(REPO, {"model.safetensors": b"other", "config.json": b"{}"}))
        return body

    hub.inject("GET .*/manifest.json", edit=push)
    assert act(load_from_hub(REPO)) == act(agent) and pushed
    asked = {request.path.split("/resolve/")[1].split("/")[0] for request in hub.requests("/resolve/.*(config|model)")}
    assert asked == {first}


def test_a_revision_pins_the_agent(hub, api: HfApi, agent, other, published):
    api.create_tag(REPO, tag="v1")
    first = hub.repo(REPO).at("main").sha
    assert act(load_from_hub(REPO)) == act(agent)
    push_to_hub(other, REPO)
    for revision, expected in ((None, other), ("main", other), ("v1", agent), (first, agent)):
        assert act(load_from_hub(REPO, revision=revision)) == act(expected)
    assert (
        download_from_hub(REPO, "config.json", revision="v1").read_bytes()
        != download_from_hub(REPO, "config.json").read_bytes()
    )
    api.create_branch(REPO, branch="try", revision="v1")
    push_to_hub(other, REPO, revision="try")
    assert act(load_from_hub(REPO, revision="try")) == act(other)


def test_the_archive_is_for_plain_load_and_goes_on_as_the_original(hub, published):
    path = download_from_hub(REPO, "dac-point.zip")
    assert isinstance(path, Path)
    original, loaded = train(), DAC.load(path, device="cpu")
    for model in (original, loaded):
        model.learn_offline(make_dataset(), gradient_steps=2, reset_num_timesteps=False)
    assert act(original) == act(loaded)


def test_what_acts_can_be_trained_on(hub, published):
    model = load_from_hub(REPO, device="cpu")
    before = act(model)
    model.learn_offline(make_dataset(), gradient_steps=2)
    assert act(model) != before


def test_the_caller_s_generators_are_left_alone(hub, published):
    th.manual_seed(0)
    np.random.seed(0)
    expected = (th.rand(1), np.random.rand())
    th.manual_seed(0)
    np.random.seed(0)
    load_from_hub(REPO)
    assert (th.rand(1), np.random.rand()) == expected


def test_a_local_folder_or_archive_is_loaded_without_a_hub(hub, agent, tmp_path, monkeypatch):
    write_agent_folder(agent, tmp_path / "models" / "dac-point")
    monkeypatch.chdir(tmp_path)
    for path in ("models/dac-point", tmp_path / "models" / "dac-point", "models/dac-point/dac-point.zip"):
        assert act(load_from_hub(str(path))) == act(agent)
    assert hub.log == []


def test_a_publication_is_one_commit_and_nothing_at_all_if_nothing_changed(hub, agent, tmp_path):
    folder = write_agent_folder(agent, tmp_path / "dac-point", repo_id=REPO)
    push_folder(folder, REPO)
    assert len(hub.requests("POST .*/commit/")) == 1
    there = {path: blob.content for path, blob in hub.repo(REPO).at("main").files.items()}
    manifest = there.pop("manifest.json")
    assert json.loads(manifest)["files"] == {
        path: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} for path, content in there.items()
    }
    assert b"*.mp4 filter=lfs" in there.pop(".gitattributes")
    written = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert there == {path: content for path, content in written.items() if path != "manifest.json"}
    assert {path for path, blob in hub.repo(REPO).at("main").files.items() if blob.lfs} >= {
        "model.safetensors",
        "dac-point.zip",
    }
    push_folder(folder, REPO)
    assert len(hub.requests("POST .*/commit/")) == 1


def test_a_file_that_left_the_folder_leaves_the_hub_and_what_others_added_stays(hub, agent, tmp_path):
    push_folder(write_agent_folder(agent, tmp_path / "one", repo_id=REPO, hyperparameters={"batch_size": 16}), REPO)
    hub.put(REPO, {"notes/by-hand.txt": b"kept"})
    hub.log.clear()
    push_folder(write_agent_folder(agent, tmp_path / "two", repo_id=REPO), REPO)
    files = hub.repo(REPO).at("main").files
    assert "notes/by-hand.txt" in files and "hyperparameters.yml" not in files
    sent = [json.loads(line)["value"].get("path") for line in hub.requests("POST .*/commit/")[0].body.splitlines()[1:]]
    assert "model.safetensors" not in sent and {"hyperparameters.yml", "manifest.json"} <= set(sent)
    assert act(load_from_hub(REPO)) == act(agent)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("POST .*/preupload/", 500),
        ("POST .*/batch", 500),
        ("PUT /store/", 500),
        ("POST .*/commit/", 500),
        ("PUT /store/", 403),
    ],
)
def test_an_upload_that_fails_leaves_the_repo_as_it_was(hub, published, other, no_waiting, request_, status):
    before = hub.repo(REPO).at("main")
    hub.inject(request_, status=status)
    with pytest.raises(HubError, match=rf"{REPO}[\s\S]*{status}|{status}[\s\S]*{REPO}"):
        push_to_hub(other, REPO)
    assert hub.repo(REPO).at("main") is before
    hub.faults.clear()
    push_to_hub(other, REPO)
    assert act(load_from_hub(REPO)) == act(other)


def test_who_pushes_second_at_the_same_time_is_refused(hub, published, other):
    def overtake(body: bytes) -> bytes:
        hub.put(REPO, {"config.json": b"{}"})
        return body

    hub.inject("GET .*/manifest.json", edit=overtake, times=1)
    with pytest.raises(HubError, match="changed by somebody else at the same time"):
        push_to_hub(other, REPO)
    assert hub.repo(REPO).at("main").files["config.json"].content == b"{}", "one or the other, never a mixture"


def test_an_agent_of_stable_baselines3_acts_the_same_without_its_pickles(hub, api: HfApi, tmp_path, monkeypatch):
    original = TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    original.save(tmp_path / "td3-pendulum.zip")
    api.create_repo("ada/td3-pendulum")
    api.upload_file(repo_id="ada/td3-pendulum", path_or_fileobj=tmp_path / "td3-pendulum.zip", path_in_repo="td3-pendulum.zip")
    for module in (pickle, cloudpickle):
        monkeypatch.setattr(module, "loads", lambda *_: pytest.fail("unpickled"))
    hub.log.clear()
    model = load_from_hub("ada/td3-pendulum", device="cpu")
    assert type(model) is TD3 and hub.downloaded() == ["td3-pendulum.zip"]
    expected = original.predict(OBSERVATIONS, deterministic=True)[0]
    np.testing.assert_array_equal(model.predict(OBSERVATIONS, deterministic=True)[0], expected)
    monkeypatch.undo()
    trusted = load_from_hub("ada/td3-pendulum", device="cpu", trust_remote_code=True)
    np.testing.assert_array_equal(trusted.predict(OBSERVATIONS, deterministic=True)[0], expected)
