"""From a repository of the Hub, a folder or an archive to a ready agent; nothing in them is ever run."""

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.saving import AgentFile, parse_data
from sb3_genoffline.data.reading.paths import expanded
from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.files.archive import CheckpointError, read_archive
from sb3_genoffline.files.manifest import MANIFEST
from sb3_genoffline.files.nearby import near_files
from sb3_genoffline.files.pair import CONFIG, WEIGHTS
from sb3_genoffline.files.writing import standing
from sb3_genoffline.hub.errors import HubError, NoSuchFileOnHubError, hub_errors
from sb3_genoffline.hub.foreign import load_foreign
from sb3_genoffline.hub.naming import check_repo_id
from sb3_genoffline.registry import build_agent
from sb3_genoffline.version import __version__

Token = str | bool | None


def load_from_hub(
    repo_id: str | Path,
    env: EnvLike | None = None,
    device: th.device | str = "auto",
    revision: str | None = None,
    token: Token = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    filename: str | None = None,
) -> BaseAlgorithm:
    """
    Load a ready agent of the right class, which acts bit for bit as the published one. Only what acting needs is loaded:
    ``manifest.json``, ``config.json`` and ``model.safetensors``, all of one commit, compared with the manifest's sha256.

    If you train it on, target networks start as copies and optimizers afresh. To go on exactly where training stopped, load
    the archive, where it holds that part: ``DAC.load(download_from_hub(repo_id, "dac-hopper-medium.zip"))``.

    A repository without a manifest is taken for one of stable-baselines3 or sb3-contrib: its archive is loaded to act, without
    unpickling anything; see :func:`~sb3_genoffline.hub.foreign.load_foreign`.

    :param repo_id: ``"organization/name"`` on the Hub, or a local folder or archive, which goes first
    :param env: environment to act in or ``learn`` in; its spaces must be the agent's
    :param device: of the networks
    :param revision: branch, tag or commit (None: the main branch)
    :param token: access token (None: that of ``hf auth login`` or ``HF_TOKEN``)
    :param cache_dir: the Hub's cache (None: its usual place)
    :param local_files_only: ask nobody, take what is in the cache
    :param trust_remote_code: load a foreign archive as stable-baselines3 does, which runs whatever code is in it
    :param filename: archive to load instead (None, in a foreign repository: ``{name}.zip``)
    :return: an :class:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm`, or stable-baselines3's
    :raises FileNotFoundError: if a local folder lacks a file
    :raises HubError: if the Hub does not have it, does not give it, or can't be reached
    :raises CheckpointError: if what came is damaged, exchanged, newer than this version, or not to be trusted
    :raises ValueError: if ``repo_id`` is not the name of a repository, or the environment's spaces are not the agent's
    """
    local = standing(expanded(repo_id))
    if local.exists():
        return _load_local(local, env, device, trust_remote_code, filename)
    repo_id = _not_here(os.fspath(repo_id))

    def download(name: str, commit: str | None = revision, again: bool = False) -> Path:
        return fetch(repo_id, name, commit, token, cache_dir, local_files_only, again)

    if filename is not None:
        archive = download(filename)
    else:
        try:
            folder = download(MANIFEST).parent
        except NoSuchFileOnHubError:
            archive = _archive_of(repo_id, download)
        else:
            for name in (CONFIG, WEIGHTS):
                download(name, folder.name)
            try:
                file = AgentFile.from_folder(folder)
            except CheckpointError:  # damaged on the way, or in the cache
                if local_files_only:
                    raise
                with suppress(HubError, ValueError):  # what is wrong with the files is then said below
                    for name in (MANIFEST, CONFIG, WEIGHTS):
                        download(name, folder.name, again=True)
                file = AgentFile.from_folder(folder)
            return build_agent(file, env, device)
    agent = _load_archive(archive, env, device, trust_remote_code)
    _warn_of_normalisation(repo_id, revision, token, local_files_only)
    return agent


