"""The bare simulator that collecting is measured against."""

import gymnasium as gym
import numpy as np
import pytest

from zoo.collect import rate as module
from zoo.recipes import load_recipe

REPLAY = "genoffline/hopper/medium-replay-v1"


def test_the_bare_simulator_goes_through_the_states_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    rewards: list[float] = []
    step = module.SyncVectorEnv.step

    def noting(self: gym.vector.SyncVectorEnv, actions: np.ndarray) -> tuple:
        out = step(self, actions)
        rewards.extend(out[1])
        return out

    monkeypatch.setattr(module.SyncVectorEnv, "step", noting)
    rates = module.rates(REPLAY, 320, n_envs=4, repeats=1)
    collected = np.concatenate([episode.rewards for episode in load_recipe(REPLAY, 320).episodes(0, 4)])
    assert np.array_equal(np.sort(rewards), np.sort(collected))
    assert set(rates) == {"vector", "loop", "collect"} and min(rates.values()) > 0


@pytest.mark.parametrize("name", ["pointmaze/umaze-v0", "antmaze/umaze-v0", "hopper/medium-expert-v1"])
def test_what_cannot_be_measured_is_refused_with_what_can(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["collect_speed", f"genoffline/{name}"])
    with pytest.raises(SystemExit, match=rf"the rate of genoffline/{name} cannot be compared; .*genoffline/hopper/medium-v1"):
        module.main()
