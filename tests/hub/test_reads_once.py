"""Each file of an agent is opened, hashed and parsed one time on its way to a ready agent."""

import builtins
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sb3_genoffline import ALGOS, load_agent, load_from_hub
from sb3_genoffline.files import archive
from sb3_genoffline.files.manifest import write_manifest
from sb3_genoffline.testing import ACTION_SPACE, OBSERVATION_SPACE


@pytest.fixture
def agent_folder(tmp_path: Path) -> Path:
    agent = ALGOS["td3_bc"]("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), device="cpu", policy_kwargs={"net_arch": [8]})
    folder = agent.save_pretrained(tmp_path / "agent")
    agent.save(tmp_path / "agent.zip")
    write_manifest(folder)
    return folder


class Counted:
    """Counts what is done to files below a folder."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.opened, self.parsed, self.hashed, self.unpacked = Counter[str](), 0, 0, 0
        plain, parse, sha256, unpack = io.open, json.loads, hashlib.sha256, archive.load_tensors

        def opening(file: Any, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(file, int) and Path(file).is_relative_to(folder):
                self.opened[Path(file).name] += 1
            return plain(file, *args, **kwargs)

        patch.setattr(io, "open", opening)
        patch.setattr(builtins, "open", opening)
        patch.setattr(json, "loads", self._counting("parsed", parse))
        patch.setattr(hashlib, "sha256", self._counting("hashed", sha256))
        patch.setattr(archive, "load_tensors", self._counting("unpacked", unpack))

    def _counting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            setattr(self, name, getattr(self, name) + 1)
            return function(*args, **kwargs)

        return call


@pytest.mark.parametrize("load", [load_from_hub, load_agent, ALGOS["td3_bc"].load, ALGOS["td3_bc"].from_pretrained])
def test_a_folders_files_are_read_once(load: Callable[..., Any], agent_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(agent_folder.parent, monkeypatch)
    load(agent_folder, device="cpu")
    monkeypatch.undo()
    assert counted.opened == {"manifest.json": 1, "config.json": 1, "model.safetensors": 1}
    assert (counted.parsed, counted.hashed, counted.unpacked) == (2, 2, 1)


@pytest.mark.parametrize("load", [load_from_hub, load_agent, ALGOS["td3_bc"].load])
def test_an_archive_is_read_once(load: Callable[..., Any], agent_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(agent_folder.parent, monkeypatch)
    load(agent_folder.parent / "agent.zip", device="cpu")
    monkeypatch.undo()
    assert counted.opened == {"agent.zip": 1}
    assert (counted.parsed, counted.unpacked) == (2, 2)  # data and training.json, the policy's tensors and training's
