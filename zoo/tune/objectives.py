"""What a trial's agent is worth: by an offline estimate on episodes that it has not seen, or by a simulator."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.data.transforms import reward_affine, scale_actions
from sb3_genoffline.errors import UserError
from sb3_genoffline.ope import FQE, scores
from sb3_genoffline.ope.acting import TargetPolicy
from sb3_genoffline.ope.report import split_episodes
from sb3_genoffline.ope.scores import Value

from ..runs.callbacks import StopWhenAsked
from ..runs.envs import env_factory
from ..runs.scoring import evaluate
from ..runs.stopping import StopSignals

Score = dict[str, Any]
"""``value``; of a simulator ``returns`` and ``lengths`` of the episodes and ``normalized_score``; ``seconds``."""
SIMULATOR = "simulator"
ON_THE_WAY = 4
"""A fit of FQE that only says who falls behind has this part of the updates."""


@dataclass(frozen=True)
class Objective:
    """
    :param what: it is, for people
    :param largest: whether the largest value is best; else the smallest
    :param critic: whether it asks the agent's own critic, which some agents lack
    """

    what: str
    largest: bool = True
    critic: bool = False


OBJECTIVES = {
    "fqe": Objective("value by fitted Q evaluation on held-out episodes"),
    "fqe-low": Objective("lower end of the 90% interval of that value"),
    "initial-value": Objective("the agent's own Q in first states of held-out episodes", critic=True),
    "soft-opc": Objective("the agent's own Q in the best quarter of held-out episodes, above that of all", critic=True),
    "action-distance": Objective("mean squared distance to the actions of held-out episodes", largest=False),
    SIMULATOR: Objective("mean return in the simulator"),
}


def own_critic(model: AnyAlgorithm) -> Value:
    """
    :param model: an agent
    :return: the mean of its critics, in units of the rewards as they were transformed
    :raises UserError: if it has none
    """
    policy = model.policy
    if not hasattr(policy, "critic"):
        raise UserError(f"{type(model).__name__} has no critic to ask: choose another --objective, such as fqe.")

    @th.no_grad()
    def value(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        states = policy.normalize_observations(th.as_tensor(np.array(observations), device=policy.device))
        scaled = scale_actions(np.array(actions), cast(spaces.Box, model.action_space))
        critic = cast(Callable[..., th.Tensor], policy.critic)
        return critic(states, th.as_tensor(scaled, device=policy.device)).mean(0).double().cpu().numpy()

    return value


def raw_critic(model: AnyAlgorithm) -> Value:
    """
    :param model: an agent that has been trained
    :return: as :func:`own_critic`, in units of the rewards as they are logged: exact where no episode terminates
    """
    info, value = model.dataset_info, own_critic(model)
    scale, shift = float(info.get("reward_scale", 1.0)), float(info.get("reward_shift", 0.0))
    offset = shift / (1 - model.gamma) if shift else 0.0
    return lambda observations, actions: (value(observations, actions) - offset) / scale


def check_judged(objective: str, model: AnyAlgorithm) -> None:
    """
    :param objective: name in :data:`OBJECTIVES`
    :param model: an agent of the kind to be judged, which need not be trained
    :raises UserError: if such agents can't be judged by it
    """
    if objective != SIMULATOR:
        TargetPolicy(model, cast(spaces.Box, model.action_space))
    if OBJECTIVES[objective].critic:
        own_critic(model)


class Judge:
    """
    Scores agents in one way.

    :param settings: ``objective``, and what it needs of ``held_out``, ``gamma``, ``fit_steps``, ``episodes``, ``eval_seed``
    :param data: all of the data
    :param seed: of the split and of all that is drawn
    :param device: of the networks
    :param env: to evaluate in (None: the data's own)
    :param env_kwargs: its arguments
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        data: OfflineDataset,
        seed: int,
        device: str,
        env: str | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings, self.data, self.seed, self.device = settings, data, seed, device
        self.env, self.env_kwargs = env, env_kwargs
        self.training, self.held_out = data, data
        if settings["objective"] != SIMULATOR:
            self.training, self.held_out = split_episodes(data, settings["held_out"], seed)

    def score(self, model: AnyAlgorithm, stop: StopSignals, final: bool = True) -> Score | None:
        """
        :param model: an agent
        :param stop: breaks a fit off
        :param final: whether its training is at its end; if not, a fit is shorter
        :return: None if it was broken off
        """
        started, objective, found = time.perf_counter(), self.settings["objective"], None
        if objective in ("fqe", "fqe-low"):
            found = self._fqe(model, stop, final)
        elif objective == SIMULATOR:
            found = self.simulate(model, self.settings["episodes"], self.settings["eval_seed"])
        else:
            found = {"value": self._cheap(model)}
        return found and {**found, "seconds": round(time.perf_counter() - started, 2)}

    def check(self, model: AnyAlgorithm) -> None:
        """
        :param model: an agent of the kind to be judged, which need not be trained
        :raises UserError: if its settings and the data leave no value to estimate
        """
        objective = self.settings["objective"]
        try:
            if objective in ("fqe", "fqe-low"):
                self._make_fqe(model)
        except UserError as error:
            raise UserError(f"--objective {objective} can't judge these trials: {error}") from None
        if OBJECTIVES[objective].critic and model.gamma == 1 and reward_affine(self.training, model.reward_transform)[1]:
            raise UserError(
                f"--objective {objective} can't judge trials with gamma=1 and reward_transform={model.reward_transform}, "
                "which shifts rewards: use a gamma below 1, or another transform."
            )

    def _make_fqe(self, model: AnyAlgorithm) -> FQE:
        starts = self.data.observations[self.data.episode_starts]
        gamma, names = self.settings["gamma"], {"seed": self.seed, "device": self.device, "initial_observations": starts}
        return FQE(model, self.held_out, gamma=gamma, **names)

    def _fqe(self, model: AnyAlgorithm, stop: StopSignals, final: bool) -> Score | None:
        fqe = self._make_fqe(model)
        steps = self.settings["fit_steps"]
        fqe.fit(steps if final else max(1, steps // ON_THE_WAY), callback=StopWhenAsked(stop), log_interval=None)
        if stop.number is not None:
            return None
        found = fqe.estimate()
        low = self.settings["objective"] == "fqe-low"
        return {"value": found.interval[0] if low else found.value, "interval": list(found.interval)}

    def _cheap(self, model: AnyAlgorithm) -> float:
        model.policy.seed_acting(self.seed)

        def act(observations: np.ndarray) -> np.ndarray:
            return model.predict(observations, deterministic=True)[0]

        if self.settings["objective"] == "action-distance":
            return scores.action_difference(act, self.held_out)
        if self.settings["objective"] == "initial-value":
            return scores.initial_state_value(raw_critic(model), act, self.held_out)
        good = float(np.quantile(self.held_out.episode_returns(), 0.75))
        return scores.soft_opc(raw_critic(model), self.held_out, good)

    def simulate(self, model: AnyAlgorithm, episodes: int, eval_seed: int) -> Score:
        """
        :param model: an agent
        :param episodes: to run
        :param eval_seed: of the episodes
        """
        make = env_factory(self.data, self.env, self.env_kwargs)
        found = evaluate(model, make, episodes, eval_seed=eval_seed)
        by_success = found["success_rate"] is not None
        return {
            "value": found["normalized_score"] if by_success else found["mean_reward"],
            "returns": found["returns"],
            "lengths": found["lengths"],
            "normalized_score": found["normalized_score"],
        }
