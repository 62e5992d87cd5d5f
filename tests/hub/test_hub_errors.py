"""What can go wrong between an agent and its user, and what the error says."""

import hashlib
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from hub_server import HubServer
from huggingface_hub import HfApi, constants, file_download
from point_agents import NEEDED, REPO, act, train

from sb3_genoffline import TD3BC, download_from_hub, load_from_hub, push_to_hub
from sb3_genoffline.files.archive import CheckpointError
from sb3_genoffline.hub.errors import HubError

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own


def replace(hub: HubServer, files: dict[str, bytes | None], listed: bool = True) -> None:
    """Change published files; ``listed`` changes the manifest along, as somebody who means harm would."""
    manifest = json.loads(hub.repo(REPO).file("main", "manifest.json")[1].content)
    for name, content in files.items():
        manifest["files"].pop(name)
        if content is not None:
            manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    changed = files | ({"manifest.json": json.dumps(manifest).encode()} if listed else {})
    hub.put(REPO, changed)


def content(hub: HubServer, name: str) -> bytes:
    return hub.repo(REPO).file("main", name)[1].content


def with_config(hub: HubServer, **changes: Any) -> None:
    replace(hub, {"config.json": json.dumps(json.loads(content(hub, "config.json")) | changes).encode()})


def test_a_repo_that_is_not_there_is_named(hub):
    with pytest.raises(HubError, match=r"org/dac-none on the Hub.*nor is there such a folder here"):
        load_from_hub("org/dac-none")
    with pytest.raises(HubError, match="org/dac-none"):
        download_from_hub("org/dac-none", "config.json")


def test_a_private_repo_asks_for_a_token(hub, api: HfApi, agent, monkeypatch, tmp_path):
    token = next(iter(hub.storage.accounts))
    push_to_hub(agent, REPO, private=True)
    assert hub.repo(REPO).private
    for stranger in (False, hub.storage.add_account("eve")):
        with pytest.raises(HubError, match=rf"{REPO}.*(private|token)"):
            load_from_hub(REPO, token=stranger, cache_dir=tmp_path)
    with pytest.raises(HubError, match="token"):
        load_from_hub(REPO, token="hf_nobody", cache_dir=tmp_path)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="token"):
        load_from_hub(REPO, cache_dir=tmp_path)
    assert act(load_from_hub(REPO, token=token, cache_dir=tmp_path)) == act(agent)


def test_a_gated_repo_says_where_to_ask(hub, api: HfApi, published, tmp_path):
    api.update_repo_settings(REPO, gated="manual")
    with pytest.raises(HubError, match=rf"{REPO}.*(gated|access)"):
        load_from_hub(REPO, token=hub.storage.add_account("eve"), cache_dir=tmp_path)


def test_a_file_that_is_not_there_is_named_with_those_that_are(hub, published):
    with pytest.raises(HubError, match=r"replay\.mp4[\s\S]*model\.safetensors"):
        download_from_hub(REPO, "replay.mp4")


def test_an_archive_of_another_name_than_the_repo_has_to_be_named(hub):
    hub.put("org/course", {"sac-Pendulum-v1.zip": b"zip"})
    with pytest.raises(HubError, match=r"no file 'course\.zip'; it has .*sac-Pendulum-v1\.zip.* filename="):
        load_from_hub("org/course")


def test_a_revision_that_is_not_there_is_named(hub, published):
    with pytest.raises(HubError, match="v9"):
        load_from_hub(REPO, revision="v9")
    with pytest.raises(HubError, match="v9"):
        download_from_hub(REPO, "config.json", revision="v9")


def test_nothing_cached_and_no_hub(hub, published, no_waiting):
    with pytest.raises(HubError, match=f"{REPO} is not in the cache"):
        load_from_hub(REPO, local_files_only=True)
    hub.stop()
    with pytest.raises(HubError, match=f"could not be reached for {REPO}"):
        load_from_hub(REPO)


@pytest.mark.parametrize("name", NEEDED)
def test_a_server_that_fails_is_told_with_its_status(hub, published, agent, no_waiting, name):
    hub.inject(f"(HEAD|GET) .*{name}", status=503)
    with pytest.raises(HubError, match=rf"503.*{REPO}"):
        load_from_hub(REPO)
    hub.faults.clear()
    assert act(load_from_hub(REPO)) == act(agent)


def test_a_server_error_that_passes_is_not_noticed(hub, published, agent, no_waiting):
    hub.inject("HEAD .*model", status=500, times=1)
    assert act(load_from_hub(REPO)) == act(agent)


