"""Victims: folders and archives of small agents, to be copied and spoilt."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from hostile import Watch

sys.path.append(str(Path(__file__).parents[1] / "hub"))  # the loopback Hub


@pytest.fixture(scope="session")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder ``{algo}`` of ``save_pretrained`` and an archive ``{algo}.zip`` for some algorithms."""
    from hostile import ACTION_SPACE, OBSERVATION_SPACE, SMALL

    from sb3_genoffline import ALGOS

    root = tmp_path_factory.mktemp("victims")
    for name, settings in SMALL.items():
        model = ALGOS[name]("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), seed=0, device="cpu", **settings)
        model.save_pretrained(root / name)
        model.save(root / name)
    return root


@pytest.fixture(scope="session")
def sb3_victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of stable-baselines3's SAC."""
    from hostile import ACTION_SPACE, OBSERVATION_SPACE
    from stable_baselines3 import SAC

    from sb3_genoffline.common.envs import spaces_only

    path = tmp_path_factory.mktemp("sb3") / "sac-point.zip"
    env = spaces_only(OBSERVATION_SPACE, ACTION_SPACE)
    SAC("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, buffer_size=1, device="cpu", seed=0).save(path)
    return path


@pytest.fixture
def watch(tmp_path: Path) -> "Watch":
    """A watch on the test's own folder, which is where everything is."""
    from hostile import Watch

    return Watch(tmp_path)


@pytest.fixture
def folder(victims: Path, tmp_path: Path) -> Path:
    """A DAC agent's folder without a manifest."""
    return Path(shutil.copytree(victims / "dac", tmp_path / "dac"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A Hub of this machine and an empty cache."""
    from hub_server import HubServer
    from huggingface_hub import close_session, constants

    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    shutil.rmtree(constants.HF_HOME, ignore_errors=True)
    close_session()
    with HubServer(urlsplit(os.environ["HF_ENDPOINT"]).port or 0) as server:
        monkeypatch.setenv("HF_TOKEN", server.storage.add_account("ada", ["org"]))
        yield server
    close_session()
