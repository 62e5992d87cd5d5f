"""Several policies judged on the same data, ranked, with what makes one doubt it."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from sb3_genoffline.common.arguments import Bounds, Count, nearest
from sb3_genoffline.common.checked_calls import checked
from sb3_genoffline.common.conforming import misfit
from sb3_genoffline.data import OfflineDataset, load_dataset
from sb3_genoffline.errors import UnknownArgumentError, UserError
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.ope import metrics
from sb3_genoffline.ope.behaviour import EpisodeValues, episode_values
from sb3_genoffline.ope.doubts import Doubt, Measured, doubts_of, measure
from sb3_genoffline.ope.fqe import FQE, Estimate
from sb3_genoffline.ope.kept_fits import fit_and_keep, kept_fit
from sb3_genoffline.ope.metrics import Level
from sb3_genoffline.ope.weighting import ImportanceWeighting

_ALIKE, _FEWEST_RANKED = 0.5, 3
HeldOut = Annotated[float, Bounds(0.0, 1.0, open_low=True, open_high=True)]
_GIVEN = {
    **{name: f"evaluate_offline has been given the {name}: leave it out" for name in ("policy", "dataset")},
    **{name: f"all estimators have one {name}: give it to evaluate_offline itself" for name in ("gamma", "seed")},
}
_BY_FQE = {"deterministic": "all estimators judge one policy: give deterministic to evaluate_offline itself"}


@dataclass(frozen=True)
class Judgement:
    """
    What the data say about one policy.

    :param fqe: value by FQE
    :param drift: change of it over the last tenth of the fit, as a share
    :param clipped: share of FQE's targets beyond what is attainable, at the end
    :param held_out_td_error: of rows that were not fitted; nan without any
    :param measured: how far the data carry the estimate
    :param wdr: value by weighted doubly robust estimation; None if it was not asked for
    :param ess: effective sample size behind ``wdr``, in episodes, of the held-out ones
    :param doubts: why not to trust it
    """

    fqe: Estimate
    drift: float
    clipped: float
    held_out_td_error: float
    measured: Measured
    wdr: float | None = None
    ess: float | None = None
    doubts: list[Doubt] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """The doubts, a sentence each."""
        return [doubt.sentence for doubt in self.doubts]


@dataclass(frozen=True)
class OfflineReport:
    """
    Judgements by name, and the value of the data themselves.

    :param judgements: by name
    :param data: what the logged episodes are worth
    :param gamma: discount
    """

    judgements: dict[str, Judgement]
    data: EpisodeValues
    gamma: float

    @property
    def data_value(self) -> float:
        """What the data's own policy earns, what follows a time-out included: what a choice must beat."""
        return self.data.mean

    @property
    def agreement(self) -> float | None:
        """Rank correlation of FQE and WDR; None of fewer than two policies, or without WDR."""
        weighed = [found.wdr for found in self.judgements.values() if found.wdr is not None]
        if len(weighed) < max(2, len(self.judgements)):
            return None
        if not np.isfinite(weighed).all():  # of weights without bounds
            return float("nan")
        return metrics.rank_correlation(np.array([*self.values().values()]), np.array(weighed))

    @property
    def warnings(self) -> list[str]:
        """Of all policies together, sentences; each judgement has its own beside them."""
        alike = self.agreement
        if alike is None or len(self.judgements) < _FEWEST_RANKED or alike >= _ALIKE:
            return []
        return [
            f"FQE and WDR rank the policies alike by {alike:.2f} only (1 is the same order): try the best of both in reality, "
            "or get more data."
        ]

    def values(self) -> dict[str, float]:
        """FQE's values by name, in the order given."""
        return {name: judgement.fqe.value for name, judgement in self.judgements.items()}

    def best(self) -> str:
        """Name of the policy with the largest value."""
        return max(self.judgements, key=lambda name: self.judgements[name].fqe.value)

    def _with(self, truth: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(truth, Mapping):
            raise UserError(f"truth={short(truth)} must map the names of policies to values.")
        truth = _by_text(truth, "truth")
        missing = [name for name in self.judgements if name not in truth]
        if missing:
            raise UserError(f"The truth of {missing[0]!r} is missing: give one value for each policy that was judged.")
        for name in self.judgements:
            wrong = misfit(truth[name], float)
            if wrong is not None:
                raise UserError(f"The truth of {name!r}, {short(truth[name])}, {wrong}.")
        return np.array([*self.values().values()]), np.array([truth[name] for name in self.judgements], dtype=np.float64)

    def rank_correlation(self, truth: Mapping[str, float]) -> float:
        """
        Spearman's rank correlation of the estimates with true values.

        :param truth: values by name, with the same discount
        """
        return metrics.rank_correlation(*self._with(truth))

    def regret(self, truth: Mapping[str, float], k: int = 1) -> float:
        """
        What trying the k best by the estimates loses against the true best, as a share of the values' range.

        :param truth: values by name
        :param k: policies that one can afford to try
        """
        return metrics.regret(*self._with(truth), k)

    def absolute_error(self, truth: Mapping[str, float]) -> float:
        """
        Mean distance of the estimates from true values.

        :param truth: values by name, with the same discount; in units of the values
        """
        return metrics.absolute_error(*self._with(truth), rescaled=False)

    def table(self) -> str:
        """The policies from the best to the worst, and the data."""
        ranked = sorted(self.judgements.items(), key=lambda item: -item[1].fqe.value)
        width = max(len("the data"), *(len(name) for name in self.judgements))
        level = next(iter(self.judgements.values())).fqe.level
        weighed = any(found.wdr is not None for found in self.judgements.values())
        of_weights = f"  {'WDR':>9}  {'ESS':>6}" if weighed else ""
        lines = [f"{'policy':{width}}  {'value':>9}  {f'{level:.0%} interval':>20}{of_weights}  {'TD error':>9}"]
        for name, found in ranked:
            low, high = found.fqe.interval
            of_weights = "" if found.wdr is None else f"  {found.wdr:9.4g}  {found.ess:6.1f}"
            interval = f"{low:9.4g} … {high:.4g}"
            lines.append(f"{name:{width}}  {found.fqe.value:9.4g}  {interval:>20}{of_weights}  {found.held_out_td_error:9.3g}")
        cut = f"  ({self.data.logged:.4g} was logged, the rest follows time-outs)" if self.data.is_cut else ""
        lines.append(f"{'the data':{width}}  {self.data_value:9.4g}{cut}")
        lines += [f"{name}: {warning}" for name, found in ranked for warning in found.warnings]
        lines += self.warnings
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: what is not finite, as the drift of a very short fit, is None."""
        rows = {
            name: {
                "value": _finite(found.fqe.value),
                "interval": [_finite(bound) for bound in found.fqe.interval],
                "level": found.fqe.level,
                "spread": _finite(found.fqe.spread),
                "per_step": _finite(found.fqe.per_step),
                "drift": _finite(found.drift),
                "clipped": _finite(found.clipped),
                "held_out_td_error": _finite(found.held_out_td_error),
                "wdr": _finite(found.wdr),
                "ess": _finite(found.ess),
                **{measure: _finite(value) for measure, value in found.measured._asdict().items()},
                "warnings": found.warnings,
            }
            for name, found in self.judgements.items()
        }
        data = {"data_value": _finite(self.data_value), "data_logged": self.data.logged}
        return {
            "gamma": self.gamma,
            **data,
            "agreement": _finite(self.agreement),
            "policies": rows,
            "warnings": self.warnings,
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def n_held_out(dataset: OfflineDataset, share: float) -> int:
    """
    :param dataset: episodes
    :param share: of them that no fit sees
    :return: how many :func:`split_episodes` puts aside
    :raises UserError: if there is a single episode
    """
    n = dataset.n_episodes
    if n < 2:
        raise UserError("The dataset has a single episode: it can't be split into episodes to fit on and others to judge on.")
    return min(max(round(share * n), 1), n - 1)


def split_episodes(dataset: OfflineDataset, share: float, seed: int = 0) -> tuple[OfflineDataset, OfflineDataset]:
    """
    :param dataset: episodes
    :param share: of them that the second part has, at least one and not all
    :param seed: chooses them
    :return: two datasets without a common episode
    :raises UserError: if there is a single episode
    """
    n, n_second = dataset.n_episodes, n_held_out(dataset, share)
    order = np.random.default_rng(seed).permutation(n)
    return dataset.select_episodes(np.sort(order[n_second:])), dataset.select_episodes(np.sort(order[:n_second]))


@checked
def evaluate_offline(
    policies: Any,
    dataset: Any,
    *,
    estimators: tuple[str, ...] = ("fqe",),
    gamma: float | None = None,
    gradient_steps: Count = 200_000,
    held_out: HeldOut = 0.2,
    level: Level = 0.9,
    seed: Count = 0,
    progress_bar: bool = False,
    weighting: Mapping[str, Any] | None = None,
    fits: str | Path | None = None,
    **fqe_arguments: Any,
) -> OfflineReport:
    """
    What policies are worth, from logs alone: each is judged by a Q-function refitted to it (:class:`~sb3_genoffline.ope.FQE`),
    and on request by weighted doubly robust estimation on episodes that this Q-function has not seen.

    :param policies: an agent or policy, or several by name
    :param dataset: whatever :func:`~sb3_genoffline.data.load_dataset` takes
    :param estimators: ``"fqe"`` always; ``"wdr"`` as well
    :param gamma: discount (None: the agents', which must agree; 0.99 where they have none)
    :param gradient_steps: updates of each FQE
    :param held_out: share of the episodes that FQE does not see, at least one and not all; TD errors and ``wdr`` are theirs
    :param level: of the intervals
    :param seed: of everything drawn
    :param progress_bar: show one for each fit
    :param weighting: arguments of :class:`~sb3_genoffline.ope.ImportanceWeighting`
    :param fits: folder that each policy's FQE is saved in as it goes (made if it is not there): the same call then goes on
        after an interruption, and makes no fit twice
    :param fqe_arguments: arguments of :class:`~sb3_genoffline.ope.FQE`; ``deterministic`` is that of all estimators
    :return: the report; ``print(report.table())``
    :raises UserError: for no policy, unknown estimators, agents of different discounts, a single episode, or a folder with
        fits to other data, of other policies or with other arguments
    """
    named = _by_text(policies, "policies") if isinstance(policies, Mapping) else {"policy": policies}
    unknown = sorted({*estimators} - {"fqe", "wdr"})
    if unknown or not named:
        raise UserError(
            f"estimators={unknown[0]!r} is not known; use 'fqe' and 'wdr'." if unknown else "There is no policy to judge."
        )
    _check_names("weighting", weighting, ImportanceWeighting, _GIVEN | _BY_FQE)
    _check_names("fqe_arguments", fqe_arguments, FQE, _GIVEN)
    data = load_dataset(dataset)
    gamma = _common_gamma(named) if gamma is None else gamma
    fitted, judged_on = split_episodes(data, held_out, seed)
    starts = data.observations[data.episode_starts]
    of_data = episode_values(data, gamma, gradient_steps, seed, progress_bar, **fqe_arguments)
    of_weights = {"gamma": gamma, "seed": seed, **_only(fqe_arguments, "deterministic"), **(weighting or {})}
    judgements, behaviour = {}, dict[str, Any]()
    for name, policy in named.items():
        fqe = FQE(policy, fitted, gamma=gamma, seed=seed, **({"initial_observations": starts} | fqe_arguments))
        if fits is None:
            fqe.fit(gradient_steps, progress_bar=progress_bar)
        else:
            fit_and_keep(fqe, kept_fit(Path(fits), name), gradient_steps, progress_bar)
        wdr = ess = None
        if "wdr" in estimators:
            weights = ImportanceWeighting(policy, judged_on, **(of_weights | behaviour))
            wdr, ess = weights.wdr(fqe), weights.effective_sample_size
            behaviour = {"behavior_log_prob": lambda *_, known=weights.log_b: known}  # the same for all policies
        value, measured = fqe.estimate(level), measure(fqe, judged_on, seed)
        doubts = doubts_of(value, fqe.drift, fqe.clipped, measured, of_data, wdr, ess)
        judgements[name] = Judgement(value, fqe.drift, fqe.clipped, fqe.td_error(judged_on), measured, wdr, ess, doubts)
    return OfflineReport(judgements, of_data, gamma)


def _by_text(given: Mapping[Any, Any], what: str) -> dict[str, Any]:
    """A mapping with its keys as text; keys that are equal as text are refused."""
    first: dict[str, Any] = {}
    for name in given:
        other = first.setdefault(str(name), name)
        if other is not name:
            raise UserError(f"{what} has the names {short(other)} and {short(name)}, equal as text: rename one of them.")
    return {str(name): value for name, value in given.items()}


def _only(arguments: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: arguments[name] for name in names if name in arguments}


def _check_names(what: str, given: Any, taker: type, owned: Mapping[str, str]) -> None:
    """Whether arguments that are handed on are its, and not those that are said once for all."""
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise UserError(f"{what}={short(given)} must map arguments of {taker.__name__} to values.")
    known = [name for name in inspect.signature(taker).parameters if name not in owned]
    for name in given:
        if name in owned:
            raise UserError(f"{what} has {short(name)}={short(given[name])}, but {owned[name]}.")
        if name not in known:
            near = nearest(str(name), known)
            raise UnknownArgumentError(f"{short(name)} in {what} is not an argument of {taker.__name__}{near}")


def _common_gamma(policies: Mapping[str, Any]) -> float:
    found = {name: float(policy.gamma) for name, policy in policies.items() if hasattr(policy, "gamma")}
    if len({*found.values()}) > 1:
        raise UserError(f"The agents have different discounts, {found}: choose one with gamma= (--gamma)")
    return next(iter(found.values()), 0.99)
