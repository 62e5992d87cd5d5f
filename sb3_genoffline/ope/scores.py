"""
Cheap scores of a policy and a Q-function on data, as d3rlpy's users know them, on whole episodes and with terminals right.

``value(observations, actions) -> (B,)`` is Q, ``act(observations) -> (B, A)`` the policy, both in the data's units: of an
:class:`~sb3_genoffline.ope.fqe.FQE` ``lambda s, a: fqe.predict_value(s, a).mean(0)``, of an agent ``agent.predict(s)[0]``.
"""

from collections.abc import Callable

import numpy as np

from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.sequences import returns_to_go
from sb3_genoffline.ope.acting import actions_of, one_each

Value = Callable[[np.ndarray, np.ndarray], np.ndarray]
Act = Callable[[np.ndarray], np.ndarray]


def _q(value: Value, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    return one_each(value(observations, actions), len(observations), "value")


def _chosen(act: Act, observations: np.ndarray, dataset: OfflineDataset) -> np.ndarray:
    return actions_of(act(observations), dataset, len(observations), "act")


def initial_state_value(value: Value, act: Act, dataset: OfflineDataset) -> float:
    """E Q(s_0, π(s_0)) over the first states of episodes. (d3rlpy takes those of windows of 1,024 rows.)"""
    first = dataset.observations[dataset.episode_starts]
    return float(_q(value, first, _chosen(act, first, dataset)).mean())


def average_value(value: Value, act: Act, dataset: OfflineDataset) -> float:
    """E Q(s, π(s)) over all rows."""
    return float(_q(value, dataset.observations, _chosen(act, dataset.observations, dataset)).mean())


def soft_opc(value: Value, dataset: OfflineDataset, threshold: float) -> float:
    """
    Soft off-policy classification (Irpan et al. 2019): how far Q of the rows of successful episodes lies above that of all.

    :param value: Q
    :param dataset: episodes
    :param threshold: return from which on an episode is a success
    :return: nan if no episode is
    """
    q = _q(value, dataset.observations, dataset.actions)
    good = np.repeat(dataset.episode_returns() >= threshold, dataset.episode_lengths())
    return float(q[good].mean() - q.mean()) if good.any() else float("nan")


def td_error(value: Value, act: Act, dataset: OfflineDataset, gamma: float) -> float:
    """E (Q(s, a) − r − γ·m·Q(s', π(s')))²; a termination has no following value, a time-out has one."""
    following = _q(value, dataset.next_observations, _chosen(act, dataset.next_observations, dataset))
    target = dataset.rewards + gamma * ~dataset.terminations * following
    return float(np.square(_q(value, dataset.observations, dataset.actions) - target).mean())


def discounted_advantage_sum(value: Value, act: Act, dataset: OfflineDataset, gamma: float) -> float:
    """
    E over rows t of Σ_{k ≥ t} γ^(k−t)·(Q(s_k, a_k) − Q(s_k, π(s_k))) to the episode's end; the smaller, the more the policy
    improves on the data.
    """
    chosen = _q(value, dataset.observations, _chosen(act, dataset.observations, dataset))
    advantages = _q(value, dataset.observations, dataset.actions) - chosen
    return float(returns_to_go(advantages, dataset.episode_ends, gamma).mean())


def action_difference(act: Act, dataset: OfflineDataset) -> float:
    """E ‖a − π(s)‖², in squared units of the actions."""
    return float(np.square(dataset.actions - _chosen(act, dataset.observations, dataset)).sum(axis=1).mean())
