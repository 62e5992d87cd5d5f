"""What ``python -m zoo speed`` counts, beside what updates should cost, and its table."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from costs import COST_MODELS, cped_flops, dac_flops, qdq_flops
from gymnasium import spaces
from worlds import KINDS

from sb3_genoffline import ALGOS, DAC
from sb3_genoffline.errors import UserError
from zoo.speed import agents, command, costs
from zoo.speed import updates as speed


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows, and small matrices for the peak."""
    monkeypatch.setattr(agents, "N_ROWS", 300)
    monkeypatch.setattr(speed, "PEAK_SIZES", (16,))


def dac(obs_dim: int, action_dim: int, **kwargs: object) -> DAC:
    box = spaces.Box(-np.inf, np.inf, (obs_dim,)), spaces.Box(-1, 1, (action_dim,))
    return DAC("DiffusionPolicy", box, device="cpu", **kwargs)


@pytest.mark.parametrize(("shape", "gigaflops"), [("walker2d", 15.26), ("hopper", 15.00), ("antmaze", 15.65)])
def test_the_cost_model_gives_the_published_totals(shape: str, gigaflops: float) -> None:
    assert dac_flops(dac(*agents.SHAPES[shape]), 256) / 1e9 == pytest.approx(gigaflops, abs=0.005)


def test_the_cost_model_gives_the_totals_of_long_chains_and_of_the_bandit() -> None:
    assert dac_flops(dac(17, 6, n_diffusion_steps=100), 256) / 1e9 == pytest.approx(86.6, abs=0.05)
    bandit = dac(1, 2, n_diffusion_steps=50, n_critics=5, policy_kwargs={"net_arch": [64, 64, 64]})
    assert dac_flops(bandit, 128) / 1e9 == pytest.approx(1.535, abs=0.0005)


def test_the_cost_model_of_qdq_is_the_sum_of_its_parts() -> None:
    sampler = 256 * (2 * 14 * 256 + 50 * 2 * (256 + 2 * 256 * 256 + 256))  # (s, a) once, then 50 samples
    actor_row, critic_row = 2 * (11 * 256 + 2 * 256 * 256 + 256 * 3), 2 * (14 * 256 + 2 * 256 * 256 + 256)
    target = 256 * (actor_row + 2 * critic_row)
    critics = 2 * 256 * (3 * critic_row - 2 * 14 * 256)
    actor = 256 * (3 * actor_row - 2 * 11 * 256 + 2 * 2 * critic_row) / 2  # every second update
    model = agents.make_agent("qdq", "hopper", "paper", "cpu")
    assert qdq_flops(model, 256) == sampler + target + critics + actor
    assert (sampler + target + critics + actor) / 1e9 == pytest.approx(4.229, abs=0.0005)


@pytest.mark.parametrize(
    ("setting", "density"),
    [  # of hopper, multiply-adds of a row
        ("paper", 3 * (14 * 256 + 256 * 256 + 256 * 3 * 23)),
        ("hopper-medium-v2", 4 * (7 * 750 + 750 * 750 + 750 * 7)),
    ],
)
def test_the_cost_model_of_cped_is_the_sum_of_its_parts(setting: str, density: int) -> None:
    actor, critic = 11 * 256 + 256 * 256 + 256 * 3, 14 * 256 + 256 * 256 + 256
    target = actor + 2 * critic
    critics = 2 * (3 * critic - 14 * 256)
    actor_step = 3 * actor - 11 * 256 + 2 * 2 * critic + 3 * density  # the density: there and back, and the batch's mean
    model = agents.make_agent("cped", "hopper", setting, "cpu")
    assert cped_flops(model, 256) == 2 * 256 * (target + critics + actor_step / 2)


@pytest.mark.parametrize(
    ("algo", "setting", "changes"),
    [
        *((algo, "paper", {}) for algo in COST_MODELS),
        *((algo, "tiny", {}) for algo in ("bcq", "bear", "plas")),
        ("cped", "hopper-medium-v2", {}),
        ("cped", "tiny", {"epsilon": "quantile"}),
    ],
)
def test_what_is_counted_is_what_the_equations_cost(algo: str, setting: str, changes: dict[str, Any]) -> None:
    model = speed.build(algo, "walker2d", setting, "cpu", batch_size=16, **changes)
    assert speed.update_flops(model, 16) == pytest.approx(COST_MODELS[algo](model, 16), rel=0.04)


def test_without_their_idea_updates_cost_less() -> None:
    for algo, changes in (("qdq", {"penalty": "none"}), ("cped", {"alpha_mode": "fixed", "alpha": 0.0})):
        whole, without = (speed.build(algo, "walker2d", "tiny", "cpu", **given) for given in ({}, changes))
        assert speed.update_flops(without, 16) < speed.update_flops(whole, 16)


