"""
What all tests share. No test speaks to huggingface.co: all of them have a port of this machine for a Hub, where ``tests/hub``
puts a server.
"""

import atexit
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import torch as th


def _keep_port() -> socket.socket:
    """A port of this process alone, refusing connections until a server shares it (``SO_REUSEPORT``) and listens."""
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    keeper.bind(("127.0.0.1", 0))
    return keeper


# huggingface_hub reads these once, when it is imported
HUB_PORT_KEEPER = _keep_port()
_home = tempfile.mkdtemp(prefix="hub-home-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ |= {
    "HF_ENDPOINT": f"http://127.0.0.1:{HUB_PORT_KEEPER.getsockname()[1]}",
    "HF_HOME": _home,
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
for _name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
    os.environ.pop(_name, None)


@pytest.fixture
def float64() -> Iterator[None]:
    """Networks, data and noise in double precision."""
    th.set_default_dtype(th.float64)
    yield
    th.set_default_dtype(th.float32)


@pytest.fixture
def make_batch() -> Any:
    """See :func:`worlds.make_batch`."""
    from worlds import make_batch  # imports huggingface_hub

    return make_batch
