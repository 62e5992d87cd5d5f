"""Zip archives without pickles: JSON for what is plain data, safetensors for what is a tensor."""

import io
import json
import lzma
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import torch as th
from gymnasium import spaces
from minari.serialization import serialize_space
from safetensors import SafetensorError
from safetensors.numpy import save as pack  # torch's takes five times as long for an agent's many small tensors
from safetensors.torch import load as load_tensors
from torch import Tensor

from sb3_genoffline.errors import NotFoundError, UserError, printable
from sb3_genoffline.files.nearby import near_files
from sb3_genoffline.files.writing import replace_file

FORMAT_VERSION = 2
_TENSOR = "__tensor__"
_LONGEST_MESSAGE, _LARGEST_HEADER = 1000, 4 * 2**20
MAX_JSON_BYTES, _MOST_JSON_VALUES = 16 * 2**20, 500_000
PathOrFile = str | pathlib.Path | io.BufferedIOBase


class CheckpointError(UserError):
    """
    A checkpoint that can't be read.

    :param message: why, and what to do; what it cites from the file is made safe to print
    """

    def __init__(self, message: str) -> None:
        short = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}..."
        super().__init__(printable(short))


def space_to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """Plain data, as Minari stores a space."""
    data: dict[str, Any] = serialize_space(space, to_string=False)
    return data


def flatten_tensors(tree: Any, prefix: str = "") -> tuple[Any, dict[str, Tensor]]:
    """
    Split nested dicts and lists into plain data and tensors.

    :param tree: dicts (string or integer keys), lists, tuples, numbers, strings, None, tensors
    :param prefix: of the tensors' names
    :return: JSON-able data with a reference instead of every tensor, and the tensors by name
    """
    if isinstance(tree, Tensor):
        return {_TENSOR: prefix}, {prefix: tree.detach().cpu().contiguous().clone()}
    if isinstance(tree, Mapping | list | tuple):
        items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
        data, tensors = {}, {}
        for key, value in items:
            data[key], found = flatten_tensors(value, f"{prefix}.{key}" if prefix else str(key))
            tensors.update(found)
        if isinstance(tree, Mapping):
            # JSON knows string keys only, optimizers count their parameters
            return {"__items__": [[key, value] for key, value in data.items()]}, tensors
        return list(data.values()), tensors
    return tree, {}


