"""Publishing over a folder: the old agent or the new one is there, and is found, whatever happens at whichever operation."""

import os
from pathlib import Path
from typing import Any

import pytest
from faults import every_state

from sb3_genoffline import load_from_hub
from sb3_genoffline.errors import NotFoundError
from sb3_genoffline.hub.publishing import write_agent_folder
from sb3_genoffline.registry import ALGOS
from sb3_genoffline.testing import ACTION_SPACE, OBSERVATION_SPACE


def make(gamma: float) -> Any:
    small = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "gamma": gamma}
    return ALGOS["td3_bc"]("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), seed=0, **small)


@pytest.mark.parametrize("fault", [None, KeyboardInterrupt()], ids=["killed", "interrupted"])
def test_the_old_or_the_new_agent_is_there_after_any_fault(fault: Any, tmp_path: Path) -> None:
    folder, old, new = tmp_path / "agent", make(0.5), make(0.75)
    write_agent_folder(old, folder)
    seen, hidden = [], 0
    for _ in every_state(tmp_path, lambda: write_agent_folder(new, folder, overwrite=True), fault):
        seen.append(load_from_hub(folder, device="cpu").gamma)
        hidden += not folder.exists()
    assert set(seen) == {0.5, 0.75} and (hidden > 0) == (fault is None)
    write_agent_folder(old, folder, overwrite=True)
    assert os.listdir(tmp_path) == ["agent"]


def test_a_curve_that_is_not_there_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no file .*curve\.png"):
        write_agent_folder(make(0.5), tmp_path / "agent", curve=tmp_path / "curve.png")
    assert list(tmp_path.iterdir()) == []
