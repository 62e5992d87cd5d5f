"""Every algorithm, with its profile ``toy``, on one task that imitation does not solve: see ``crossing.py``."""

from typing import Any

import pytest
from crossing import ACTION_SPACE, OBSERVATION_SPACE, make_crossing, mean_return

from sb3_genoffline.registry import ALGOS
from zoo.runs.hyperparameters import load_hyperparameters

IMITATION = {"bc"}
MARGIN = 2.0
"""Half of what lies between the data's mean return, 5, and that of its better half, 9."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:The uncertainty H is no larger")
@pytest.mark.parametrize("algo", sorted(ALGOS))
def test_dynamic_programming_joins_what_imitation_can_not(algo: str) -> None:
    data = make_crossing()
    settings = load_hyperparameters(algo, "tests/crossing-v0", "toy")
    spaces = (OBSERVATION_SPACE, ACTION_SPACE)
    model: Any = ALGOS[algo](settings.policy, spaces, seed=0, device="cpu", **settings.arguments)
    model.learn_offline(data, settings.n_timesteps, log_interval=None)
    reached, mean = mean_return(model), data.episode_returns().mean()
    assert (reached < mean) if algo in IMITATION else (reached > mean + MARGIN)
