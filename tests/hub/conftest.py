"""A Hub, an account and an empty cache for each test."""

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from hub_server import HubServer
from huggingface_hub import HfApi, close_session, constants

if TYPE_CHECKING:
    from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """
    A running Hub at ``HF_ENDPOINT`` with an account ``ada`` (of the organisation ``org``), whose token is ``HF_TOKEN``;
    ``HF_HOME`` is emptied.
    """
    assert os.environ["HF_ENDPOINT"] == constants.ENDPOINT, "huggingface_hub was imported before tests/conftest.py"
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    shutil.rmtree(constants.HF_HOME, ignore_errors=True)
    close_session()
    with HubServer(urlsplit(os.environ["HF_ENDPOINT"]).port or 0) as server:
        monkeypatch.setenv("HF_TOKEN", server.storage.add_account("ada", ["org"]))
        yield server
    close_session()


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    """The real client."""
    return HfApi()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's pauses between attempts take no time; they are noted in the list."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


@pytest.fixture
def fresh_process(hub: HubServer, tmp_path: Path) -> Callable[..., str]:
    """``fresh_process(code, **environment)`` runs Python with an empty cache and returns what it prints."""

    def run(code: str, **environment: str) -> str:
        home = tmp_path / f"home-{len(list(tmp_path.glob('home-*')))}"
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=os.environ | {"HF_HOME": str(home)} | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def agent() -> "OfflineAlgorithm":
    """A small DAC agent; to be looked at only."""
    from point_agents import train

    return train()


@pytest.fixture(scope="session")
def agent_files(agent: "OfflineAlgorithm", tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    """Contents of the agent's folder by path."""
    from point_agents import REPO

    from sb3_genoffline.hub import write_agent_folder

    folder = write_agent_folder(agent, tmp_path_factory.mktemp("models") / "dac-point", repo_id=REPO)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def published(hub: HubServer, agent_files: dict[str, bytes | None]) -> str:
    """The repository that the agent is in."""
    from point_agents import REPO

    hub.put(REPO, agent_files)
    return REPO
