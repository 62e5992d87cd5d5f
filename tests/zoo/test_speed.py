"""The cost models of ``python -m zoo speed`` and its table."""

import argparse
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from torch.utils.flop_counter import FlopCounterMode

from sb3_genoffline import DAC
from zoo.speed import command as speed


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


def test_the_cost_model_of_qdq_is_the_sum_of_its_parts() -> None:
    sampler = 256 * (2 * 14 * 256 + 50 * 2 * (256 + 2 * 256 * 256 + 256))  # (s, a) once, then 50 samples
    actor_row, critic_row = 2 * (11 * 256 + 2 * 256 * 256 + 256 * 3), 2 * (14 * 256 + 2 * 256 * 256 + 256)
    target = 256 * (actor_row + 2 * critic_row)
    critics = 2 * 256 * (3 * critic_row - 2 * 14 * 256)
    actor = 256 * (3 * actor_row - 2 * 11 * 256 + 2 * 2 * critic_row) / 2  # every second update
    model = speed.make_agent("qdq", "hopper", "paper", "cpu")
    assert speed.qdq_flops(model, 256) == sampler + target + critics + actor
    assert (sampler + target + critics + actor) / 1e9 == pytest.approx(4.229, abs=0.0005)


def test_the_cost_model_of_qdq_is_what_the_update_multiplies() -> None:
    model: Any = speed.build("qdq", "walker2d", "paper", "cpu")
    batches = [model.replay_buffer.sample(16) for _ in range(2)]
    with FlopCounterMode(display=False) as counter:
        for batch in batches:
            model.update(batch, model.draw_noise(16))
    assert counter.get_total_flops() / 2 == pytest.approx(speed.qdq_flops(model, 16), rel=0.03)
    without = speed.make_agent("qdq", "walker2d", "paper", "cpu", penalty="none")
    assert speed.qdq_flops(without, 16) < 0.25 * speed.qdq_flops(model, 16)


@pytest.mark.parametrize(
    ("setting", "density"),
    [  # of hopper, multiply-adds of a row
        ("paper", 3 * (14 * 256 + 256 * 256 + 256 * 3 * 23)),
        ("official", 4 * (7 * 750 + 750 * 750 + 750 * 7)),
    ],
)
def test_the_cost_model_of_cped_is_the_sum_of_its_parts(setting: str, density: int) -> None:
    actor, critic = 11 * 256 + 256 * 256 + 256 * 3, 14 * 256 + 256 * 256 + 256
    target = actor + 2 * critic
    critics = 2 * (3 * critic - 14 * 256)
    actor_step = 3 * actor - 11 * 256 + 2 * 2 * critic + 3 * density  # the density: there and back, and the batch's mean
    model = speed.make_agent("cped", "hopper", setting, "cpu")
    assert speed.cped_flops(model, 256) == 2 * 256 * (target + critics + actor_step / 2)


@pytest.mark.parametrize(("setting", "changes"), [("paper", {}), ("official", {}), ("light", {"epsilon": "quantile"})])
def test_the_cost_model_of_cped_is_what_the_update_multiplies(setting: str, changes: dict[str, Any]) -> None:
    model: Any = speed.build("cped", "walker2d", setting, "cpu", **changes)
    batches = [model.replay_buffer.sample(16) for _ in range(2)]
    with FlopCounterMode(display=False) as counter:
        for batch in batches:
            model.update(batch, model.draw_noise(16))
    assert counter.get_total_flops() / 2 == pytest.approx(speed.cped_flops(model, 16), rel=0.03)
    without = speed.make_agent("cped", "walker2d", setting, "cpu", alpha_mode="fixed", alpha=0.0)
    assert speed.cped_flops(without, 16) < speed.cped_flops(model, 16)


def run_speed(*flags: str) -> None:
    parser = argparse.ArgumentParser()
    speed.add_arguments(parser)
    speed.main(parser.parse_args(flags))


@pytest.mark.parametrize(("algo", "phases"), [("dac", []), ("qdq", ["teacher", "distillation"]), ("cped", ["flow"])])
def test_the_command_prints_every_variant_and_phase_with_its_rates(
    algo: str, phases: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_speed("--algo", algo, "--setting", "light", "--batch-size", "16", "--updates", "1", "--rounds", "1")
    lines = capsys.readouterr().out.splitlines()
    assert "GFLOP an update" in lines[1]
    rows = {line.split("  ")[0]: line.split() for line in lines[3:]}
    assert list(rows) == ["plain (reference form)", "eager", *(f"phase {name}" for name in phases)]
    for name in ("plain (reference form)", "eager"):
        assert all(float(number.strip("%x")) > 0 for number in rows[name][-5:-2])
    for name in phases:
        row = rows[f"phase {name}"]
        assert float(row[2]) > 0 and float(row[3]) > 0 and row[-2:] != ["0.0", "min"]


def test_the_phases_that_are_timed_are_the_published_ones_and_the_agents_are_not_made_by_them() -> None:
    assert [phase.n_steps for phase in speed.make_phases("qdq", "hopper", "paper", "cpu")] == [800_000, 1_600_000]
    model: Any = speed.build("qdq", "hopper", "paper", "cpu")
    assert (model.teacher_steps, model.cd_steps) == (1, 1) and bool(model.policy.q_sampler.fitted)
    flow_steps = {"paper": 100_000, "official": 500_000}
    for setting, steps in flow_steps.items():
        assert [phase.n_steps for phase in speed.make_phases("cped", "hopper", setting, "cpu")] == [steps]


def test_the_updates_that_are_timed_are_those_in_which_all_parts_learn() -> None:
    model: Any = speed.build("cped", "hopper", "light", "cpu")
    metrics = model.update(model.replay_buffer.sample(8), model.draw_noise(8))
    assert {"critic_loss", "actor_q", "nll_pi", "alpha", "epsilon"} <= set(metrics)


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="paper, light"):
        run_speed("--setting", "huge")


def test_compiling_is_refused_where_there_is_nothing_to_compile() -> None:
    with pytest.raises(ValueError, match=r"--compile: qdq has no compile_networks"):
        run_speed("--algo", "qdq", "--compile")