def run_speed(*flags: str) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.main(parser.parse_args(flags))


@pytest.mark.parametrize("algo", [*KINDS, "cped", "dac"])
def test_the_command_prints_every_variant_and_fit_with_its_rates(algo: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_speed("--algo", algo, "--setting", "tiny", "--batch-size", "8", "--updates", "1", "--rounds", "1")
    lines = capsys.readouterr().out.splitlines()
    assert "GFLOP an update" in lines[1]
    rows = {line.split("  ")[0]: line.split() for line in lines[3:]}
    fits = [fit.name for fit in speed.make_fits(algo, "hopper", "tiny", "cpu")]
    plain = ["plain (reference form)" if speed.plain_form(ALGOS[algo]) is not None else "plain (shared parts)"]
    assert {name for name, cls in ALGOS.items() if speed.plain_form(cls) is not None} == {"cped", "dac", "qdq"}
    assert list(rows) == [*plain, "eager", *(f"fit {name}" for name in fits)]
    assert bool(fits) == (next(iter(ALGOS[algo].policy_aliases.values())).fitted_model is not None)
    for name in (*plain, "eager"):
        ms, rate, *achieved, ratio = [float(number.strip("%x")) for number in rows[name][len(name.split()) :]]
        assert rate > 0 and ms >= 0 and ratio > 0 and len(achieved) == 2 and all(number >= 0 for number in achieved)
    for name in fits:
        row = rows[f"fit {name}"]
        assert float(row[2]) >= 0 and float(row[3]) > 0 and row[-1] == "min"


def test_the_record_makes_the_table_that_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "speed.json")
    run_speed("--setting", "tiny", "--batch-size", "8", "--updates", "1", "--rounds", "1", "-o", output)
    record, printed = json.loads(Path(output).read_text()), capsys.readouterr().out
    assert printed.startswith(f"{speed.updates_table(record)}\nwrote ")
    assert [each["name"] for each in record["variants"]] == ["plain (reference form)", "eager"] and record["flops"] > 0


def test_the_costs_of_all_algorithms_go_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "ALGOS", {name: ALGOS[name] for name in ("bc", "spot")})
    monkeypatch.setattr(costs, "_MEASURED", 1)
    run_speed("--costs", str(tmp_path / "costs.json"), "--setting", "tiny")
    record = json.loads((tmp_path / "costs.json").read_text())
    assert record["setting"] == "tiny" and record["shape"] == "hopper"
    assert record["seconds"].keys() == {"bc", "spot"} and min(record["seconds"].values()) > 0


def test_a_setting_is_the_papers_a_profile_or_an_entry() -> None:
    assert agents.setting_arguments("qdq", "paper") == {}
    light, cpu = (agents.setting_arguments("qdq", setting) for setting in ("light", "cpu"))
    assert light["policy_kwargs"] == {"net_arch": [256, 256], "q_net_arch": [64, 64, 64]}
    assert light.keys() == cpu.keys() and light["cd_n"] == cpu["cd_n"] == 18 and cpu["policy_kwargs"]["critic_layer_norm"]
    assert agents.setting_arguments("cped", "hopper-medium-v2")["flow"] == "nice"
    with pytest.raises(
        UserError, match="huge is not known; use one of paper, light, paper, cpu, small, tiny, toy, or a dataset"
    ):
        agents.setting_arguments("qdq", "huge")


def test_a_setting_that_the_plain_form_does_not_have_is_timed_beside_plain_parts(capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(algo="qdq", shape="hopper", setting="cpu", device="cpu", batch_size=8, bf16=False)
    assert [variant.name for variant in speed.variants(args)] == ["plain (shared parts)", "eager"]
    assert "no plain form of this setting: The plain form knows linear layers" in capsys.readouterr().out


def test_the_fits_that_are_timed_are_the_published_ones_and_the_agents_are_not_made_by_them() -> None:
    model = speed.build("qdq", "hopper", "paper", "cpu")
    assert model.num_timesteps == 2 and model.fits.current is None and bool(model.policy.q_sampler.fitted)
    published = {
        ("qdq", "paper"): [800_000, 1_600_000],
        ("cped", "paper"): [100_000],
        ("cped", "hopper-medium-v2"): [500_000],
    }
    for (algo, setting), steps in published.items():
        assert [fit.n_steps for fit in speed.make_fits(algo, "hopper", setting, "cpu")] == steps


def test_the_updates_that_are_timed_are_those_in_which_all_parts_learn() -> None:
    model = speed.build("cped", "hopper", "tiny", "cpu")
    metrics = model.update(model.replay_buffer.sample(8), model.draw_noise(8))
    assert {"critic_loss", "actor_q", "nll_pi", "alpha", "epsilon"} <= set(metrics)
