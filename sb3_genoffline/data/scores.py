"""Normalised scores: 100 · (return − random) / (expert − random), the scale on which papers report."""

import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from gymnasium.envs.registration import EnvSpec

from sb3_genoffline.errors import UserError

ScoreKind = Literal["return", "success"]


@dataclass(frozen=True)
class ScoreScale:
    """
    What turns the outcome of an episode into its score: 0 is a random policy, 100 an expert.

    :param kind: ``"return"``: 100 · (return − low)/(high − low). ``"success"``: 100 in an episode that reaches the goal and 0
        in another, whatever the rewards are
    :param low: return that counts as 0
    :param high: return that counts as 100; above ``low``
    :raises UserError: for another kind, or a high that is not above low
    """

    kind: ScoreKind
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(ScoreKind):
            raise UserError(f"kind={self.kind!r} is not known; use 'return' or 'success'.")
        check_reference(self.low, self.high)

    @classmethod
    def known(cls, *names: str | None, low: float | None, high: float | None) -> "ScoreScale | None":
        """
        :param names: ids of a dataset and of its environments, as far as they are known
        :param low: the data's ``ref_min_score``, if known
        :param high: the data's ``ref_max_score``, if known
        :return: by success in AntMaze and PointMaze, else by the return between the two; None if one is not known
        """
        if scored_by_success(*names):
            return cls("success")
        return None if low is None or high is None else cls("return", low, high)

    def of(self, returns: Any, successes: Any = None) -> np.ndarray:
        """
        Normalised scores of returns.

        :param returns: undiscounted episode returns, any shape
        :param successes: whether each episode reached the goal, or in what share several did, 0 to 1, any shape; what
            ``"success"`` needs
        :return: scores of the same shape, float64
        :raises UserError: if the successes are needed and not given
        """
        if self.kind == "return":
            return np.asarray(100.0 * (np.asarray(returns, dtype=np.float64) - self.low) / (self.high - self.low))
        if successes is None:
            raise UserError("The score of a maze is the share of successes, and none are given: pass successes=.")
        return np.asarray(100.0 * np.asarray(successes, dtype=np.float64))


def check_reference(low: Any, high: Any) -> tuple[float | None, float | None]:
    """
    :param low: return that counts as 0, if known
    :param high: return that counts as 100, if known
    :return: both as plain numbers
    :raises UserError: unless those that are known are finite numbers, and low is below high
    """
    low, high = _as_return("ref_min_score", low), _as_return("ref_max_score", high)
    if low is not None and high is not None and not high > low:
        raise UserError(
            f"ref_max_score = {high} must be above ref_min_score = {low}: scores are normalised by their difference. Give the "
            "returns of an expert and of a random policy, or None for both."
        )
    return low, high


def _as_return(name: str, value: Any) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, int | float | np.generic | np.ndarray) and not isinstance(value, bool)
    number = np.asarray(value) if is_number else np.empty(0)
    if number.size != 1 or number.dtype.kind not in "iuf":
        raise UserError(f"{name} = {repr(value)[:60]} is not a number; give a return, or None if it is not known.")
    if not np.isfinite(number).all():
        raise UserError(f"{name} = {number.item()} is not finite; give a return, or None if it is not known.")
    return float(number.item())


class Reference(NamedTuple):
    """
    :param ref_min_score: Mean return of a random policy (0 on the scale).
    :param ref_max_score: Mean return of the expert (100).
    :param source: Where the numbers come from.
    """

    ref_min_score: float
    ref_max_score: float
    source: str


_D4RL = "D4RL (Fu et al. 2020, arXiv:2004.07219), the constants of its infos.py"
_GYM = (
    _D4RL + "; measured on the v2/v3 bodies, whose returns carry over to v4/v5 (Walker2d: compare on v4, v5 changed the feet)"
)
_ADROIT = _D4RL + "; Minari's own metadata differ for some of these"

REFERENCE: dict[str, Reference] = {
    "halfcheetah": Reference(-280.178953, 12135.0, _GYM),
    "hopper": Reference(-20.272305, 3234.3, _GYM),
    "walker2d": Reference(1.629008, 4592.3, _GYM),
    "ant": Reference(-325.6, 3879.7, _GYM),
    "pen": Reference(96.262799, 3076.8331, _ADROIT),
    "hammer": Reference(-274.856578, 12794.1348, _ADROIT),
    "door": Reference(-56.512833, 2880.5693, _ADROIT),
    "relocate": Reference(-6.425911, 4233.8778, _ADROIT),
    "maze2d-umaze": Reference(23.85, 161.86, _D4RL + "; sparse reward"),
    "maze2d-medium": Reference(13.13, 277.39, _D4RL + "; sparse reward"),
    "maze2d-large": Reference(6.7, 273.99, _D4RL + "; sparse reward"),
    "antmaze": Reference(0.0, 1.0, _D4RL + "; the return is 1 for a success, so this is a success rate"),
    "kitchen": Reference(0.0, 4.0, _D4RL + "; the return counts solved subtasks"),
}

