"""Folders of agents: the old one or the new one, whatever happens; full disks and published folders are said in a sentence."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import every_state

from sb3_genoffline import load_agent
from sb3_genoffline.errors import ExistsError, NotWrittenError
from sb3_genoffline.files.manifest import write_manifest
from sb3_genoffline.registry import ALGOS
from sb3_genoffline.testing import ACTION_SPACE, OBSERVATION_SPACE, observations


def make(seed: int) -> Any:
    small = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "gamma": 0.5 + seed / 10}
    return ALGOS["td3_bc"]("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), seed=seed, **small)


def which(path: Path, agents: list[Any]) -> int:
    """Which of the agents a folder holds: weights and settings of one and the same."""
    loaded = load_agent(path, device="cpu")
    acted = loaded.predict(observations(), deterministic=True)[0]
    same = [np.array_equal(acted, agent.predict(observations(), deterministic=True)[0]) for agent in agents]
    assert sum(same) == 1 and agents[same.index(True)].gamma == loaded.gamma
    return same.index(True)


@pytest.mark.parametrize("fault", [None, OSError(errno.ENOSPC, "No space left on device")], ids=["killed", "full"])
def test_a_folder_is_the_old_agents_or_the_new_ones(fault: Any, tmp_path: Path) -> None:
    agents, folder = [make(1), make(2)], tmp_path / "agent"
    agents[0].save_pretrained(folder)
    seen = [which(folder, agents) for _ in every_state(tmp_path, lambda: agents[1].save_pretrained(folder), fault)]
    assert set(seen) == {0, 1}
    agents[0].save_pretrained(folder)
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]


def test_a_published_folder_is_not_changed(tmp_path: Path) -> None:
    folder = make(1).save_pretrained(tmp_path / "agent")
    write_manifest(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ExistsError, match="holds a published agent"):
        make(2).save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("verb", ["save", "save_pretrained", "save_replay_buffer"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_what_the_system_refuses_leaves_the_old_agent(
    verb: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "agent"
    getattr(make(1), verb)(path)
    before = {found: found.read_bytes() for found in tmp_path.rglob("*") if found.is_file()}
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(NotWrittenError, match=r"agent.* could not be written: "):
        getattr(make(2), verb)(path)
    assert {found: found.read_bytes() for found in tmp_path.rglob("*") if found.is_file()} == before