def unflatten_tensors(data: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of :func:`flatten_tensors` (tuples come back as lists)."""
    if isinstance(data, dict):
        if _TENSOR in data:
            return tensors[data[_TENSOR]]
        return {key: unflatten_tensors(value, tensors) for key, value in data["__items__"]}
    if isinstance(data, list):
        return [unflatten_tensors(value, tensors) for value in data]
    return data


def pack_tensors(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Tensors by name -> content of a safetensors file."""
    return pack({name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}, metadata)


def tree_to_members(tree: Any, name: str) -> dict[str, bytes]:
    """Nested data with tensors -> archive members ``{name}.json`` and ``{name}.safetensors``."""
    data, tensors = flatten_tensors(tree)
    return {f"{name}.json": json.dumps(data).encode(), f"{name}.safetensors": pack_tensors(tensors)}


def tree_from_members(members: Mapping[str, bytes], name: str, device: th.device | str = "cpu") -> Any:
    """Inverse of :func:`tree_to_members`; raises :class:`CheckpointError` if a member is missing or damaged."""
    tensors = read_tensors(members, f"{name}.safetensors")
    try:
        check_json_size(members[f"{name}.json"], f"The checkpoint's member '{name}.json'")
        return unflatten_tensors(json.loads(members[f"{name}.json"]), {k: v.to(device) for k, v in tensors.items()})
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        what = f"The checkpoint's member '{name}.json' is damaged"
        raise CheckpointError(f"{what} ({type(error).__name__}: {error}): take another copy.") from error


def check_json_size(content: bytes, name: str) -> None:
    """
    An empty list takes two bytes of JSON and 64 of memory, so values count and not bytes alone.

    :param content: of a JSON file
    :param name: of it, for the error
    :raises CheckpointError: if it is larger than any agent's, before it is parsed
    """
    values = content.count(b",") + content.count(b"[") + content.count(b"{")
    if len(content) > MAX_JSON_BYTES or values > _MOST_JSON_VALUES:
        raise CheckpointError(f"{name} has {len(content):,} bytes and {values:,} values, more than any agent's: refused.")


def read_tensors(members: Mapping[str, bytes], name: str) -> dict[str, Tensor]:
    """:raises CheckpointError: if the member is missing or damaged"""
    if name not in members:
        raise CheckpointError(f"The checkpoint has no member {name!r}: it is incomplete, take another copy.")
    return parse_tensors(members[name], f"The checkpoint's member {name!r}")


def parse_tensors(content: bytes, name: str) -> dict[str, Tensor]:
    """
    :param content: of a safetensors file; no more memory is taken than it has bytes, and some MiB for the names
    :param name: of it, for the error
    :raises CheckpointError: if it is damaged
    """
    header = int.from_bytes(content[:8], "little")
    if _LARGEST_HEADER < header <= len(content):
        raise CheckpointError(f"{name} has a header of {header:,} bytes, more than any agent's: refused.")
    try:
        return load_tensors(content)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{name} is damaged ({error}): take another copy.") from error


def with_zip_suffix(path: str | pathlib.Path) -> pathlib.Path:
    """``path`` ending in ``.zip``. (SB3 takes the ``.5`` of ``agent-v1.5`` for a suffix and leaves ``.zip`` out.)"""
    path = pathlib.Path(path)
    return path if path.suffix == ".zip" or not path.name else path.with_name(path.name + ".zip")


def write_archive(path: PathOrFile, members: Mapping[str, bytes]) -> None:
    """
    Write a zip file, atomically: a killed process leaves the old file or the new one.

    :param path: a path (folders are made, ``.zip`` added where it is missing) or an open binary file
    :param members: contents by name
    :raises NotWrittenError: if the system refuses it
    """
    path = _place(path)
    if not isinstance(path, pathlib.Path):
        _write_zip(path, members)
        return
    file = io.BytesIO()
    _write_zip(file, members)
    replace_file(with_zip_suffix(path), file.getvalue())


def _place(path: Any) -> pathlib.Path | io.BufferedIOBase:
    """:raises UserError: if it is neither a file's name nor an open binary file"""
    if isinstance(path, str | os.PathLike):
        return pathlib.Path(path)
    if isinstance(path, io.TextIOBase) or not (hasattr(path, "read") or hasattr(path, "write")):
        raise UserError(f"A {type(path).__name__} is not a place for a file: give a path, or a file opened in binary mode.")
    return path  # type: ignore[no-any-return]


def _write_zip(file: Any, members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def read_archive(path: PathOrFile) -> dict[str, bytes]:
    """
    :param path: a path (with or without ``.zip``) or an open binary file
    :return: contents by name
    :raises FileNotFoundError: if there is no such file
    :raises CheckpointError: if it is no zip file or a damaged one
    """
    path = given = _place(path)
    if isinstance(given, pathlib.Path):
        path = given if given.is_file() or not given.name else given.with_name(given.name + ".zip")
        if not path.is_file():
            raise NotFoundError(f"No checkpoint at {str(given)!r} (nor {path.name!r} next to it){near_files(given)}")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path)
            return {member.filename: _read_member(archive, member) for member in archive.infolist()}
    except CheckpointError:
        raise
    except _UNREADABLE as error:
        raise CheckpointError(f"{path!s} is not a readable zip archive ({error}): take another copy.") from error


_LARGEST_RATIO, _FREE_BYTES, _LARGEST_ARCHIVE, _MOST_MEMBERS = 20, 2**20, 4 * 2**30, 1000
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
)


def _check_members(archive: zipfile.ZipFile, path: Any) -> None:
    """Refuse names that lead out of a folder, and sizes that only a zip bomb has, before anything is read."""
    names = archive.namelist()
    if len(names) > _MOST_MEMBERS:
        raise CheckpointError(f"{path!s} has {len(names):,} members, more than any agent's ({_MOST_MEMBERS:,}): refused.")
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0] or not name.isprintable():
            raise CheckpointError(f"{path!s} has a member named {name!r}, which leads out of its folder: refused.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckpointError(f"{path!s} has the member {twice!r} more than once: refused.")
    for member in archive.infolist():
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError(f"{path!s} has the member {member.filename!r} packed as no agent's is: refused.")
    file: Any = archive.fp
    n_bytes, declared = file.seek(0, io.SEEK_END), sum(member.file_size for member in archive.infolist())
    if declared > min(_LARGEST_RATIO * n_bytes + _FREE_BYTES, _LARGEST_ARCHIVE):
        raise CheckpointError(f"{path!s} has {n_bytes:,} bytes and would unpack to {declared:,}, as a zip bomb does: refused.")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)  # with a size, no more than that is unpacked at a time
    if len(content) != member.file_size:
        raise zipfile.BadZipFile(f"{member.filename!r} has another size than it says")
    return content
