"""
What all tests share. No test speaks to huggingface.co: all of them have a port of this machine for a Hub, where ``tests/hub``
puts a server. A file that a test leaves open fails that test, not the one in which Python notices it.
"""

import atexit
import gc
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

gc.disable()  # until the first test: what is imported stays

# A shell lets what it starts in the background ignore these, and programs that are told to ignore a signal do
for _signal, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _usual)


def pytest_runtest_setup() -> None:
    """Keep the garbage collector from looking at hundreds of modules again and again; a test's own objects it still sees."""
    global _n_modules
    if len(sys.modules) > _n_modules + 50:
        _n_modules = len(sys.modules)
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)  # seldom: a test's objects are few
        gc.enable()


_n_modules = 0


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
    import torch as th  # here: xdist's own process needs none

    th.set_default_dtype(th.float64)
    yield
    th.set_default_dtype(th.float32)


@pytest.fixture
def make_batch() -> Any:
    """See :func:`worlds.make_batch`."""
    from worlds import make_batch  # imports huggingface_hub

    return make_batch


@pytest.fixture(scope="session", autouse=True)
def _no_seeds_for_absent_devices() -> Iterator[None]:
    """Torch keeps a seed for a device that may appear later, with the stack as text: that takes longer than a tiny network."""
    import torch as th

    with pytest.MonkeyPatch.context() as patch:
        for kind in (th.cuda, th.xpu, th.mtia):
            if not kind.is_available():
                patch.setattr(kind, "manual_seed_all", lambda seed: None)
        yield


def _n_open_files() -> int | None:
    """File descriptors of this process; None where the system does not list them."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return None


@pytest.fixture(autouse=True)
def _left_open() -> Iterator[None]:
    """Collect what a test has left where it left files open: pytest makes an error of an unclosed one (``filterwarnings``)."""
    before = _n_open_files()
    yield
    after = _n_open_files()
    if before is None or after is None or after > before:
        gc.collect()


@pytest.fixture
def csv_log() -> Iterator[Callable[[Any, Path], None]]:
    """``csv_log(model, folder)`` lets a model log to ``folder/progress.csv``, which is closed when the test ends."""
    from stable_baselines3.common.logger import configure

    loggers = []

    def log(model: Any, folder: Path) -> None:
        loggers.append(configure(str(folder), ["csv"]))
        model.set_logger(loggers[-1])

    yield log
    for logger in loggers:
        logger.close()
