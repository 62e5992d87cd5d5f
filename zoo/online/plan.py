"""Who goes on online, and how."""

from dataclasses import dataclass
from typing import Any

SCRATCH = "sac"
"""SAC from scratch, beside which the others are held."""
WAYS = {
    "kept": "offline rows stay, all rows are equally likely",
    "dropped": "offline rows are left out",
    "half": "offline rows stay, half of each batch is online",
}
ONLINE: dict[str, Any] = {"learning_rate": 3e-4, "critic_learning_rate": 3e-4, "lr_decay_steps": None, "learning_starts": 0}
"""Set where an agent goes online: the profile's rates have fallen to 0 by then."""
EXPLORING: dict[str, dict[str, Any]] = {"dac": {"acting_noise_scale": 1.0}}
"""Set from the start: exploration draws with the noise of acting, of which the profile ``cpu`` leaves little."""
SAC_SETTINGS: dict[str, Any] = {
    "learning_rate": 3e-4,
    "batch_size": 128,
    "learning_starts": 5_000,
    "policy_kwargs": {"net_arch": [256, 256]},
}


@dataclass(frozen=True)
class Plan:
    """
    :param dataset: id
    :param algorithms: that go on online
    :param updates: of each before
    :param steps: in the environment
    :param every: steps between two evaluations, after which a run can be stopped and goes on; updates before
    :param episodes: of each evaluation
    :param seed: of all trainings
    :param profile: of the hyper-parameters
    """

    dataset: str = "genoffline/hopper/medium-v1"
    algorithms: tuple[str, ...] = ("td3_bc", "iql", "dac")
    updates: int = 30_000
    steps: int = 50_000
    every: int = 5_000
    episodes: int = 10
    seed: int = 0
    profile: str = "cpu"

    @property
    def runs(self) -> list[tuple[str, str]]:
        """Algorithm and way of each run, in their order."""
        first = [*((algo, "kept") for algo in self.algorithms), (SCRATCH, "kept")]
        return first + [(algo, way) for way in WAYS if way != "kept" for algo in self.algorithms]
