"""A small agent whose phases last a few steps, and a callback that writes down what happens in them."""

import functools
import sys
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback

sys.path.append(str(Path(__file__).parents[1] / "common"))
from worlds import make_agent, make_dataset, snapshot

from sb3_genoffline.common.fitting import Fit, FitListener
from sb3_genoffline.qdq import QDQ

N_TEACHER, N_DISTILLATION, N_POLICY = 5, 7, 3
PHASES = {"teacher": N_TEACHER, "distillation": N_DISTILLATION}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "as released": {"cd_init": "random", "cd_first_index": 1, "cd_ema_every": 2, "full_coverage": True},
    "average of whitened observations": {"cd_average": True, "normalize_observations": True, "cd_ema": 0.3, "cd_ema_every": 1},
}


def make(*env: Any, **changes: Any) -> QDQ:
    model = make_agent("qdq", *env, **({"teacher_steps": N_TEACHER, "cd_steps": N_DISTILLATION} | changes))
    assert isinstance(model, QDQ)
    return model


@functools.cache
def uninterrupted(variant: str) -> dict[str, bytes]:
    """Snapshot of an agent that has gone through all phases in one call."""
    return snapshot(make(**VARIANTS[variant]).learn_offline(make_dataset(), N_POLICY))


def weights(module: th.nn.Module) -> dict[str, th.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(th.equal(tensor, second[name]) for name, tensor in first.items())


class Diary(BaseCallback, FitListener):
    """
    Writes down what happens; may stop the training once, or do something, at a step of a phase.

    :param at: (phase, step) where ``action`` is called
    :param action: whose result is returned; None stops the training there
    """

    def __init__(self, at: tuple[str, int] | None = None, action: Any = None) -> None:
        super().__init__()
        self.at, self.action = at, action
        self.events: list[tuple[str, str, int]] = []

    def on_fit_start(self, phase: Fit) -> None:
        self.events.append(("start", phase.name, phase.step))

    def on_fit_step(self, phase: Fit, metrics: dict[str, float]) -> bool:
        self.events.append(("step", phase.name, phase.step))
        if (phase.name, phase.step) != self.at:
            return True
        return False if self.action is None else self.action(phase)

    def on_fit_end(self, phase: Fit) -> None:
        self.events.append(("end", phase.name, phase.step))

    def _on_step(self) -> bool:
        self.events.append(("step", "policy", self.num_timesteps))
        return True


def expected_events(n_policy: int, **phases: int) -> list[tuple[str, str, int]]:
    events = []
    for name, n in phases.items():
        events += [("start", name, 0), *(("step", name, i + 1) for i in range(n)), ("end", name, n)]
    return [*events, *(("step", "policy", i + 1) for i in range(n_policy))]
