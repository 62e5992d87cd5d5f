"""The loopback Hub against the real, unpatched client of huggingface_hub."""

import hashlib
from pathlib import Path

import httpx2
import pytest
from hub_server import HubServer
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own
REPO = "org/agent"
WEIGHTS = bytes(range(256)) * 40
CARD = b"---\ntags:\n- offline\nlibrary_name: stable-baselines3\n---\n# An agent\n"


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


def commit(api: HfApi, *operations: CommitOperationAdd | CommitOperationDelete, repo: str = REPO, **options: object) -> str:
    return api.create_commit(repo, operations, commit_message="a message", **options).oid


@pytest.fixture
def repo(api: HfApi) -> str:
    """One commit with a card, a regular file and a large file."""
    api.create_repo(REPO)
    commit(api, add("README.md", CARD), add("folder/config.json", b"{}"), add("model.safetensors", WEIGHTS))
    return REPO


def test_a_repo_is_created_once(hub, api):
    assert api.create_repo(REPO).repo_id == REPO
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo(REPO)
    assert error.value.response.status_code == 409
    assert api.create_repo(REPO, exist_ok=True).url == f"{hub.endpoint}/{REPO}"
    assert api.create_repo("agent").repo_id == "ada/agent"
    assert api.create_repo(REPO, repo_type="dataset").repo_type == "dataset"


def test_regular_and_large_files_come_back_as_they_were_sent(hub, api, repo):
    for path, content in (("README.md", CARD), ("folder/config.json", b"{}"), ("model.safetensors", WEIGHTS)):
        assert Path(api.hf_hub_download(repo, path)).read_bytes() == content
    assert hub.storage.large_files == {hashlib.sha256(WEIGHTS).hexdigest(): WEIGHTS}
    assert [request.status for request in hub.requests("PUT /store|POST .*/batch|POST .*/verify")] == [200, 200, 200]
    assert hub.downloaded() == ["README.md", "folder/config.json", "model.safetensors"]
    elsewhere = hub.requests("/cdn/|/store/")
    assert elsewhere and not [request for request in elsewhere if request.token]
    assert send(hub, "GET", elsewhere[-1].path, headers={"Authorization": "Bearer x"}).status_code == 400


def test_a_folder_goes_up_and_a_snapshot_of_it_comes_down(hub, api, tmp_path):
    files = {"README.md": CARD, "a/b/c.txt": b"text", "a/film.mp4": WEIGHTS, "empty": b"", "umlaut ä %.txt": b"name"}
    for path, content in files.items():
        (tmp_path / "up" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / path).write_bytes(content)
    api.create_repo(REPO)
    api.upload_folder(repo_id=REPO, folder_path=tmp_path / "up")
    down = Path(api.snapshot_download(REPO, local_dir=tmp_path / "down", allow_patterns=["[!.]*"]))
    there = {str(path.relative_to(down)): path.read_bytes() for path in down.rglob("*") if path.is_file()}
    assert {path: content for path, content in there.items() if not path.startswith(".cache")} == files
    assert len(hub.repo(REPO).at("main").history()) == 2
    api.upload_folder(repo_id=REPO, folder_path=tmp_path / "up", delete_patterns="a/*")
    assert len(hub.repo(REPO).at("main").history()) == 2, "nothing had changed"


def test_unchanged_files_are_not_sent_again(hub, api, repo):
    before = hub.repo(repo).at("main")
    commit(api, add("README.md", CARD), add("model.safetensors", WEIGHTS))
    assert hub.repo(repo).at("main") is before
    commit(api, add("README.md", CARD), add("model.safetensors", WEIGHTS[1:]))
    sent = [line for line in hub.requests("POST .*/commit/")[-1].body.splitlines() if b'"path"' in line]
    assert len(sent) == 1 and b"model.safetensors" in sent[0]


def test_content_that_is_stored_already_is_not_uploaded_twice(hub, api, repo):
    commit(api, add("copy.safetensors", WEIGHTS))
    assert len(hub.requests("PUT /store/")) == 1
    assert api.get_paths_info(repo, ["copy.safetensors"])[0].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()


def test_files_and_folders_are_deleted(hub, api, repo):
    commit(api, CommitOperationDelete("folder/"), CommitOperationDelete("README.md"))
    assert api.list_repo_files(repo) == [".gitattributes", "model.safetensors"]
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        commit(api, add("new.txt", b"new"), CommitOperationDelete("README.md"))
    assert not api.file_exists(repo, "new.txt"), "a commit is all or nothing"


def test_a_commit_on_an_old_state_is_refused(hub, api, repo):
    old = api.model_info(repo).sha
    new = commit(api, add("x.txt", b"1"), parent_commit=old)
    with pytest.raises(HfHubHTTPError) as error:
        commit(api, add("x.txt", b"2"), parent_commit=old)
    assert error.value.response.status_code == 412 and api.model_info(repo).sha == new


def send(hub: HubServer, method: str, path: str, **content: object) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {next(iter(hub.storage.accounts))}"} if path.startswith("/api") else {}
    return httpx2.request(method, hub.endpoint + path, **{"headers": headers} | content)


