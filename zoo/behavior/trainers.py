"""What trains behaviour policies, and what is asked of the actors of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import evolution, ppo, sac, tqc, trpo
from .rungs import Standard

OWN_NOISE: dict[str, str | float] = {"deterministic": "none", "stochastic": "policy"}
EXPERT = Standard(OWN_NOISE, "stochastic", expert=90.0, n_episodes=100)  # of what trains an actor on: a fall is rare


@dataclass(frozen=True)
class Trainer:
    """How one algorithm makes a ladder, and what is asked of its actors; ``trains_on``: it needs an actor to begin with."""

    train: Callable[..., None]
    settings: dict[str, Any]
    n_timesteps: int
    standard: Standard
    library: str = "sb3-contrib"
    subfolder: str = ""
    trains_on: bool = False

    @property
    def n_uniform(self) -> int:
        """Steps of uniform actions before the first actor acts; TQC's are left to its untrained actor."""
        return int(self.settings["learning_starts"]) if self.train is sac.train else 0


TRAINERS = {
    # its own spread would make TRPO's expert a medium policy, so the expert acts with its mean plus a little noise
    "trpo": Trainer(
        trpo.train,
        trpo.SETTINGS | {"normalize": True},
        300_000,
        Standard({"deterministic": "none", "little_noise": 0.1, "half_noise": 0.3, "stochastic": "policy"}, "little_noise"),
    ),
    "tqc": Trainer(tqc.train, tqc.SETTINGS, 700_000, Standard(OWN_NOISE, "stochastic")),
    "sac": Trainer(
        sac.train,
        sac.SETTINGS,
        300_000,
        Standard(OWN_NOISE, "stochastic", medium=(30.0, 45.0), expert=None),
        library="zoo.behavior.sac",
        subfolder="sac",
    ),
    "ppo": Trainer(ppo.train, ppo.SETTINGS, 5_000_000, EXPERT, "stable-baselines3", "sac", trains_on=True),
    "es": Trainer(evolution.train, evolution.SETTINGS, 60_000_000, EXPERT, "zoo.behavior.evolution", "sac", trains_on=True),
}
RESUMING = ("sac", "tqc")  # whose trainings go on where they ended; the others begin again
