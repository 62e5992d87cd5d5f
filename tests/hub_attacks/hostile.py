"""What an attacker writes, and a watch on what it does to who loads it."""

import json
import os
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.files.archive import CheckpointError
from sb3_genoffline.hub import HubError

OBSERVATION_SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTION_SPACE = spaces.Box(np.array([0, -2], np.float32), np.array([1, 5], np.float32))
SMALL: dict[str, dict[str, Any]] = {
    "dac": {"policy_kwargs": {"net_arch": [8, 8]}, "n_critics": 2, "n_action_samples": 3},
    "qdq": {"policy_kwargs": {"net_arch": [8], "q_net_arch": [8]}, "normalize_observations": True},
    "cped": {"policy_kwargs": {"net_arch": [8], "flow_net_arch": [8]}},
    "bc": {"policy_kwargs": {"net_arch": [8]}},
    "spot": {"policy_kwargs": {"net_arch": [8], "vae_net_arch": [8]}},
}
MORE_MEMORY, MORE_SECONDS = 1.5 * 2**30, 20.0  # no case needs a tenth of either where nothing is wrong


class Trap:
    """Unpickling an instance makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def pickled(trap: Path) -> bytes:
    return pickle.dumps(Trap(trap))


class Watch:
    """
    Sees files that are made or changed, traps that are sprung, and memory and time that are spent.

    :param root: the folder that is watched
    """

    def __init__(self, root: Path) -> None:
        self.root, self.trap = root, root / "sprung"

    def _tree(self) -> dict[str, tuple[int, int]]:
        found = (os.lstat(path) and (path, os.lstat(path)) for path in self.root.rglob("*"))
        return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found}

    @contextmanager
    def harmless(self) -> Iterator[None]:
        """Nothing inside writes a file, springs the trap, or takes much memory or time."""
        before, start = self._tree(), time.monotonic()
        with bounded_memory():
            yield
        assert not self.trap.exists(), "code from the file ran"
        assert self._tree() == before, "files were written"
        assert time.monotonic() - start < MORE_SECONDS

    def refused(self, load: Callable[[], Any], *words: str) -> BaseException:
        """
        :param load: must be refused, harmlessly
        :param words: each of which the message has
        """
        with self.harmless(), pytest.raises((CheckpointError, HubError)) as caught:
            load()
        check_refusal(caught.value, *words)
        return caught.value


def check_refusal(error: BaseException, *words: str) -> None:
    """The message has the words, is short and safe to print, and nothing was out of memory on the way."""
    message = str(error)
    for word in words:
        assert word in message
    assert len(message) < 2000 and message.isprintable(), repr(message[:2000])
    cause: BaseException | None = error
    while cause is not None:
        assert not isinstance(cause, MemoryError) and "allocate" not in str(cause), "it was refused only when memory was short"
        cause = cause.__cause__


@contextmanager
def bounded_memory() -> Iterator[None]:
    """What takes more than ``MORE_MEMORY`` of address space raises."""
    old, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (int(in_use + MORE_MEMORY), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (old, hard))


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: Mapping[str, bytes], path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def edited(content: bytes, edit: Callable[[Any], Any]) -> bytes:
    """JSON after ``edit``, which changes it in place."""
    data = json.loads(content)
    edit(data)
    return json.dumps(data).encode()


def safetensors_of(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    """
    :param header: JSON or bytes
    :param body: the tensors
    :param length: of the header, as the file says
    """
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and body of a safetensors file."""
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def acts_well(model: OfflineAlgorithm) -> bool:
    """Whether actions are finite and inside the action space, of a plain observation and both modes."""
    space = model.observation_space
    assert isinstance(space, spaces.Box)
    observation = np.clip(np.zeros((2, *space.shape), space.dtype), space.low, space.high)
    actions = [model.predict(observation, deterministic=mode)[0] for mode in (True, False)]
    return all(np.isfinite(action).all() and all(map(model.action_space.contains, action)) for action in actions)
