"""What the logged episodes are worth, and what was yet to come where a time-out cut them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.ope.fqe import FQE

_NEGLIGIBLE = 1e-3
"""Mean weight γ^T of what follows the time-outs below which it is left out."""


@dataclass(frozen=True, eq=False)
class EpisodeValues:
    """
    :param returns: (E,) discounted, of what was logged
    :param following: (E,) discounted, what follows the time-out that cut an episode; 0 where nothing does
    """

    returns: np.ndarray
    following: np.ndarray

    @property
    def logged(self) -> float:
        """Mean of what was logged."""
        return float(self.returns.mean())

    @property
    def is_cut(self) -> bool:
        """Whether something follows the time-outs."""
        return bool(self.following.any())

    @cached_property
    def mean(self) -> float:
        """Of the whole."""
        return float((self.returns + self.following).mean())

    @property
    def best(self) -> float:
        """The largest one."""
        return float((self.returns + self.following).max())


class _Still:
    """
    One action whatever it sees. On data whose actions are all this one, its Q-function is the value of states under the policy
    that acted.
    """

    def __init__(self, action: np.ndarray) -> None:
        self.action = action

    def predict(self, observations: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, None]:
        return np.broadcast_to(self.action, (len(observations), *self.action.shape)), None


def discounted_returns(dataset: OfflineDataset, gamma: float) -> np.ndarray:
    """
    :param dataset: episodes
    :param gamma: discount
    :return: (E,) Σ_t γ^t·r_t of each
    """
    steps = np.arange(len(dataset)) - np.repeat(dataset.episode_starts, dataset.episode_lengths())
    discounted = gamma**steps * dataset.rewards.astype(np.float64)
    return np.add.reduceat(discounted, dataset.episode_starts)


def episode_values(
    dataset: OfflineDataset,
    gamma: float,
    gradient_steps: int = 200_000,
    seed: int = 0,
    progress_bar: bool = False,
    **fqe_arguments: Any,
) -> EpisodeValues:
    """
    Σ_t γ^t·r_t of each episode and, where a time-out has cut it after T steps, γ^T·V(s_T): the patient lived on. V is the
    value of the policy that acted, by FQE on rows without their actions. It is only fitted if that weight matters: 1000 steps
    with γ = 0.99 leave 4e-5.

    :param dataset: episodes
    :param gamma: discount
    :param gradient_steps: updates of the fit
    :param seed: of the fit
    :param progress_bar: show one for the fit
    :param fqe_arguments: of :class:`~sb3_genoffline.ope.FQE`
    """
    returns, last = discounted_returns(dataset, gamma), dataset.episode_ends - 1
    weights = np.where(dataset.terminations[last], 0.0, gamma ** dataset.episode_lengths())
    if weights.mean() < _NEGLIGIBLE:
        return EpisodeValues(returns, np.zeros_like(returns))
    box = dataset.action_space
    action = ((box.low.astype(np.float64) + box.high) / 2).astype(np.float32)
    still = dataset.replace(actions=np.repeat(action[None], len(dataset), axis=0))
    fqe = FQE(_Still(action), still, gamma=gamma, seed=seed, **fqe_arguments).fit(gradient_steps, progress_bar=progress_bar)
    return EpisodeValues(returns, weights * fqe.state_values(dataset.next_observations[last]).mean(axis=0))
