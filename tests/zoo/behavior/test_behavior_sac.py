"""The hand-written SAC makes SB3's updates, and goes on from what it kept."""

import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from stable_baselines3 import SAC

from zoo.behavior import sac, sac_state
from zoo.behavior import train as train_module
from zoo.behavior.sac import Learner
from zoo.behavior.train import main as train_behavior

SETTINGS = {
    "batch_size": 32,
    "learning_rate": 3e-3,
    "gamma": 0.9,
    "tau": 0.1,
    "actor_width": 16,
    "critic_width": 24,
}


def make_model() -> SAC:
    return SAC(
        "MlpPolicy",
        "Hopper-v5",
        policy_kwargs={"net_arch": {"pi": [16, 16], "qf": [24, 24]}},
        buffer_size=1,
        seed=0,
        device="cpu",
        **{name: SETTINGS[name] for name in ("batch_size", "learning_rate", "gamma", "tau")},
    )


def make_batch(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(32, 11 + 3 + 11 + 2, generator=generator)
    rows[:, 11:14] = rows[:, 11:14].tanh()
    rows[:, -1] = (rows[:, -1] > 1).float()
    return rows


def update_sb3(model: SAC, batch: torch.Tensor, noise: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """SB3's own update, with the batch and the actors' draws given."""
    draws = iter(noise.split(32))
    names = ("observations", "actions", "next_observations", "rewards", "dones")
    data: Any = SimpleNamespace(**dict(zip(names, batch.split([11, 3, 11, 1, 1], 1), strict=True)), discounts=None)
    with monkeypatch.context() as patch:
        patch.setattr(model.replay_buffer, "sample", lambda *args, **kwargs: data)
        patch.setattr("torch.distributions.normal._standard_normal", lambda *args, **kwargs: next(draws))
        model.train(1, 32)


def test_its_updates_are_sb3s(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    model._setup_learn(1)
    learner, other = Learner(11, 3, SETTINGS), Learner(11, 3, SETTINGS)
    learner.start_from(model)
    for i in range(20):
        batch, noise = make_batch(i), torch.randn(64, 3, generator=torch.Generator().manual_seed(100 + i))
        update_sb3(model, batch, noise, monkeypatch)
        learner.update(batch, noise)
    other.start_from(model)
    torch.testing.assert_close(learner.vectors["critic"], other.vectors["critic"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(learner.vectors["actor"][:-1], other.vectors["actor"][:-1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(learner.vectors["actor"][-1:], model.log_ent_coef.detach(), rtol=1e-4, atol=1e-5)
    model.critic.load_state_dict(model.critic_target.state_dict())
    other.start_from(model)
    torch.testing.assert_close(learner.vectors["target"], other.vectors["target"], rtol=1e-3, atol=1e-4)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of seconds, not compiled."""
    for name, value in (SETTINGS | {"learning_starts": 40, "buffer_size": 150, "batch_size": 8}).items():
        monkeypatch.setitem(sac.SETTINGS, name, value)
    monkeypatch.setattr(sac, "EVERY", 20)
    monkeypatch.setattr(sac_state, "EVERY", 40)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def read_buffer(ladder: Path, steps: int) -> sac.Buffer:
    buffer = sac.Buffer(11, 3, 150)
    buffer.read(ladder / "buffer.f32", steps)
    return buffer


def test_the_buffer_holds_what_happened(tiny: None, tmp_path: Path) -> None:
    sac.train("Hopper-v5", 0, 100, tmp_path)
    sac.train("Hopper-v5", 0, 200, tmp_path)  # goes on, and round the buffer
    rows = read_buffer(tmp_path, 200).rows
    ordered = np.concatenate([rows[50:], rows[:50]])
    assert (abs(ordered[:, 11:14]) <= 1).all() and set(ordered[:, -1]) == {0.0, 1.0}
    follows = (ordered[:-1, 14:25] == ordered[1:, :11]).all(1)
    np.testing.assert_array_equal(follows | (np.arange(50, 199) == 99), ordered[:-1, -1] == 0)
    assert [path.name for path in tmp_path.glob("state-*")] == ["state-200.safetensors"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_training_saved_and_the_same_command_goes_on(
    number: int, tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    ladder, sample = tmp_path / "ladder", sac.Buffer.sample
    words = f"--algo sac -n 80 --ladder {ladder} --folder {tmp_path}"
    monkeypatch.setattr(sys, "argv", ["train.py", *words.split()])

    def signalled(self: sac.Buffer, *args: Any) -> torch.Tensor:
        if self.n_added == 45:
            signal.raise_signal(number)
        return sample(self, *args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sac.Buffer, "sample", signalled)
        train_behavior()
    assert ended.value.code == 128 + number
    assert "to resume, run the same command: " in (line := capsys.readouterr().err) and line.endswith(f" {words}\n")
    assert json.loads((ladder / "state.json").read_text())["steps"] == 45
    monkeypatch.setattr(train_module, "score_ladder", lambda *args: {})
    monkeypatch.setattr(train_module, "write", lambda *args: None)
    train_behavior()
    assert [row[0] for row in json.loads((ladder / "curve.json").read_text())] == [20, 40, 45, 60, 80]
    assert json.loads((ladder / "state.json").read_text())["n_updates"] == 40


def test_a_kept_training_goes_on_elsewhere(tiny: None, tmp_path: Path) -> None:
    here, folder, there = tmp_path / "here", tmp_path / "folder", tmp_path / "there"
    here.mkdir()
    sac.train("Hopper-v5", 0, 140, here)
    sac_state.keep(folder, here)
    sac_state.keep(folder, here)  # what an earlier call kept does not count as a rung
    training = folder / "training"
    assert sorted(path.name for path in training.iterdir()) == [
        "sac_0000080.safetensors",
        "sac_0000120.safetensors",
        "sac_0000140.safetensors",
        "state.json",
        "state.safetensors",
    ]
    sac_state.restore("Hopper-v5", 0, folder, there)
    states = [load_file(ladder / "state-140.safetensors") for ladder in (here, there)]
    assert states[0].keys() == states[1].keys() and all((states[0][name] == states[1][name]).all() for name in states[0])
    rows, others = read_buffer(there, 140).rows[:140], read_buffer(here, 140).rows[:140]
    assert abs(rows[:, 11:14]).max() <= 1 and rows[:, 11:14].std() > 0.3
    np.testing.assert_allclose(rows[:, :25].std(0), others[:, :25].std(0), rtol=1.0, atol=0.1)
    sac_state.restore("Hopper-v5", 0, folder, there)  # what is there already stays
    sac.train("Hopper-v5", 0, 160, there)
    assert {path.stem for path in there.glob("[0-9]*")} == {"80", "120", "140", "160"}
    assert [row[0] for row in json.loads((there / "curve.json").read_text())] == [20, 40, 60, 80, 100, 120, 140, 160]
    assert json.loads((there / "state.json").read_text()) == {"steps": 160, "n_updates": 120, "file": "state-160.safetensors"}