def download_from_hub(
    repo_id: str | Path,
    filename: str,
    revision: str | None = None,
    token: Token = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """
    Download one file of a model repository into the Hub's cache.

    :param repo_id: ``"organization/name"``, or a local folder, whose file is then returned as it is
    :param filename: path in the repository
    :param revision: branch, tag or commit (None: the main branch)
    :param token: access token (None: that of ``hf auth login`` or ``HF_TOKEN``)
    :param cache_dir: the Hub's cache (None: its usual place)
    :param local_files_only: ask nobody, take what is in the cache
    :return: where it is
    :raises FileNotFoundError: if the local folder has no such file
    :raises HubError: if the Hub does not have it (naming what it has), does not give it, or can't be reached
    :raises ValueError: if a name is none
    """
    local = standing(expanded(repo_id))
    if local.is_dir():
        _check_filename(filename)
        return _existing(local / filename)
    return fetch(_not_here(os.fspath(repo_id)), filename, revision, token, cache_dir, local_files_only)


def _not_here(name: str) -> str:
    """
    A name that is no folder or archive here, to look up on the Hub; with a warning where a local one may have been meant.

    :raises NotFoundError: if no repository can have it: the Hub is not asked for a path
    """
    near = near_files(expanded(name))
    try:
        check_repo_id(name)
    except UserError as error:
        raise NotFoundError(
            f"There is no folder or archive {name!r} here{near} It can't be on the Hub either: {error}"
        ) from None
    if name.endswith(".zip"):
        raise NotFoundError(f"There is no archive {name!r} here{near} (To load a file of the Hub, name it with filename=.)")
    if Path(name).parent.is_dir():
        warnings.warn(f"There is no folder {name!r} here{near} Asking the Hub for a repository of this name.", stacklevel=3)
    return name


def fetch(
    repo_id: str,
    filename: str,
    revision: str | None,
    token: Token,
    cache_dir: str | Path | None,
    local_files_only: bool,
    again: bool = False,
) -> Path:
    """:func:`download_from_hub`, but never from a folder here; ``again`` replaces what is in the cache."""
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache

    check_repo_id(repo_id)
    _check_filename(filename)
    with hub_errors(repo_id, revision, filename, token):
        try:
            return Path(
                hf_hub_download(
                    repo_id,
                    filename,
                    revision=revision,
                    token=token,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only,
                    force_download=again,
                    library_name="sb3-genoffline",
                    library_version=__version__,
                )
            )
        except FileNotFoundError:
            if try_to_load_from_cache(repo_id, filename, cache_dir=cache_dir, revision=revision) is _CACHED_NO_EXIST:
                raise NoSuchFileOnHubError(f"{repo_id} had no file {filename!r} when the Hub was last asked.") from None
            raise


def _archive_of(repo_id: str, download: Callable[[str], Path]) -> Path:
    try:
        return download(f"{repo_id.partition('/')[2]}.zip")
    except NoSuchFileOnHubError as error:
        raise NoSuchFileOnHubError(f"{error} Name the agent's archive with filename=.") from None


def _check_filename(filename: str) -> None:
    if not filename or filename.startswith("/") or ".." in filename.replace("\\", "/").split("/"):
        raise UserError(f"{filename!r} is not a file of a repository.")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.")
    return path


def _load_local(
    path: Path, env: EnvLike | None, device: th.device | str, trust_remote_code: bool, filename: str | None
) -> BaseAlgorithm:
    if path.is_dir() and filename is None:
        if (path / CONFIG).is_file() or not (path / f"{path.name}.zip").is_file():
            return build_agent(AgentFile.from_folder(path), env, device)
        filename = f"{path.name}.zip"
    path = _existing(path / filename if filename is not None else path)
    return _load_archive(path, env, device, trust_remote_code)


def _load_archive(path: Path, env: EnvLike | None, device: th.device | str, trust_remote_code: bool) -> BaseAlgorithm:
    members = read_archive(path)
    data = parse_data(members, f"{path}")
    if "format_version" in data:
        return build_agent(AgentFile.from_members(members, f"{path}", data), env, device)
    return load_foreign(path, env, device, trust_remote_code, members)


def _warn_of_normalisation(repo_id: str, revision: str | None, token: Token, local_files_only: bool) -> None:
    """Foreign agents may expect observations that were normalised by statistics which only a pickle holds."""
    from huggingface_hub import HfApi

    if local_files_only:
        return
    try:
        with hub_errors(repo_id, revision):
            names = [
                name
                for name in ("vec_normalize.pkl", "vecnormalize.pkl")
                if HfApi(token=token).file_exists(repo_id, name, revision=revision)
            ]
    except HubError:
        return
    for name in names:
        warnings.warn(
            f"{repo_id} has {name}: the agent expects observations normalised by statistics in that pickle, which was not "
            "loaded. It will act badly on raw observations.",
            stacklevel=3,
        )
