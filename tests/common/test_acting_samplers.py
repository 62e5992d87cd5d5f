"""DAC and DQL act with the sampler that is asked for, which keeps to their files, and can be set on a live agent."""

from pathlib import Path

import numpy as np
import pytest
import torch as th
from worlds import make_agent, make_dataset, snapshot

from sb3_genoffline import ALGOS, load_agent
from sb3_genoffline.generative.diffusion import SampleClip, SamplerName

WITH_SAMPLERS = [name for name, cls in ALGOS.items() if "sampler" in cls.argument_table().arguments]
STATES = np.random.default_rng(0).normal(2.0, 3.0, size=(6, 3)).astype(np.float32)


def test_dac_and_dql_are_asked() -> None:
    assert {"dac", "dql"} <= set(WITH_SAMPLERS)


@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver"])
@pytest.mark.parametrize("algo", WITH_SAMPLERS)
def test_it_acts_with_the_sampler_that_is_asked_for(algo: str, sampler: SamplerName, tmp_path: Path) -> None:
    clip: SampleClip = "clean"
    model, usual = make_agent(algo, sampler=sampler, n_diffusion_steps=4, ddim_stride=2), make_agent(algo, n_diffusion_steps=4)
    found = model.predict(STATES)[0]
    noise = usual.policy.acting_noise(*usual.actor.noise_shape(len(STATES), 1))  # type: ignore[attr-defined]
    states = usual.policy.normalize_observations(th.as_tensor(STATES))
    actor = usual.actor  # type: ignore[attr-defined]
    expected = actor.sample(states, noise, sampler=sampler, ddim_stride=2, clip=clip)[:, 0].clamp(-1, 1)
    np.testing.assert_allclose(found, usual.policy.unscale_action(expected.detach().numpy()), atol=1e-6)
    file = model.save(tmp_path / "agent")
    model.set_acting_seed(1)
    loaded = load_agent(tmp_path / "agent.zip" if file is None else file)
    loaded.set_acting_seed(1)
    np.testing.assert_array_equal(loaded.predict(STATES)[0], model.predict(STATES)[0])
    live = make_agent(algo, n_diffusion_steps=4)
    live.ddim_stride = 2  # type: ignore[attr-defined]
    live.sampler = sampler  # type: ignore[attr-defined]
    np.testing.assert_array_equal(live.predict(STATES)[0], found)


def test_dqls_training_keeps_ddpm() -> None:
    trained = [make_agent("dql", sampler=name).learn_offline(make_dataset(), 2) for name in ("ddpm", "dpm_solver")]
    first, second = (snapshot(model)["policy.safetensors"] for model in trained)
    assert first == second
