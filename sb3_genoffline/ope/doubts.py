"""What makes one doubt an estimate: how far the data carry it, and a sentence for each way in which they do not."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch as th

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.data.blocks import row_blocks
from sb3_genoffline.data.transforms import scale_actions
from sb3_genoffline.ope.acting import TargetPolicy
from sb3_genoffline.ope.behaviour import EpisodeValues
from sb3_genoffline.ope.fqe import FQE, Estimate

POOL_ROWS, QUERY_ROWS, NEIGHBORS, USUAL = 20_000, 2_000, 20, 0.95
_FEW_EPISODES, _LARGE_DRIFT, _MUCH_CLIPPED, _OFTEN_FAR, _DISAGREE, _SLACK = 10.0, 0.1, 0.05, 0.25, 2.0, 0.01
_NO_WIDTH, _ROUNDING = 0.5, 1e-6


@dataclass(frozen=True)
class Doubt:
    """
    :param short: a few words with the number, for a picture
    :param sentence: the same, and what to do
    """

    short: str
    sentence: str


class Measured(NamedTuple):
    """
    How far the data carry an estimate, on rows that were not fitted.

    :param far: share of states in which the policy's action is farther from what was done in the nearest states than 95% of
        the logged actions are: 0.05 for the policy that acted
    :param beyond: share of states whose value by FQE no sequence of the data's rewards can give
    :param disagreement: how much more FQE's members differ at the policy's actions than at the logged ones, as a factor; nan
        of one member
    """

    far: float
    beyond: float
    disagreement: float


def measure(fqe: FQE, dataset: OfflineDataset, seed: int = 0) -> Measured:
    """
    :param fqe: fitted Q-functions of a policy
    :param dataset: rows that were not fitted
    :param seed: of the sample of rows
    """
    rows = _sample(len(dataset), QUERY_ROWS, seed)
    states, actions = dataset.observations[rows], dataset.actions[rows]
    far = far_share(fqe.policy.with_seed(seed), fqe.dataset, states, actions, seed)
    here, there = fqe.state_values(states), fqe.predict_value(states, actions)  # (H, B)
    low, high = fqe.attainable
    slack = _SLACK * max(abs(low), abs(high))
    if high == low:  # every policy is worth the same: what the fit has not reached yet is no extrapolation
        slack = _NO_WIDTH * max(abs(low), fqe.reward_scale / (1 - fqe.gamma))
    values = here.mean(axis=0)
    beyond = float(((values < low - slack) | (values > high + slack)).mean())
    if len(here) < 2:
        return Measured(far, beyond, float("nan"))
    at_policy, at_data = (float(q.std(axis=0, ddof=1).mean()) for q in (here, there))
    return Measured(far, beyond, at_policy / at_data if at_data > 0 else float("nan"))


def far_share(policy: TargetPolicy, dataset: OfflineDataset, states: np.ndarray, actions: np.ndarray, seed: int = 0) -> float:
    """
    See :class:`Measured`. Distances are those of actions scaled to [−1, 1], to the nearest of the actions that the
    20 nearest states of a sample had.

    :param policy: that is judged
    :param dataset: whose rows are the neighbours
    :param states: (B, S) of other episodes
    :param actions: (B, A) that were logged there
    :param seed: of the sample
    """
    pool = _sample(len(dataset), POOL_ROWS, seed)
    mean, std = dataset.observations[pool].mean(axis=0), dataset.observations[pool].std(axis=0)
    known, asked = (
        th.as_tensor((observations - mean) / np.where(std > 0, std, 1.0))
        for observations in (dataset.observations[pool], states)
    )
    done = scale_actions(dataset.actions[pool], dataset.action_space)
    chosen, logged = policy.actions(states)[:, 0], scale_actions(actions, dataset.action_space)
    theirs, ours = np.empty(len(states)), np.empty(len(states))
    for block in row_blocks(len(states), 256):
        near = th.cdist(asked[block], known).topk(min(NEIGHBORS, len(pool)), largest=False).indices.numpy()
        for distances, action in ((theirs, logged), (ours, chosen)):
            distances[block] = np.linalg.norm(done[near] - action[block, None], axis=2).min(axis=1)
    return float((ours > np.quantile(theirs, USUAL)).mean())


def _sample(n: int, most: int, seed: int) -> np.ndarray:
    """Rows, in their order."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def doubts_of(
    value: Estimate,
    drift: float,
    clipped: float,
    measured: Measured,
    data: EpisodeValues,
    wdr: float | None = None,
    ess: float | None = None,
) -> list[Doubt]:
    """
    :param value: by FQE
    :param drift: of it, over the last tenth of the fit; nan of a fit too short to have one
    :param clipped: share of the last targets beyond what is attainable
    :param measured: how far the data carry it
    :param data: of the logged episodes
    :param wdr: value by weighted doubly robust estimation, if it was asked for
    :param ess: effective sample size behind it
    """
    found = []

    def doubt(short: str, sentence: str) -> None:
        found.append(Doubt(short, sentence))

    if measured.far > _OFTEN_FAR:
        doubt(
            f"{measured.far:.0%} far from the data",
            f"in {measured.far:.0%} of the states its action is farther from what was done there than 95% of the logged ones "
            "(5% would be usual): the data say little about it. Take a policy that stays closer, or get more data.",
        )
    if measured.beyond > _MUCH_CLIPPED:
        doubt(
            f"{measured.beyond:.0%} of values unattainable",
            f"{measured.beyond:.0%} of its values lie beyond what the data's rewards can add up to: FQE extrapolates. Keep "
            "clip_targets on, fit longer, or don't read its value.",
        )
    if clipped > _MUCH_CLIPPED:
        doubt(
            f"{clipped:.0%} of targets clipped",
            f"{clipped:.0%} of the targets lie beyond what is attainable: its actions are unlike the data's. Don't read its "
            "value, which is mostly the bound.",
        )
    if value.value > data.best + _ROUNDING * abs(data.best):
        doubt(
            f"above the best episode, {data.best:.4g}",
            f"its value, {value.value:.4g}, is above that of the best logged episode, {data.best:.4g}: nobody has earned as "
            "much. Fit longer; if it stays there, believe the order at most, not the number.",
        )
    if measured.disagreement > _DISAGREE:
        doubt(
            f"members differ {measured.disagreement:.1f} times",
            f"the members differ {measured.disagreement:.1f} times as much at its actions as at the logged ones: the data "
            "don't fix its value. Read the lower end of the interval.",
        )
    if np.isnan(drift):
        doubt(
            "too short a fit",
            "the fit is too short to say whether the estimate still moves: fit longer (more updates).",
        )
    elif drift > _LARGE_DRIFT:
        doubt(
            f"still moved by {drift:.0%}",
            f"the estimate still moved by {drift:.0%} in the last tenth of the fit: fit longer (more updates).",
        )
    if ess is not None and ess < _FEW_EPISODES:
        doubt(
            f"WDR of {ess:.1f} episodes",
            f"WDR rests on {ess:.1f} episodes: do not read it alone. More episodes, or a larger kernel_width, help.",
        )
    elif wdr is not None and not value.interval[0] <= wdr <= value.interval[1]:
        doubt(
            f"WDR says {wdr:.4g}",
            f"WDR says {wdr:.4g}, outside of FQE's interval: one of them is wrong. Look at the other warnings, and try it "
            "with care.",
        )
    return found