def test_large_files_that_were_not_uploaded_or_changed_on_the_way_are_refused(hub, api, repo):
    absent, before = "0" * 64, hub.repo(repo).at("main")
    assert send(hub, "PUT", f"/store/{absent}", content=b"other").status_code == 400
    header = '{"key": "header", "value": {"summary": "s"}}\n'
    stored = hashlib.sha256(WEIGHTS).hexdigest()
    for oid, size in ((absent, 5), (stored, 1)):
        line = f'{{"key": "lfsFile", "value": {{"path": "w.bin", "algo": "sha256", "oid": "{oid}", "size": {size}}}}}\n'
        answer = send(hub, "POST", f"/api/models/{repo}/commit/main", content=header + line)
        assert answer.status_code == 400 and "LFS pointer" in answer.json()["error"]
    assert hub.repo(repo).at("main") is before


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", ".git/config", "a/../../x", ""])
def test_paths_out_of_the_repo_are_refused(hub, api, repo, path):
    lines = (
        f'{{"key": "header", "value": {{"summary": "s"}}}}\n{{"key": "file", "value": {{"path": "{path}", "content": ""}}}}'
    )
    assert send(hub, "POST", f"/api/models/{repo}/commit/main", content=lines).status_code == 400


def test_a_card_with_bad_yaml_is_refused_before_anything_is_sent(hub, api, repo):
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        commit(api, add("README.md", b"---\na: [\n---\n"), add("other.safetensors", WEIGHTS[2:]))
    assert len(hub.requests("PUT")) == 1
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        commit(api, add("README.md", b"# No metadata\n"))


def test_branches_and_tags_pin_a_state(hub, api, repo):
    first = api.model_info(repo).sha
    api.create_tag(repo, tag="v1/a")
    api.create_branch(repo, branch="try")
    second = commit(api, add("folder/config.json", b'{"a": 1}'))
    third = commit(api, add("folder/config.json", b'{"a": 2}'), revision="try")
    for revision, content in (
        (None, b'{"a": 1}'),
        ("v1/a", b"{}"),
        (first, b"{}"),
        ("try", b'{"a": 2}'),
        (third, b'{"a": 2}'),
    ):
        assert Path(api.hf_hub_download(repo, "folder/config.json", revision=revision)).read_bytes() == content
    refs = api.list_repo_refs(repo)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": second, "try": third}
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1/a": first}
    assert [entry.commit_id for entry in api.list_repo_commits(repo)][:2] == [second, first]
    with pytest.raises(HfHubHTTPError) as error:
        api.create_tag(repo, tag="v1/a")
    assert error.value.response.status_code == 409
    api.delete_tag(repo, tag="v1/a")
    api.delete_branch(repo, branch="try")
    assert not api.revision_exists(repo, "v1/a") and not api.revision_exists(repo, "try")
    with pytest.raises(RevisionNotFoundError):
        commit(api, add("x.txt", b"1"), revision="try")


def test_listing_and_info(hub, api, repo):
    assert sorted(entry.path for entry in api.list_repo_tree(repo)) == [
        ".gitattributes",
        "README.md",
        "folder",
        "model.safetensors",
    ]
    assert [entry.path for entry in api.list_repo_tree(repo, "folder", recursive=True)] == ["folder/config.json"]
    weights = next(entry for entry in api.list_repo_tree(repo) if entry.path == "model.safetensors")
    assert (weights.size, weights.lfs.sha256) == (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "nowhere"))
    info = api.model_info(repo, files_metadata=True)
    assert info.card_data.library_name == "stable-baselines3" and info.tags == ["offline"]
    assert {file.rfilename: file.size for file in info.siblings}["model.safetensors"] == len(WEIGHTS)
    api.create_repo("ada/other")
    assert [found.id for found in api.list_models(author="org")] == [repo]
    assert [found.id for found in api.list_models(search="other")] == ["ada/other"]
    assert api.whoami()["orgs"][0]["name"] == "org"


def test_a_deleted_repo_is_gone(hub, api, repo):
    api.delete_repo(repo)
    assert not api.repo_exists(repo)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(repo)


def test_a_private_repo_is_there_for_its_own_people_only(hub, api, tmp_path):
    api.create_repo(REPO, private=True)
    commit(api, add("a.txt", b"a"))
    stranger = hub.storage.add_account("eve")
    assert api.hf_hub_download(REPO, "a.txt")
    for token, status in ((False, 401), (stranger, 404)):
        with pytest.raises(RepositoryNotFoundError) as error:
            api.hf_hub_download(REPO, "a.txt", token=token, cache_dir=tmp_path)
        assert error.value.response.status_code == status
        assert not list(api.list_models(author="org", token=token))


def test_a_gated_repo_shows_its_page_and_keeps_its_files(hub, api, repo):
    api.update_repo_settings(repo, gated="manual")
    stranger = hub.storage.add_account("eve")
    for token, status in ((False, 401), (stranger, 403)):
        assert api.model_info(repo, token=token).gated == "manual"
        with pytest.raises(GatedRepoError) as error:
            api.hf_hub_download(repo, "README.md", token=token)
        assert error.value.response.status_code == status
    hub.repo(repo).granted.add("eve")
    assert api.hf_hub_download(repo, "README.md", token=stranger)


