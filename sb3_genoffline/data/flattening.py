"""From an environment's spaces to the flat vectors every dataset holds.

Observations may be a ``Box`` of numbers or a ``Dict``/``Tuple`` of those (goal environments). They are flattened with the
keys of a ``Dict`` in **alphabetical order, at every level**, and each array in C order. For a space built from a plain
``dict`` that is what ``gymnasium.wrappers.FlattenObservation`` does too, number for number.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_genoffline.errors import UserError

SUPPORTED = (
    "Supported are a Box of numbers and Dict/Tuple spaces of such boxes for observations, and a one-dimensional Box for "
    "actions"
)


def check_unmasked(name: str, values: Any) -> None:
    """:raises UserError: for a masked array with masked entries: what lies under the mask would be taken for data"""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        entry = tuple(int(i) for i in np.argwhere(np.ma.getmaskarray(values))[0])
        raise UserError(
            f"{name}{list(entry)} is masked ({int(np.ma.getmaskarray(values).sum())} entries are), and a dataset has no gaps: "
            "fill them (numpy.ma.filled), or remove the rows (or their episodes)."
        )


def is_image(space: spaces.Space[Any]) -> bool:
    """True for a uint8 box of two or three dimensions, which is how pictures come."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) >= 2


def box_leaves(space: spaces.Space[Any], name: str = "observation_space") -> list[tuple[tuple[str | int, ...], spaces.Box]]:
    """
    The boxes of a space in the order in which they are flattened.

    :param space: A ``Box``, or a ``Dict``/``Tuple`` of supported spaces.
    :param name: What to call the space in an error.
    :return: Pairs of (path of keys into an observation, box).
    :raises UserError: For a discrete, image or other space that cannot become a vector of numbers.
    """
    children: list[tuple[str | int, spaces.Space[Any]]]
    if isinstance(space, spaces.Dict):
        children = [(key, space.spaces[key]) for key in sorted(space.spaces)]
    elif isinstance(space, spaces.Tuple):
        children = [*enumerate(space.spaces)]
    elif is_image(space):
        raise UserError(
            f"{name} is an image space, {space}, and images are not supported. {SUPPORTED}; encode the images first."
        )
    elif isinstance(space, spaces.Box):
        return [((), space)]
    else:
        raise UserError(f"{name} is {space}, which is not supported. {SUPPORTED}.")
    return [((key, *path), box) for key, child in children for path, box in box_leaves(child, f"{name}[{key!r}]")]


def flat_observation_space(space: spaces.Space[Any]) -> spaces.Box:
    """
    The space of an observation space's vectors.

    :param space: Any supported observation space.
    :return: The float32 ``Box`` of shape ``(obs_dim,)`` that :func:`flatten_observations` fills.
    :raises UserError: For a space that is not supported.
    """
    boxes = [box for _, box in box_leaves(space)]
    if not sum(box.low.size for box in boxes):
        raise UserError(f"observation_space is {space}, which has no number in it: there is nothing to act on.")
    with np.errstate(over="ignore"):  # bounds near float64's largest mean "none"
        low = np.concatenate([np.asarray(box.low, dtype=np.float32).ravel() for box in boxes])
        high = np.concatenate([np.asarray(box.high, dtype=np.float32).ravel() for box in boxes])
    return spaces.Box(low, high, dtype=np.float32)


def flatten_observations(space: spaces.Space[Any], observations: Any, name: str = "observations") -> np.ndarray:
    """
    Flatten a batch of observations at once.

    :param space: The space each observation comes from.
    :param observations: An array ``(N, *shape)``, or the same nested in dicts/tuples as the space is.
    :param name: What to call the array in an error.
    :return: float array ``(N, obs_dim)``; the dtype is the one numpy promotes the boxes to.
    :raises UserError: If a key is missing or a shape does not fit, naming it.
    """
    parts = []
    for path, box in box_leaves(space):
        value = observations
        where = name + "".join(f"[{key!r}]" for key in path)
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError) as error:
                raise UserError(f"{where} is missing, though the observation space has it: {space}.") from error
        check_unmasked(where, value)
        array = np.asarray(value)
        if array.shape[1:] != box.shape:
            raise UserError(
                f"{where} has shape {array.shape}, but the observation space says (N, {', '.join(map(str, box.shape))})."
            )
        # The environment's own dtype first, as gymnasium's flatten does: it may round.
        if array.dtype.kind == "f" and np.issubdtype(box.dtype, np.floating):
            array = array.astype(box.dtype, copy=False)
        parts.append(array.reshape(len(array), math.prod(array.shape[1:])))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


class FlatFloatObservation(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """
    An environment whose observations are the float32 vectors that datasets hold.

    :param env: An environment with a supported observation space.
    :raises UserError: For an observation space that is not supported.
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        self._leaves = box_leaves(env.observation_space)
        self.observation_space = flat_observation_space(env.observation_space)

    def observation(self, observation: Any) -> np.ndarray:
        parts = []
        for path, box in self._leaves:
            value = observation
            for key in path:
                value = value[key]
            parts.append(np.asarray(value, dtype=box.dtype).ravel())
        return np.concatenate(parts).astype(np.float32)


def flatten_env(env: gym.Env) -> gym.Env:
    """
    An environment whose observations are vectors.

    :param env: An environment with a supported observation space.
    :return: ``env`` itself if its observations are float32 vectors already, else wrapped by :class:`FlatFloatObservation`.
    """
    space = env.observation_space
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype == np.float32:
        return env
    return FlatFloatObservation(env)


def spaces_differ(ours: spaces.Space[Any], theirs: spaces.Space[Any]) -> str | None:
    """
    Compare two one-dimensional boxes. The dtype does not count, nor do bounds where one side has none (±inf).

    :return: None if they agree, else what differs, in words.
    """
    if not isinstance(ours, spaces.Box) or not isinstance(theirs, spaces.Box):
        return None if ours == theirs else f"{ours} against {theirs}"
    if ours.shape != theirs.shape:
        return f"shape {ours.shape} against {theirs.shape}"
    bounds = np.abs(np.asarray([ours.low, ours.high, theirs.low, theirs.high], dtype=np.float64))
    size = np.where(np.isfinite(bounds), bounds, 0.0).max(axis=0)
    for bound in ("low", "high"):
        a = np.asarray(getattr(ours, bound), dtype=np.float64)
        b = np.asarray(getattr(theirs, bound), dtype=np.float64)
        with np.errstate(invalid="ignore"):
            wrong = np.isfinite(a) & np.isfinite(b) & (np.abs(a - b) > 1e-5 * size)
        if wrong.any():
            i = int(np.argmax(wrong))
            return f"{bound}[{i}] {a[i]:g} against {b[i]:g}"
    return None