def test_a_server_that_does_not_answer_is_not_waited_for_long(hub, published, agent, no_waiting, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    monkeypatch.setattr(file_download, "_ETAG_RETRY_TIMEOUT", 0.1)
    hub.inject("(HEAD|GET) /", delay=0.4)
    with pytest.raises(HubError, match=rf"did not answer in time about {REPO}"):
        load_from_hub(REPO)
    hub.faults.clear()
    assert act(load_from_hub(REPO)) == act(agent)


@pytest.mark.parametrize("name", NEEDED)
def test_a_download_that_is_cut_is_told_and_leaves_nothing_half(hub, published, agent, no_waiting, name):
    hub.inject(f"GET .*{name}", keep=20)
    with pytest.raises(HubError, match=REPO):
        load_from_hub(REPO)
    hub.faults.clear()
    assert act(load_from_hub(REPO)) == act(agent)


@pytest.mark.parametrize("name", NEEDED)
def test_bytes_that_changed_on_the_way_are_fetched_again(hub, published, agent, name):
    def flip(body: bytes) -> bytes:
        late = len(body) * 9 // 10  # of the manifest: the hash of the last file, the weights
        return body[:late] + bytes([body[late] ^ 1]) + body[late + 1 :]

    hub.inject(f"GET .*{name}", edit=flip)
    with pytest.raises(CheckpointError, match="damaged"):
        load_from_hub(REPO)
    hub.faults.clear()
    assert act(load_from_hub(REPO)) == act(agent), "the cache does not keep what was damaged"


def test_a_damaged_cache_without_a_hub_is_told(hub, published):
    load_from_hub(REPO)
    cached = Path(download_from_hub(REPO, "model.safetensors")).resolve()
    cached.write_bytes(cached.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"model\.safetensors has the sha256"):
        load_from_hub(REPO, local_files_only=True)
    hub.stop()
    with pytest.raises((HubError, CheckpointError), match=rf"model\.safetensors|{REPO}"):
        load_from_hub(REPO)


def test_files_that_the_manifest_does_not_vouch_for_are_refused(hub, published):
    replace(hub, {"model.safetensors": content(hub, "model.safetensors")[:-4]}, listed=False)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has .* bytes and the manifest says"):
        load_from_hub(REPO)


@pytest.mark.parametrize("keep", [0, 4, 50, -4])
def test_truncated_weights_are_refused_even_if_the_manifest_vouches(hub, published, keep):
    replace(hub, {"model.safetensors": content(hub, "model.safetensors")[:keep]})
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_from_hub(REPO)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "has format 99, newer than"),
        ({"algo": "ppo"}, "of the algorithm 'ppo', and this installation knows .*dac"),
        ({"algo": "td3_bc"}, "config.json"),
        ({"policy_class": "os.system"}, "policy class"),
    ],
)
def test_a_config_of_something_else_is_refused(hub, published, changes, message):
    with_config(hub, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_from_hub(REPO)


def test_a_manifest_that_is_damaged_newer_or_incomplete_is_refused(hub, published):
    manifest = json.loads(content(hub, "manifest.json"))
    for changed, message in (
        (b"{", "manifest.json"),
        (json.dumps(manifest | {"format_version": 99}).encode(), "format 99, newer"),
        (json.dumps(manifest | {"files": {}}).encode(), "does not list"),
    ):
        hub.put(REPO, {"manifest.json": changed})
        with pytest.raises(CheckpointError, match=message):
            load_from_hub(REPO)


def test_the_wrong_class_is_told_the_right_one(hub, published):
    with pytest.raises(CheckpointError, match="'dac' agent, not one of TD3BC"):
        TD3BC.load(download_from_hub(REPO, "dac-point.zip"))
    download_from_hub(REPO, "model.safetensors")
    folder = Path(download_from_hub(REPO, "config.json")).parent
    with pytest.raises(CheckpointError, match="'dac' agent, not one of TD3BC"):
        TD3BC.from_pretrained(folder)


def test_an_env_that_does_not_fit_is_told(hub, published):
    with pytest.raises(ValueError, match=r"observation space.*\(3,\).*\(4,\)|observation"):
        load_from_hub(REPO, env=gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="action"):
        load_from_hub(REPO, env=gym.make("Pendulum-v1"))


@pytest.mark.parametrize(
    "repo_id", ["dac-point", "org/a/b", "org/a--b", "org/-a", "org/a.git", "org/" + "a" * 97, "org/ä", ""]
)
def test_a_name_that_the_hub_would_refuse_is_refused_before_anything_is_sent(hub, agent, repo_id):
    with pytest.raises(ValueError):
        push_to_hub(agent, repo_id)
    assert hub.log == []


@pytest.mark.parametrize(("token", "status"), [("eve", 403), ("hf_nobody", 401), (None, 401)])
def test_who_may_not_write_is_told(hub, agent, monkeypatch, token, status):
    monkeypatch.delenv("HF_TOKEN")
    if token == "eve":
        token = hub.storage.add_account("eve")
    with pytest.raises(HubError, match=rf"{REPO}[\s\S]*token"):
        push_to_hub(agent, REPO, token=token)
    assert not hub.storage.repos


def test_a_branch_that_is_not_there_is_named(hub, published):
    with pytest.raises(HubError, match="try"):
        push_to_hub(train(seed=1), REPO, revision="try")
