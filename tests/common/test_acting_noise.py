"""The noise that diffusion policies sample actions from can be scaled when they act."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import make_agent, make_dataset, snapshot

from sb3_genoffline import ALGOS, load_agent
from sb3_genoffline.common.policies import OfflinePolicy

SCALED = [name for name, cls in ALGOS.items() if "acting_noise_scale" in cls.argument_table().arguments]
STATES = np.random.default_rng(0).normal(2.0, 3.0, size=(40, 3)).astype(np.float32)


def test_every_diffusion_policy_is_asked() -> None:
    assert {"dac", "dql", "idql", "sfbc", "diffuser"} <= set(SCALED)


@pytest.mark.parametrize("algo", SCALED)
def test_all_noise_of_acting_is_scaled(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, scaled = make_agent(algo), make_agent(algo, acting_noise_scale=0.25)
    draw = OfflinePolicy.acting_noise
    for deterministic in (True, False):
        part = scaled.predict(STATES, deterministic=deterministic)[0]
        with monkeypatch.context() as patch:
            patch.setattr(OfflinePolicy, "acting_noise", lambda policy, *shape: 0.25 * draw(policy, *shape))
            np.testing.assert_array_equal(model.predict(STATES, deterministic=deterministic)[0], part)


@pytest.mark.parametrize("algo", SCALED)
def test_training_is_not_touched(algo: str) -> None:
    trained = [make_agent(algo, **given) for given in ({}, {"acting_noise_scale": 0.25})]
    for model in trained:
        model.learn_offline(make_dataset(), gradient_steps=2)
    first, second = (snapshot(model)["policy.safetensors"] for model in trained)
    assert first == second


@pytest.mark.parametrize("algo", SCALED)
def test_without_noise_an_action_is_the_same_in_each_call(algo: str) -> None:
    model: Any = make_agent(algo, acting_noise_scale=0)
    first, again = (model.predict(STATES, deterministic=True)[0] for _ in range(2))
    np.testing.assert_allclose(first, again, rtol=0, atol=1e-6)  # of equal candidates any is taken
    model.acting_noise_scale = 1.0
    assert (np.abs(model.predict(STATES, deterministic=True)[0] - first) > 1e-3).any()
    with pytest.raises(ValueError, match=r"acting_noise_scale=-0.5 must lie in \[0, 1000000\]"):
        model.acting_noise_scale = -0.5


@pytest.mark.parametrize("algo", SCALED)
def test_files_keep_how_an_agent_acts(algo: str, tmp_path: Path) -> None:
    model = make_agent(algo, acting_noise_scale=0.25)
    model.save(tmp_path / "agent")
    expected = model.predict(STATES, deterministic=True)[0]
    for path in (tmp_path / "agent.zip", model.save_pretrained(tmp_path / "folder")):
        loaded: Any = load_agent(path, device="cpu")
        assert loaded.acting_noise_scale == loaded.policy.acting_noise_scale == 0.25
        np.testing.assert_array_equal(loaded.predict(STATES, deterministic=True)[0], expected)
