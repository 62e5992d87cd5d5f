"""A tiny Hopper dataset in a Minari root of its own."""

from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from zoo.runs.rendering import prefer_offscreen

prefer_offscreen()
DATASET = "tiny/hopper/random-v0"


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
