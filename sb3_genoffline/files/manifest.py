"""``manifest.json``: size and sha256 of every file of an agent's folder, so that damage and exchange are noticed."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sb3_genoffline.errors import NotFoundError
from sb3_genoffline.files.archive import CheckpointError
from sb3_genoffline.files.untrusted import entry, parse_json, short
from sb3_genoffline.files.writing import is_temporary, replace_file

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
_LARGEST_FILE = 4 * 2**30


def folder_files(folder: Path) -> Iterator[str]:
    """Names of all files below a folder, with ``/``, sorted; the manifest is left out, and what is not whole yet."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = (path.as_posix() for path in paths if not any(map(is_temporary, path.parts)))
    return iter(sorted(name for name in names if name != MANIFEST))


def make_manifest(contents: Mapping[str, bytes]) -> bytes:
    """The manifest of files by name; one of itself is left out."""
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in sorted(contents.items())
        if name != MANIFEST
    }
    return (json.dumps({"format_version": MANIFEST_VERSION, "files": files}, indent=2) + "\n").encode()


def write_manifest(folder: Path) -> None:
    """Write the manifest of what is in the folder now."""
    replace_file(folder / MANIFEST, make_manifest({name: (folder / name).read_bytes() for name in folder_files(folder)}))


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """
    :param folder: of an agent
    :return: ``sha256`` and ``size`` of each file
    :raises FileNotFoundError: if there is no manifest
    :raises CheckpointError: if it is damaged or newer than this version
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise NotFoundError(f"{folder} has no {MANIFEST}.")
    data = parse_json(_read(path), str(path))
    version = entry(data, "format_version", int, str(path))
    if version > MANIFEST_VERSION:
        raise CheckpointError(f"{path} has format {version}, newer than {MANIFEST_VERSION}: upgrade sb3-genoffline.")
    files: dict[str, dict[str, Any]] = entry(data, "files", dict[str, dict[str, Any]], str(path))
    for name, facts in files.items():
        entry(facts, "sha256", str, f"{path}, {short(name)}")
        entry(facts, "size", int, f"{path}, {short(name)}")
    return files


class ListedFolder:
    """
    A folder whose files are read once each, and compared with the manifest if there is one.

    :param folder: of an agent
    :param manifest: what it lists; None if there is no manifest
    """

    def __init__(self, folder: Path, manifest: dict[str, dict[str, Any]] | None) -> None:
        self.folder, self.manifest = folder, manifest

    def read(self, name: str) -> bytes:
        """
        :param name: of the file
        :raises FileNotFoundError: if there is no such file
        :raises CheckpointError: if it is not the one that the manifest lists
        """
        path = self.folder / name
        if not path.is_file():
            raise NotFoundError(f"{self.folder} has no {name}: it is incomplete, take another copy.")
        if self.manifest is None:
            return _read(path)
        listed = self.manifest.get(name)
        if listed is None:
            raise CheckpointError(
                f"{self.folder / MANIFEST} does not list {name}: the folder was changed after it was written."
            )
        size = path.stat().st_size
        if size != listed["size"]:
            raise CheckpointError(
                f"{path} has {size:,} bytes and the manifest says {short(listed['size'])}: damaged or changed, take another."
            )
        content = _read(path)
        found = hashlib.sha256(content).hexdigest()
        if found != listed["sha256"]:
            raise CheckpointError(
                f"{path} has the sha256 {found[:16]}… and the manifest says {short(listed['sha256'][:16])}: damaged or "
                "exchanged, take another copy."
            )
        return content


def open_folder(folder: Path) -> ListedFolder:
    """
    :param folder: of an agent
    :raises CheckpointError: if its manifest is damaged or newer than this version
    """
    return ListedFolder(folder, read_manifest(folder) if (folder / MANIFEST).is_file() else None)


def _read(path: Path) -> bytes:
    if path.stat().st_size > _LARGEST_FILE:
        raise CheckpointError(f"{path} has {path.stat().st_size:,} bytes, more than the 4 GiB that are read.")
    return path.read_bytes()
