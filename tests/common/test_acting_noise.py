"""The noise that diffusion policies sample actions from can be scaled when they act."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from worlds import make_agent, make_batch, snapshot

from sb3_genoffline import ALGOS, load_agent
from sb3_genoffline.common.diffusion_policy import DiffusionPolicy

DIFFUSION = [name for name, cls in ALGOS.items() if all(issubclass(p, DiffusionPolicy) for p in cls.policy_aliases.values())]
STATES = np.random.default_rng(0).normal(2.0, 3.0, size=(40, 3)).astype(np.float32)


def test_dac_and_dql_are_asked() -> None:
    assert {"dac", "dql"} <= set(DIFFUSION)


@pytest.mark.parametrize("algo", DIFFUSION)
def test_all_noise_of_acting_is_scaled_and_training_is_not(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, scaled = make_agent(algo), make_agent(algo, acting_noise_scale=0.25)
    drawn: list[th.Tensor] = []
    sample = type(model.actor).sample

    def recorded(actor: Any, states: th.Tensor, noise: th.Tensor, **settings: Any) -> th.Tensor:
        drawn.append(noise)
        return sample(actor, states, noise, **settings)

    monkeypatch.setattr(type(model.actor), "sample", recorded)
    for agent in (model, scaled):
        for deterministic in (True, False):
            agent.predict(STATES, deterministic=deterministic)
    for whole, part in zip(drawn[:2], drawn[2:], strict=True):
        assert th.equal(0.25 * whole, part) and whole[0].std() > 0.9 and whole[1:].std() > 0.9
    for agent in (model, scaled):
        batch = make_batch(12)
        agent.step(batch, agent.draw_noise(12))
    assert snapshot(model)["policy.safetensors"] == snapshot(scaled)["policy.safetensors"]


@pytest.mark.parametrize("algo", DIFFUSION)
def test_without_noise_an_action_is_the_same_in_each_call(algo: str) -> None:
    model = make_agent(algo, acting_noise_scale=0)
    first, again = (model.predict(STATES, deterministic=True)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    model.acting_noise_scale = 1.0
    assert (model.predict(STATES, deterministic=True)[0] != first).any()
    with pytest.raises(ValueError, match=r"acting_noise_scale=-0.5 must not be negative"):
        model.acting_noise_scale = -0.5


@pytest.mark.parametrize("algo", DIFFUSION)
def test_files_keep_how_an_agent_acts(algo: str, tmp_path: Path) -> None:
    model = make_agent(algo, acting_noise_scale=0.25)
    model.save(tmp_path / "agent")
    expected = model.predict(STATES, deterministic=True)[0]
    for path in (tmp_path / "agent.zip", model.save_pretrained(tmp_path / "folder")):
        loaded: Any = load_agent(path, device="cpu")
        assert loaded.acting_noise_scale == loaded.policy.acting_noise_scale == 0.25
        np.testing.assert_array_equal(loaded.predict(STATES, deterministic=True)[0], expected)
