"""From an agent to its folder, and from the folder to a repository of the Hub."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm, OfflineAlgorithm
from sb3_genoffline.errors import ExistsError, NotFoundError, UserError
from sb3_genoffline.files.archive import CheckpointError
from sb3_genoffline.files.manifest import MANIFEST, folder_files, make_manifest, open_folder, read_manifest, write_manifest
from sb3_genoffline.files.pair import CONFIG
from sb3_genoffline.files.writing import put_back, replace_file, replaced_folder, scratch_folder, write_errors
from sb3_genoffline.hub.card import addressed_to, check_results, make_card, make_eval_results
from sb3_genoffline.hub.errors import NoSuchFileOnHubError, hub_errors
from sb3_genoffline.hub.fingerprint import actions_of, make_fingerprint
from sb3_genoffline.hub.loading import Token, fetch
from sb3_genoffline.hub.naming import check_repo_id
from sb3_genoffline.registry import load_agent

_LFS = ("mp4", "png", "zip", "safetensors")
_ATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in _LFS).encode()
_CARD = "README.md"


def write_agent_folder(
    model: AnyAlgorithm,
    folder: str | Path,
    *,
    repo_id: str | None = None,
    results: Mapping[str, Any] | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    command: str | None = None,
    curve: str | Path | None = None,
    film: str | Path | None = None,
    training: bool = True,
    licence: str = "mit",
    overwrite: bool = False,
) -> Path:
    """
    Write all that a repository of an agent holds. It is written beside and renamed when it is whole: whatever happens, there
    is the old folder or the new one. (Killed in the instant between two renames, the old one has a hidden name, under which it
    is still found, until the next call puts it back.)

    The agent is loaded from what was written, and must act as it did. Nothing is said on the card that is not given here.

    :param model: the agent
    :param folder: to make
    :param repo_id: ``"organization/name"`` that the card shows how to load (None: the folder); the archive gets its name
    :param results: what :func:`zoo.runs.scoring.evaluate` returns; may have ``"best"``, the same of the best checkpoint, and
        ``"seeds"``, a dict with ``unit``, ``n``, ``mean``, ``std`` and ``runs`` of the last checkpoints of other seeds, and
        ``"baseline"``, what an agent is called whose method's idea was switched off
    :param hyperparameters: as the training's YAML file had them
    :param command: the training's
    :param curve: a PNG of the training
    :param film: an mp4 of the agent
    :param training: with what going on with training needs: optimizers, generators, sampler
    :param licence: of the agent, in the Hub's short form
    :param overwrite: replace the folder if there is one of an agent
    :return: the folder
    :raises NotWrittenError: if the system refuses to write it
    :raises FileExistsError: if there is such a folder; even with ``overwrite``, if it is something else than an agent's
    :raises ValueError: if a name is not allowed, or something can't be stored as plain data
    """
    if not isinstance(model, OfflineAlgorithm):
        raise UserError(
            f"{type(model).__name__} is not an algorithm of sb3_genoffline: only agents of those can be published."
        )
    folder = Path(folder)
    if results is not None:
        check_results(results)
    if repo_id is not None:
        check_repo_id(repo_id)
    name = folder.name if repo_id is None else repo_id.partition("/")[2]
    check_repo_id(f"organization/{name}")
    for source in (curve, film):
        if source is not None and not Path(source).is_file():
            raise NotFoundError(f"There is no file {source}.")
    with write_errors(folder):
        put_back(folder)
    if folder.exists() and not overwrite:
        raise ExistsError(f"There is a {folder} already: pass overwrite=True to replace it, or another name.")
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise ExistsError(f"{folder} is not an agent's folder (it has no {MANIFEST}) and is not replaced: take another name.")
    with replaced_folder(folder) as new:
        model.save_pretrained(new)
        model.save(new / f"{name}.zip", exclude=None if training else ["training"])
        _write_json(new / "fingerprint.json", _checked_fingerprint(model, new))
        _write_json(new / "results.json", results)
        if hyperparameters is not None:
            import yaml

            try:
                text = yaml.safe_dump(dict(hyperparameters), sort_keys=False, allow_unicode=True)
            except yaml.YAMLError as error:
                raise UserError(f"hyperparameters must be plain data: {error}.") from error
            replace_file(new / "hyperparameters.yml", text.encode())
        for source, file in ((curve, "training_curve.png"), (film, "replay.mp4")):
            if source is not None:
                shutil.copyfile(source, new / file)
        config = json.loads((new / CONFIG).read_text())
        entries = make_eval_results(config, results)
        if entries is not None:
            replace_file(new / ".eval_results" / f"{name}.yaml", entries.encode())
        sizes = {file: (new / file).stat().st_size for file in folder_files(new)}
        address = folder.as_posix() if repo_id is None and not folder.is_absolute() else repo_id or name
        card = make_card(model, config, address, name, results, command, sizes, training, licence)
        replace_file(new / _CARD, card.encode())
        write_manifest(new)
    return folder


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    token: Token = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """
    Send an agent's folder to the Hub in one commit; the repository is made if there is none. Files that the last published
    manifest lists and the folder no longer has are deleted; others that are there are left alone. If nothing has changed,
    nothing is sent. The card shows how to load ``repo_id``, whatever it showed before.

    :param folder: as :func:`write_agent_folder` wrote it
    :param repo_id: ``"organization/name"``
    :param token: access token with the right to write (None: that of ``hf auth login`` or ``HF_TOKEN``)
    :param private: whether a new repository is private (None: as the organisation has it)
    :param revision: branch (None: the main one)
    :param commit_message: of the commit
    :return: address of the commit; of the last one if nothing has changed
    :raises FileNotFoundError: if it is not an agent's folder
    :raises CheckpointError: if a file is not the one that the manifest lists
    :raises HubError: if the Hub refuses it or can't be reached
    :raises ValueError: if ``repo_id`` breaks a rule of the Hub
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    folder = Path(folder)
    check_repo_id(repo_id)
    contents = _contents(folder, repo_id)
    api = HfApi(token=token, library_name="sb3-genoffline")
    with hub_errors(repo_id, revision, token=token):
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        commit, there = _state(api, repo_id, revision)
    stale = _published_before(repo_id, commit, token) & there.keys() - contents.keys() if MANIFEST in there else set()
    operations: list[Any] = [
        CommitOperationAdd(name, content)
        for name, content in contents.items()
        if there.get(name) != _hub_hash(content, there.get(name))
    ]
    operations += [CommitOperationDelete(name) for name in sorted(stale)]
    if not operations:
        return f"{url}/commit/{commit}"
    message = commit_message or f"{folder.name}, written by sb3-genoffline"
    with hub_errors(repo_id, revision, token=token):
        made = api.create_commit(repo_id, operations, commit_message=message, revision=revision, parent_commit=commit)
    return str(made.commit_url)


