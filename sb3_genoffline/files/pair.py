"""
The two files of an agent's folder, replaced as if they were one.

``config.json`` says the sha256 of the weights that belong to it. New weights are written under a hidden name that holds it;
then ``config.json`` is replaced, and from that moment the folder is the new agent's; then the weights get their name. A reader
takes the weights that ``config.json`` names, under either name: it sees the old agent or the new one, never a mixture.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sb3_genoffline.errors import NotFoundError
from sb3_genoffline.files.archive import CheckpointError
from sb3_genoffline.files.manifest import ListedFolder
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.files.writing import PENDING, one_writer, replace_file, write_errors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
WEIGHTS_KEY = "weights_sha256"
_TRIES = 5


def replace_pair(folder: Path, config: Callable[[str], bytes], weights: bytes) -> None:
    """
    :param folder: is made
    :param config: gives the content of ``config.json`` with the sha256 of the weights in it
    :param weights: content of ``model.safetensors``
    :raises NotWrittenError: if the system refuses it
    """
    digest = hashlib.sha256(weights).hexdigest()
    text = config(digest)
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with one_writer(folder):
            _settle(folder)
            try:
                replace_file(folder / _hidden(digest), weights)
                replace_file(folder / CONFIG, text)
            finally:
                _settle(folder)


def read_pair(listed: ListedFolder, parse: Callable[[bytes], dict[str, Any]]) -> tuple[dict[str, Any], bytes]:
    """
    :param listed: an agent's folder; not trusted
    :param parse: of ``config.json``
    :return: what ``config.json`` holds, and the content of the weights that belong to it
    :raises FileNotFoundError: if one of them is missing
    :raises CheckpointError: if they do not belong together
    """
    for _ in range(_TRIES):  # another process may be writing
        data = parse(listed.read(CONFIG))
        digest = data.get(WEIGHTS_KEY)
        if digest is None:  # of an earlier version
            return data, listed.read(WEIGHTS)
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise CheckpointError(f"{listed.folder / CONFIG} has {WEIGHTS_KEY}={short(digest)}, which is not a sha256.")
        if listed.manifest is not None:
            content = listed.read(WEIGHTS)  # compared with the manifest
            if listed.manifest[WEIGHTS]["sha256"] == digest:
                return data, content
            break
        for name in (WEIGHTS, _hidden(digest)):
            with suppress(NotFoundError):
                content = listed.read(name)
                if hashlib.sha256(content).hexdigest() == digest:
                    return data, content
    if not (listed.folder / WEIGHTS).is_file():
        raise NotFoundError(f"{listed.folder} has no {WEIGHTS}: it is incomplete, take another copy.")
    raise CheckpointError(
        f"{listed.folder / WEIGHTS} does not have the sha256 that {CONFIG} says: damaged, or of another agent; take another "
        "copy. "
        f"(If you changed them yourself, delete {WEIGHTS_KEY} from {CONFIG}.)"
    )


def _hidden(digest: str) -> str:
    return f".{WEIGHTS}.{digest[:32]}{PENDING}"


def _settle(folder: Path) -> None:
    """Give the weights that ``config.json`` names their name, if they are still hidden, and remove other hidden ones."""
    waiting = list(folder.glob(f".{WEIGHTS}.*{PENDING}"))
    if not waiting:
        return
    try:
        named = _hidden(str(json.loads((folder / CONFIG).read_bytes()).get(WEIGHTS_KEY)))
    except (FileNotFoundError, ValueError, AttributeError):  # it is not there or damaged, and names nothing
        named = ""
    for path in waiting:
        if path.name == named:
            os.replace(path, folder / WEIGHTS)
        else:
            path.unlink()
