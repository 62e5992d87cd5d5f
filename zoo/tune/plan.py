"""What a search is: all that its trials' results depend on, as plain data, and the job of a trial."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.data.scores import ScoreScale
from sb3_genoffline.data.transforms import REWARD_TRANSFORMS, reward_affine
from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.registry import ALGOS

from ..benchmark.plan import Job
from ..runs.hyperparameters import Hyperparameters, deep_merge, load_hyperparameters, read_settings, unnamed_defaults
from ..runs.scoring import recorded_scale
from .objectives import OBJECTIVES
from .space import Choice, Space, read_space


@dataclass(frozen=True)
class Wish:
    """
    What the user gives.

    :param algo: name in ``ALGOS``
    :param dataset: id or file
    :param seed: of all trainings and of the search
    :param objective: its name and its settings, and the number of scores of a trial
    :param device: of the trainings
    :param profile: overlay of the hyper-parameter file
    :param overrides: settings that all trials have; those of them that the file would search are not searched
    :param search: block instead of the file's
    :param conf_file: file instead of the algorithm's own
    :param env: to evaluate in (None: the data's)
    """

    algo: str
    dataset: str
    seed: int
    objective: Mapping[str, Any]
    device: str = "auto"
    profile: str | None = None
    overrides: Mapping[str, Any] | None = None
    search: Mapping[str, Any] | None = None
    conf_file: str | Path | None = None
    env: str | None = None


class TunePlan:
    """
    :param wish: what is asked for
    :param data: to train on
    :raises UserError: for a search block that is missing, or has an unknown name or a value that the algorithm does not take
    """

    def __init__(self, wish: Wish, data: OfflineDataset) -> None:
        self.wish, self.data = wish, data
        self.base = self.settings({})
        cls = ALGOS[wish.algo]
        self.space: Space = read_space(self._block(), cls, self.base.plain, self.where)
        gamma = self.base.arguments.get("gamma", cls.argument_table().arguments["gamma"].default)
        self.evaluation = {"gamma": gamma, **wish.objective}
        if OBJECTIVES[wish.objective["objective"]].critic:
            self.evaluation["units"] = "raw rewards"  # trials of searches before were in units of the transformed ones
            self._check_units()

    def _check_units(self) -> None:
        """What the trials' own critics say has to be comparable."""
        objective, gamma = self.wish.objective["objective"], self.evaluation["gamma"]
        if "gamma" in self.space.parameters:
            raise UserError(
                f"{self.where}: gamma can't be searched with --objective {objective}, as the agent's own Q is larger where "
                f"gamma is: leave it out, or choose --objective fqe, which judges all trials at gamma={gamma}."
            )
        searched = self.space.parameters.get("reward_transform")
        if not isinstance(searched, Choice) or not self.data.terminations.any():
            return
        known = [name for name in searched.values if name is None or name in REWARD_TRANSFORMS]
        moved = {name: shift / scale for name in known for scale, shift in [reward_affine(self.data, name)]}
        for name, shift in moved.items():
            if shift != moved[known[0]]:
                raise UserError(
                    f"{self.where}: reward_transform {known[0]} and {name} can't be compared with --objective {objective}, as "
                    "they shift rewards differently and episodes of these data terminate: search one of them, or choose "
                    "--objective fqe."
                )

    @property
    def where(self) -> str:
        """The block's place, for errors."""
        if self.wish.search is not None:
            return "--search"
        return f"{read_settings(self.wish.algo, self.wish.conf_file).path}, search"

    def _block(self) -> dict[str, Any]:
        if self.wish.search is not None:
            return dict(self.wish.search)
        block = read_settings(self.wish.algo, self.wish.conf_file).search
        if not block:
            raise NotFoundError(
                f"{self.where.removesuffix(', search')} has no block `search`: add one, or say what to try: "
                "--search tau:[0.005,0.02]."
            )
        return {name: spec for name, spec in block.items() if name not in (self.wish.overrides or {})}

    def settings(self, searched: Mapping[str, Any]) -> Hyperparameters:
        """
        :param searched: hyper-parameters of a trial
        :return: all of its hyper-parameters
        """
        wish = self.wish
        overrides = deep_merge(wish.overrides or {}, searched)
        return load_hyperparameters(wish.algo, wish.dataset, wish.profile, overrides, wish.conf_file)

    @cached_property
    def described(self) -> dict[str, Any]:
        """Plain data: two searches are the same if this is."""
        return {
            "algorithm": self.wish.algo,
            "dataset": self.data.fingerprint,
            "seed": self.wish.seed,
            "hyperparameters": self.base.plain,
            "defaults": unnamed_defaults(self.wish.algo, self.base),
            "search": self.space.plain,
            "evaluation": self.evaluation,
            "env": self.wish.env,
        }

    @cached_property
    def scale(self) -> ScoreScale | None:
        """Of returns; None where they have none, or a score is a success."""
        scale = recorded_scale(self.data.summary())
        return None if scale is None or scale.kind == "success" else scale

    @property
    def starting_point(self) -> dict[str, Any] | None:
        """Optuna's parameters of the settings as they are without a search; None if it does not contain them."""
        defaults = unnamed_defaults(self.wish.algo, self.base)
        return self.space.point(deep_merge(defaults, self.base.plain))

    def job(self, searched: Mapping[str, Any]) -> Job:
        """
        :param searched: hyper-parameters of a trial
        :return: the same job for the same settings
        """
        wish, resolved = self.wish, self.settings(searched)
        config = {
            "name": wish.algo,
            "algo": wish.algo,
            "dataset": wish.dataset,
            "fingerprint": self.data.fingerprint,
            "seed": wish.seed,
            "hyperparameters": resolved.plain,
            "defaults": unnamed_defaults(wish.algo, resolved),
            "evaluation": self.evaluation,
            "device": wish.device,
        }
        if wish.env is not None:
            config["env"] = wish.env
        return Job(wish.algo, wish.dataset, wish.seed, config)


def difference(ours: Any, theirs: Any, name: str = "") -> str | None:
    """
    :param ours: plain data of a plan
    :param theirs: of another one
    :param name: of the part that is compared
    :return: the first part that differs, with both values; None if none does
    """
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in (*ours, *(key for key in theirs if key not in ours)):
            found = difference(ours.get(key), theirs.get(key), f"{name}.{key}" if name else str(key))
            if found is not None:
                return found
        return None
    return None if ours == theirs else f"{name} is {theirs!r} there, and {ours!r} now"


def check_objective(settings: Mapping[str, Any], data: OfflineDataset) -> None:
    """
    :param settings: of an objective
    :param data: to be split
    :raises UserError: if too few episodes would be held out
    """
    share = settings.get("held_out")
    if share is not None and (data.n_episodes < 2 or share <= 0):
        raise UserError(
            f"--held-out {share:g} of {data.n_episodes} episode{'s' if data.n_episodes > 1 else ''} leaves none to judge on: "
            "give a larger share or other data, or --objective simulator."
        )