def test_writing_needs_a_token_with_the_right(hub, api, repo):
    for token, status in ((False, 401), (hub.storage.add_account("eve"), 403), ("hf_nobody", 401)):
        for write in (
            lambda token=token: api.create_repo("org/new", token=token),
            lambda token=token: commit(api, add("x.txt", b"1"), token=token),
            lambda token=token: api.delete_repo(repo, token=token),
        ):
            with pytest.raises(HfHubHTTPError) as error:
                write()
            assert error.value.response.status_code == status
    reader = hub.storage.add_account("ada", ["org"], write=False)
    with pytest.raises(HfHubHTTPError):
        commit(api, add("x.txt", b"1"), token=reader)
    assert not api.file_exists(repo, "x.txt") and not api.repo_exists("org/new")


def test_what_is_missing_is_told_apart(hub, api, repo):
    with pytest.raises(RepositoryNotFoundError):
        api.hf_hub_download("org/none", "a.txt")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(repo, "README.md", revision="none")
    with pytest.raises(EntryNotFoundError) as error:
        api.hf_hub_download(repo, "none.txt")
    assert error.value.response.headers["X-Repo-Commit"] == api.model_info(repo).sha
    with pytest.raises(RepositoryNotFoundError):
        commit(api, add("x.txt", b"1"), repo="org/none")


def test_the_cache_answers_when_the_hub_does_not(hub, api, repo):
    path = api.hf_hub_download(repo, "model.safetensors")
    downloads = len(hub.downloaded())
    assert api.hf_hub_download(repo, "model.safetensors") == path and len(hub.downloaded()) == downloads
    hub.stop()
    assert api.hf_hub_download(repo, "model.safetensors") == path
    assert api.hf_hub_download(repo, "model.safetensors", local_files_only=True) == path
    with pytest.raises(LocalEntryNotFoundError):
        api.hf_hub_download(repo, "README.md", local_files_only=True)
    hub.start()
    assert Path(api.hf_hub_download(repo, "README.md")).read_bytes() == CARD


def test_a_server_error_that_passes_is_not_noticed(hub, api, repo, no_waiting):
    hub.inject("HEAD .*/README.md", status=503, times=2)
    assert Path(api.hf_hub_download(repo, "README.md")).read_bytes() == CARD
    hub.inject("PUT /store/", status=500, times=1)
    commit(api, add("w.bin", WEIGHTS[3:]))
    assert no_waiting and api.file_exists(repo, "w.bin")


def test_a_server_error_that_stays_is_told(hub, api, repo, no_waiting):
    hub.inject("HEAD", status=503)
    with pytest.raises(LocalEntryNotFoundError) as error:
        api.hf_hub_download(repo, "README.md")
    assert error.value.__cause__.response.status_code == 503
    before = hub.repo(repo).at("main")
    hub.inject("POST .*/commit/", status=502)
    with pytest.raises(HfHubHTTPError):
        commit(api, add("w.bin", WEIGHTS[3:]))
    assert hub.repo(repo).at("main") is before


def test_a_download_that_is_cut_is_tried_again(hub, api, repo, no_waiting):
    hub.inject("GET /cdn/.*model", keep=1000, times=2)
    assert Path(api.hf_hub_download(repo, "model.safetensors")).read_bytes() == WEIGHTS
    assert len(hub.requests("GET /cdn/")) == 3
    rest = send(hub, "GET", hub.requests("GET /cdn/")[0].path, headers={"Range": "bytes=10000-"})
    assert (rest.status_code, rest.content) == (206, WEIGHTS[10000:])
    hub.inject("GET .*/README.md", keep=0)
    with pytest.raises(httpx2.RemoteProtocolError):
        api.hf_hub_download(repo, "README.md")


def test_wrong_bytes_of_the_right_length_pass_the_client(hub, api, repo):
    hub.inject("model.safetensors", edit=lambda body: bytes(len(body)))
    assert Path(api.hf_hub_download(repo, "model.safetensors")).read_bytes() == bytes(len(WEIGHTS))


def test_a_slow_answer_is_waited_for_as_long_as_asked(hub, api, repo):
    hub.inject("HEAD .*/README.md", delay=0.2, times=1)
    with pytest.raises(httpx2.ReadTimeout):
        api.get_hf_file_metadata(url=f"{hub.endpoint}/{repo}/resolve/main/README.md", timeout=0.05)
    assert api.get_hf_file_metadata(url=f"{hub.endpoint}/{repo}/resolve/main/README.md", timeout=5).size == len(CARD)


def test_each_test_has_an_empty_hub_and_cache(hub, api):
    assert not list(api.list_models()) and not hub.storage.large_files
    with pytest.raises(LocalEntryNotFoundError):
        api.hf_hub_download(REPO, "README.md", local_files_only=True)
