"""What the judged policies earn in the simulator, and how good the judge was: DOPE's protocol (Fu et al. 2021)."""

from collections.abc import Mapping
from math import comb
from typing import Any, NamedTuple

import numpy as np

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.ope import OfflineReport
from sb3_genoffline.ope.metrics import absolute_error, rank_correlation, regret

from ..runs.envs import EnvFactory
from ..runs.scoring import EVAL_SEED

ESTIMATORS = {"fqe": "FQE", "wdr": "WDR", "critic": "the agent's own critic"}
_MOST_AT_ONCE = 50


class Truth(NamedTuple):
    """
    :param value: mean discounted return of the episodes
    :param error: its standard error
    :param mean_return: without discount
    :param left: mean weight γ^T of what follows the ends that are time-outs, which ``value`` lacks
    """

    value: float
    error: float
    mean_return: float
    left: float


def truth_of(returns: np.ndarray, discounted: np.ndarray, left: np.ndarray) -> Truth:
    """
    :param returns: (n,) of episodes
    :param discounted: (n,) the same with discount
    :param left: (n,) γ^T of those that a time-out ended, else 0
    """
    error = float(discounted.std(ddof=1) / np.sqrt(len(discounted))) if len(discounted) > 1 else 0.0
    return Truth(float(discounted.mean()), error, float(returns.mean()), float(left.mean()))


def play(model: AnyAlgorithm, make: EnvFactory, episodes: int, gamma: float, seed: int = EVAL_SEED) -> Truth:
    """
    Run an agent, deterministically.

    :param model: the agent
    :param make: makes an environment
    :param episodes: of it; environment i is seeded with ``seed + i``
    :param gamma: discount
    :param seed: of the environments and of the agent's sampling
    """
    totals, discounted, left = np.zeros(episodes), np.zeros(episodes), np.zeros(episodes)
    model.policy.seed_acting(seed)
    for first in range(0, episodes, _MOST_AT_ONCE):
        numbers = [*range(first, min(first + _MOST_AT_ONCE, episodes))]
        envs = {i: make() for i in numbers}
        seen, weight = {i: env.reset(seed=seed + i)[0] for i, env in envs.items()}, 1.0
        while seen:
            actions, _ = model.predict(np.stack([*seen.values()]), deterministic=True)
            for i, action in zip([*seen], actions, strict=True):
                seen[i], reward, terminated, truncated, _ = envs[i].step(action)
                totals[i] += float(reward)
                discounted[i] += weight * float(reward)
                if terminated or truncated:
                    left[i] = 0.0 if terminated else weight * gamma
                    del seen[i]
            weight *= gamma
        for env in envs.values():
            env.close()
    return truth_of(totals, discounted, left)


def estimates_of(
    report: OfflineReport, others: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, dict[str, float]]:
    """
    :param report: of judged policies
    :param others: further estimates, by name of the estimator, then of the policy
    :return: by name of the estimator, then of the policy
    """
    wdr = {name: found.wdr for name, found in report.judgements.items() if found.wdr is not None}
    return {
        "fqe": report.values(),
        **({"wdr": wdr} if wdr else {}),
        **{kind: dict(found) for kind, found in (others or {}).items()},
    }


_FIGURES = ("rank_correlation", "regret_at_1", "regret_at_3", "absolute_error", "absolute_error_dope")


def figures_of(estimates: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """
    :param estimates: (P,)
    :param truth: (P,)
    :return: DOPE's figures, of those policies whose two values are finite; nan if there is none
    """
    known = np.isfinite(estimates) & np.isfinite(truth)
    if not known.any():
        return {"policies": 0} | dict.fromkeys(_FIGURES, float("nan"))
    estimates, truth = estimates[known], truth[known]
    return {
        "policies": len(truth),
        "rank_correlation": rank_correlation(estimates, truth),
        "regret_at_1": regret(estimates, truth, 1),
        "regret_at_3": regret(estimates, truth, 3),
        "absolute_error": absolute_error(estimates, truth, rescaled=False),
        "absolute_error_dope": absolute_error(estimates, truth),
    }


def chance(truth: np.ndarray, k: int) -> float:
    """
    :param truth: (P,)
    :param k: policies that are drawn
    :return: mean regret@k of a choice without any estimate
    """
    values = np.sort(truth)[::-1]
    n, k = len(values), min(k, len(values))
    best = sum(float(value) * comb(n - 1 - i, k - 1) / comb(n, k) for i, value in enumerate(values))  # i is the best drawn
    return float((values[0] - best) / np.ptp(values)) if np.ptp(values) > 0 else 0.0


def compared(
    report: OfflineReport, truth: Mapping[str, Truth], others: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, Any]:
    """
    How good the judge was, as plain data.

    :param report: of judged policies
    :param truth: by name
    :param others: further estimates, perhaps of some policies alone
    """
    found = {}
    for kind, values in estimates_of(report, others).items():
        of_truth = np.array([truth[name].value for name in values])
        found[kind] = figures_of(np.array([*values.values()]), of_truth)
    all_values = np.array([each.value for each in truth.values()])
    by_chance = {f"regret_at_{k}": chance(all_values, k) for k in (1, 3)}
    held = [
        low <= truth[name].value <= high for name, judged in report.judgements.items() for low, high in [judged.fqe.interval]
    ]
    return {
        "truth": {name: each._asdict() for name, each in truth.items()},
        "estimates": others or {},
        "figures": found,
        "chance": by_chance,
        "intervals_that_hold": float(np.mean(held)),
    }


def table(found: Mapping[str, Any]) -> str:
    """:param found: as :func:`compared` returns it"""
    lines = [f"{'':24}  {'policies':>8}  {'rank corr.':>10}  {'regret@1':>8}  {'regret@3':>8}  {'error':>8}  {'of range':>8}"]
    for kind, figures in found["figures"].items():
        lines.append(
            f"{ESTIMATORS[kind]:24}  {figures['policies']:8}  {figures['rank_correlation']:10.2f}  "
            f"{figures['regret_at_1']:8.2f}  {figures['regret_at_3']:8.2f}  {figures['absolute_error']:8.3g}  "
            f"{figures['absolute_error_dope']:8.2f}"
        )
    chosen = found["chance"]
    lines.append(f"{'a choice by chance':24}  {'':8}  {'':10}  {chosen['regret_at_1']:8.2f}  {chosen['regret_at_3']:8.2f}")
    lines.append(f"{found['intervals_that_hold']:.0%} of FQE's intervals hold the truth")
    left = max(each["left"] for each in found["truth"].values())
    if left > 0.02:
        lines.append(f"The simulator's episodes end while up to {left:.0%} of the weight is left: its values lack that.")
    return "\n".join(lines)
