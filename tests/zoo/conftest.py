"""A tiny Hopper dataset in a Minari root of its own."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from zoo.plot import figures
from zoo.runs.rendering import prefer_offscreen

prefer_offscreen()
DATASET = "tiny/hopper/random-v0"
WRITE_PNG = figures.write_png
FORK: Any = multiprocessing.get_context("fork")


@pytest.fixture(scope="session", autouse=True)
def coarse_pictures() -> Iterator[None]:
    """
    What is asked of pictures depends neither on their resolution nor on where exactly a panel lies. The same artists draw both
    files: the SVG, in which tests read, is drawn; the PNG beside it stays empty, but for tests that ask for its ``pixels``.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "write_png", lambda figure, file: file.write(b"\x89PNG"))
        patch.setattr(figures, "DPI", 30)
        patch.setattr(ConstrainedLayoutEngine, "execute", lambda *_: None)
        yield


@pytest.fixture
def pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """PNGs are drawn as ever."""
    monkeypatch.setattr(figures, "write_png", WRITE_PNG)


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the zoo starts are forks of this one: they need not import everything again, which takes seconds."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: FORK)


@pytest.fixture
def in_a_fork(tmp_path: Path) -> Iterator[Callable[[Callable[[], Any]], tuple[BaseProcess, Path]]]:
    """Runs a function in a process of its own, which is ended with the test; and the file with what it wrote to stderr."""
    started: list[BaseProcess] = []

    def start(work: Callable[[], Any]) -> tuple[BaseProcess, Path]:
        errors = tmp_path / f"errors_{len(started)}.txt"

        def run() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.stderr = errors.open("w", buffering=1)
            work()

        process = FORK.Process(target=run)
        process.start()
        started.append(process)
        return process, errors

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture(scope="session")
def dataset_id(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Id of 600 random steps of Hopper-v5."""
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.namespace import create_namespace

    root: Path = tmp_path_factory.mktemp("minari")
    patch = pytest.MonkeyPatch()
    patch.setenv("MINARI_DATASETS_PATH", str(root / "datasets"))
    patch.setenv("SB3_GENOFFLINE_CACHE", str(root / "cache"))
    env = gym.make("Hopper-v5")
    generator = np.random.default_rng(0)
    buffers, steps = [], 0
    while steps < 600:
        observations, actions, rewards, ended = [env.reset(seed=steps)[0]], [], [], False
        while not ended:
            actions.append(generator.uniform(-1.0, 1.0, 3).astype(np.float32))
            observation, reward, ended, _, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(float(reward))
        terminations = np.zeros(len(rewards), dtype=bool)
        terminations[-1] = True
        buffers.append(
            EpisodeBuffer(
                observations=np.array(observations),  # type: ignore[arg-type]
                actions=np.array(actions),  # type: ignore[arg-type]
                rewards=rewards,
                terminations=list(terminations),
                truncations=[False] * len(rewards),
            )
        )
        steps += len(rewards)
    env.close()
    create_namespace("tiny/hopper")
    minari.create_dataset_from_buffers(
        DATASET,
        buffers,
        env="Hopper-v5",
        eval_env="Hopper-v5",
        ref_min_score=-20.0,
        ref_max_score=3234.0,
        algorithm_name="random",
        author="test",
        author_email="test@example.org",
        code_permalink="none",
        description="tiny",
    )
    yield DATASET
    patch.undo()