def push_to_hub(
    model: AnyAlgorithm,
    repo_id: str,
    *,
    token: Token = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    **contents: Any,
) -> str:
    """
    Publish an agent: :func:`write_agent_folder` into a temporary folder, then :func:`push_folder`.

    :param model: the agent
    :param repo_id: ``"organization/name"``
    :param token: see :func:`push_folder`
    :param private: see :func:`push_folder`
    :param revision: see :func:`push_folder`
    :param commit_message: see :func:`push_folder`
    :param contents: the arguments of :func:`write_agent_folder`: ``results``, ``command``, ``film``, ...
    :return: address of the commit
    """
    check_repo_id(repo_id)
    with scratch_folder("push") as scratch:
        folder = write_agent_folder(model, scratch / repo_id.partition("/")[2], repo_id=repo_id, **contents)
        options: dict[str, Any] = {"token": token, "private": private, "revision": revision}
        return push_folder(folder, repo_id, commit_message=commit_message, **options)


def _checked_fingerprint(model: AnyAlgorithm, folder: Path) -> dict[str, Any]:
    """The fingerprint of the agent that the folder holds, which must be the given one's."""
    loaded = load_agent(folder, device="cpu")
    fingerprint = make_fingerprint(loaded)
    observations = np.array(fingerprint["observations"], dtype=loaded.observation_space.dtype)
    if model.device.type == "cpu":
        actions = actions_of(model, observations, fingerprint["acting_seed"])
        if not np.array_equal(actions, np.array(fingerprint["actions"], dtype=actions.dtype)):
            raise UserError(
                "The agent acts otherwise once it is loaded: something it acts by is not among its hyper-parameters and "
                "weights (an attribute of its policy that was changed by hand?), so nothing was written."
            )
    return fingerprint


def _write_json(path: Path, content: Mapping[str, Any] | None) -> None:
    if content is None:
        return
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path.name} must be plain data without NaN or infinities: {error}.") from error
    replace_file(path, (text + "\n").encode())


def _contents(folder: Path, repo_id: str) -> dict[str, bytes]:
    """All files of a folder, compared with its manifest, with the repository's name on the card, and what is kept in LFS."""
    if folder.is_dir() and not (folder / MANIFEST).is_file():
        raise NotFoundError(f"{folder} has no {MANIFEST}: write_agent_folder makes a folder with all that is published.")
    listed, there = read_manifest(folder), set(folder_files(folder))
    if listed.keys() != there:
        odd = ", ".join(sorted(listed.keys() ^ there))
        raise CheckpointError(f"{folder} is not as its {MANIFEST} says: {odd} is missing or new. Write the folder again.")
    if _CARD not in there:
        raise CheckpointError(f"{folder} has no card ({_CARD}), which write_agent_folder makes: write the folder with it.")
    files = open_folder(folder)
    contents = {name: files.read(name) for name in sorted(there)}
    contents[_CARD] = addressed_to(contents[_CARD].decode(), repo_id).encode()
    contents[".gitattributes"] = _ATTRIBUTES  # in a folder of a checkout, git-lfs would take the files for its own
    return contents | {MANIFEST: make_manifest(contents)}


def _state(api: Any, repo_id: str, revision: str | None) -> tuple[str | None, dict[str, str]]:
    """The branch's last commit, and each file's hash there: sha256 of large files, git's sha1 of others."""
    from huggingface_hub import RepoFile

    commit = api.model_info(repo_id, revision=revision).sha
    if commit is None:
        return None, {}
    tree = api.list_repo_tree(repo_id, revision=commit, recursive=True)
    return commit, {
        item.path: item.blob_id if item.lfs is None else item.lfs.sha256 for item in tree if isinstance(item, RepoFile)
    }


def _hub_hash(content: bytes, like: str | None) -> str | None:
    """The hash of the kind of ``like``."""
    if like is None:
        return ""
    if len(like) == 64:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _published_before(repo_id: str, commit: str | None, token: Token) -> set[str]:
    try:
        with scratch_folder("manifest") as cache:
            return set(read_manifest(fetch(repo_id, MANIFEST, commit, token, cache, False).parent))
    except (NoSuchFileOnHubError, CheckpointError):
        return set()