_QUALITIES = (
    "random|simple|medium|expert|medium-replay|medium-expert|full-replay|human|cloned|complete|partial|mixed|"
    "(?:umaze|medium|large)(?:-(?:diverse|play))?"
)
# The worlds a name can come from; `key` is what is looked up. Other names match nothing: better no score than a wrong one.
_NAMES = [
    # gymnasium: Hopper-v5, AntMaze_UMaze-v5, AdroitHandPen-v1, FrankaKitchen-v1
    re.compile(r"(?P<key>halfcheetah|hopper|walker2d|ant)-v\d+"),
    re.compile(r"(?P<key>antmaze)_[\w-]*-v\d+"),
    re.compile(r"adroithand(?P<key>pen|hammer|door|relocate)-v\d+"),
    re.compile(r"franka(?P<key>kitchen)-v\d+"),
    # Minari and ours: mujoco/hopper/medium-v0, D4RL/antmaze/umaze-v1, genoffline/hopper/expert-v1
    re.compile(
        r"(?:mujoco|d4rl|genoffline)/(?P<key>halfcheetah|hopper|walker2d|ant|pen|hammer|door|relocate|antmaze|kitchen)/.+-v\d+"
    ),
    # D4RL: hopper-medium-v2, hopper_medium-v2.hdf5, maze2d-umaze-v1, antmaze-large-play-v2
    re.compile(rf"(?P<key>halfcheetah|hopper|walker2d|ant|pen|hammer|door|relocate|antmaze|kitchen)-(?:{_QUALITIES})-v\d+"),
    re.compile(r"(?P<key>maze2d-(?:umaze|medium|large))-v\d+"),
    # D4RL's server: hopper_medium.hdf5 (v0), maze2d-umaze-sparse-v1.hdf5, pen-v0_demos_clipped.hdf5, …
    re.compile(r"(?P<key>halfcheetah|hopper|walker2d|ant)-(?:random|medium|expert|mixed|medium-expert)"),
    re.compile(r"(?P<key>maze2d-(?:umaze|medium|large))-sparse-v1"),
    re.compile(r"(?P<key>pen|hammer|door|relocate)-(?:v0-(?:demos|expert)-clipped|demos-v0-bc-combined)"),
    re.compile(r"(?:mini-)?(?P<key>kitchen)-microwave-kettle-(?:light-slider|bottomburner-light)-v0"),
]
_POINTMAZE = re.compile(r"pointmaze_[\w-]*-v\d+|(?:d4rl|genoffline)/pointmaze/.+-v\d+")


def reference_key(name: str) -> str | None:
    """
    :param name: A dataset or environment id, or the name of a D4RL file.
    :return: The key of :data:`REFERENCE` that it belongs to, or None.
    """
    lowered = name.lower().replace("walker_mixed", "walker2d_mixed")  # what D4RL's server calls it
    for candidate in (lowered, re.sub(r"\.(hdf5|h5|npz)$", "", lowered).rsplit("/", 1)[-1].replace("_", "-")):
        for pattern in _NAMES:
            match = pattern.fullmatch(candidate)
            if match:
                return match["key"]
    return None


def scored_by_success(*names: str | None) -> bool:
    """
    :param names: Ids of a dataset and of its environments, as far as they are known
    :return: Whether it is AntMaze or PointMaze, whose score is 100 · (share of episodes in which the goal is reached) whatever
        the rewards are
    """
    return any(reference_key(name) == "antmaze" or _POINTMAZE.fullmatch(name.lower()) for name in names if name)


def known_reference(dataset_id: str | None, *specs: EnvSpec | None) -> tuple[float, float] | None:
    """
    :param dataset_id: Id of a dataset, if it has one.
    :param specs: Specs of its environments, tried after the id.
    :return: (random, expert) return, or None if the table does not have them.
    """
    for name in (dataset_id, *(spec.id for spec in specs if spec is not None)):
        key = reference_key(name) if name else None
        if key is not None:
            return REFERENCE[key][:2]
    return None


def reference_scores(id_or_env: str) -> tuple[float, float]:
    """
    The returns between which scores are normalised.

    :param id_or_env: Id of an environment or dataset of Gymnasium, D4RL, Minari or this project: ``Hopper-v5``,
        ``mujoco/hopper/medium-v0``, ``hopper-medium-v2``, ``D4RL/antmaze/umaze-v1``, ``genoffline/hopper/expert-v1``, …
    :return: Mean return of a random policy, and of the expert.
    :raises UserError: If the table does not have it, naming what it has.
    """
    found = known_reference(id_or_env)
    if found is None:
        raise UserError(
            f"No reference returns are known for {id_or_env!r}. Known are datasets and environments of: "
            f"{', '.join(REFERENCE)}. For others, give ref_min_score and ref_max_score yourself."
        )
    return found


def scale_returns(returns: Any, ref_min_score: float, ref_max_score: float) -> np.ndarray:
    """
    :param returns: Undiscounted episode returns, any shape.
    :param ref_min_score: Return that becomes 0.
    :param ref_max_score: Return that becomes 100.
    :raises UserError: Unless the second is above the first.
    """
    return ScoreScale("return", ref_min_score, ref_max_score).of(returns)


def normalized_score(id_or_env: str, returns: Any) -> np.ndarray:
    """
    D4RL's normalised score of returns.

    :param id_or_env: As in :func:`reference_scores`.
    :param returns: Undiscounted episode returns, any shape.
    :return: Normalised scores of the same shape, 0 random and 100 expert (Minari's function gives a fraction of 1).
    :raises UserError: If the reference returns are not known.
    """
    return scale_returns(returns, *reference_scores(id_or_env))
