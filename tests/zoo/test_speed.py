"""The cost model of ``python -m zoo speed`` and its table."""

import argparse

import numpy as np
import pytest
from gymnasium import spaces

from sb3_genoffline import DAC
from zoo import speed


def dac(obs_dim: int, action_dim: int, **kwargs: object) -> DAC:
    box = spaces.Box(-np.inf, np.inf, (obs_dim,)), spaces.Box(-1, 1, (action_dim,))
    return DAC("DiffusionPolicy", box, device="cpu", **kwargs)


@pytest.mark.parametrize(("shape", "gigaflops"), [("walker2d", 15.26), ("hopper", 15.00), ("antmaze", 15.65)])
def test_the_cost_model_gives_the_published_totals(shape: str, gigaflops: float) -> None:
    assert speed.dac_flops(dac(*speed.SHAPES[shape]), 256) / 1e9 == pytest.approx(gigaflops, abs=0.005)


def test_the_cost_model_gives_the_totals_of_long_chains_and_of_the_bandit() -> None:
    assert speed.dac_flops(dac(17, 6, n_diffusion_steps=100), 256) / 1e9 == pytest.approx(86.6, abs=0.05)
    bandit = dac(1, 2, n_diffusion_steps=50, n_critics=5, policy_kwargs={"net_arch": [64, 64, 64]})
    assert speed.dac_flops(bandit, 128) / 1e9 == pytest.approx(1.535, abs=0.0005)


def test_the_command_prints_every_variant_with_its_rates(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    speed.add_arguments(parser)
    speed.main(parser.parse_args(["--setting", "light", "--batch-size", "16", "--updates", "1", "--rounds", "1"]))
    lines = capsys.readouterr().out.splitlines()
    assert "GFLOP an update" in lines[1]
    rows = {line.split("  ")[0]: line.split() for line in lines[3:]}
    assert list(rows) == ["plain (reference form)", "eager"]
    for row in rows.values():
        assert all(float(number.strip("%x")) > 0 for number in row[-5:-2])


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    parser = argparse.ArgumentParser()
    speed.add_arguments(parser)
    with pytest.raises(ValueError, match="paper, light"):
        speed.main(parser.parse_args(["--setting", "huge"]))
