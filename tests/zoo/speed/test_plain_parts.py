"""An update whose shared parts are plain gives the numbers of ours, for every algorithm; what it costs becomes a table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from worlds import ALGOS, make_agent, make_dataset

from sb3_genoffline.nets.ensembles import EnsembleQ
from zoo.speed import agents, beside_plain
from zoo.speed.plain_parts import PlainEnsembleQ, PlainParts

WITHOUT_CRITICS = ("bc", "decision_transformer", "diffuser")
OWN_CRITICS = ("uwac",)
"""Whose critics drop units, and are not replaced."""


def ready(algo: str) -> Any:
    model = make_agent(algo)
    if model.uses_fitted_model():
        return model.learn_offline(make_dataset(), 1)
    model.set_dataset(make_dataset())
    return model


def exact(batch: Any) -> Any:
    return type(batch)(*(part.double() if part.is_floating_point() else part for part in batch))


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("algo", ALGOS)
def test_updates_with_plain_parts_are_ours(algo: str) -> None:
    ours, theirs = ready(algo), ready(algo)
    for name in ours.state.plans:  # what they have averaged: the plain ones start anew
        vars(ours).pop(f"{name}_optimizer", None)
    ours.state._optimizers.clear()
    plain = PlainParts(theirs)
    replaced = [module for module in theirs.policy.modules() if isinstance(module, PlainEnsembleQ)]
    assert bool(replaced) == (algo not in (*WITHOUT_CRITICS, *OWN_CRITICS))
    assert not any(type(module) is EnsembleQ for module in theirs.policy.modules())
    for step in range(4):
        batch = exact(ours.batches.draw(7))
        noise, same = (model.draw_noise(len(batch[0])) for model in (ours, theirs))
        mine, others = ours.step(batch, noise), plain.update(batch, same)
        assert mine.keys() == others.keys()
        for name in mine:
            np.testing.assert_allclose(mine[name], others[name], rtol=1e-9, atol=1e-10, err_msg=f"{name}, update {step}")


def test_gradients_of_many_pairs_are_those_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Member by member, as a CPU goes through many rows, and all members together."""
    from sb3_genoffline.nets import ensembles

    th.manual_seed(0)
    critic = EnsembleQ(3, 4, 2, (8, 8), th.nn.ReLU, layer_norm=True).double()
    states, actions = th.randn(5, 4, dtype=th.float64), th.rand(5, 7, 2, dtype=th.float64, requires_grad=True)
    found = []
    for limit in (36, 35):
        monkeypatch.setattr(ensembles, "_MANY_ROWS", limit)
        values = critic.of_samples(states, actions)
        found.append((values, *th.autograd.grad(values.sin().sum(), [*critic.parameters(), actions])))
    for few, many in zip(*found, strict=True):
        th.testing.assert_close(few, many, rtol=1e-12, atol=1e-12)
    by_one = th.stack([critic(states, actions[:, i]) for i in range(7)], dim=-1)
    th.testing.assert_close(found[1][0], by_one, rtol=1e-12, atol=1e-12)


def test_costs_beside_the_plain_form_become_a_record_and_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(beside_plain, "ALGOS", {name: ALGOS[name] for name in ("dac", "td3_bc")})
    monkeypatch.setattr(beside_plain, "SETTINGS", ("tiny",))
    for name, value in (("_ROUNDS", 1), ("_SECONDS", 0.0), ("_ROWS", 300)):
        monkeypatch.setattr(beside_plain, name, value)
    monkeypatch.setattr(agents, "N_ROWS", 300)
    record = beside_plain.record_beside_plain(tmp_path / "plain.json", "hopper")
    assert json.loads((tmp_path / "plain.json").read_text()) == record
    dac, td3_bc = (record["algorithms"][name]["tiny"] for name in ("dac", "td3_bc"))
    assert (dac["form"], td3_bc["form"]) == ("whole", "parts") and "plain_mb" not in dac and td3_bc["plain_mb"] > 0
    assert all(each[key] > 0 for each in (dac, td3_bc) for key in ("ms", "plain_ms", "times_faster", "mb"))
    head, *rows = beside_plain.beside_plain_table(record).splitlines()
    assert head.split()[:2] == ["tiny:", "ms"] and "\n".join(rows) in capsys.readouterr().out
    assert rows[0].startswith("dac ") and "*" in rows[0] and "*" not in rows[1]
