"""
Checks of what goes into an :class:`~sb3_genoffline.data.dataset.OfflineDataset`. Each error names the array, the row, the
value and the fix.
"""

import warnings
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_genoffline.data.blocks import row_blocks
from sb3_genoffline.data.flattening import SUPPORTED, check_unmasked, is_image
from sb3_genoffline.errors import UserError, printable

# Actions may leave the box by this fraction of its half-width (float round-off); they are clipped back.
ACTION_TOLERANCE = 1e-4
# A column that varies by less, relative to its size, is one number with the round-off of float64.
_DOUBLE_NOISE = 1e-12


def numeric_array(name: str, values: Any) -> np.ndarray:
    """
    :param name: What to call the array in an error.
    :param values: Anything numpy can read.
    :return: An array of booleans, integers or floats.
    :raises UserError: For ragged, object, complex, text or masked arrays.
    """
    check_unmasked(name, values)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise UserError(
            f"{name} cannot be read as one array ({error}). Join the episodes into one array of shape (N, dim) first."
        ) from error
    if array.dtype.kind not in "biuf":
        texts = array.dtype.kind in "US" or (
            array.dtype == object and any(isinstance(value, str) for value in array.flat[:100])
        )
        how = f"with {name} == 'died' for what is text" if texts else f"with np.asarray({name}, dtype=np.float32)"
        raise UserError(f"{name} has dtype {array.dtype}; numbers are needed. Convert it first, for example {how}.")
    return array


def float_rows(name: str, values: Any, dim: int | None) -> np.ndarray:
    """
    :param name: What to call the array in an error.
    :param values: Array ``(N, dim)``, or ``(N,)``/``(N, 1)`` if ``dim`` is None or 1.
    :param dim: Number of columns, None for a vector.
    :return: Read-only contiguous float32 array ``(N, dim)`` or ``(N,)``, all of it finite. What is writable is copied, so that
        nobody can change the dataset from outside.
    """
    given = numeric_array(name, values)
    array = given
    if array.dtype == np.uint8 and array.ndim >= 3:
        raise UserError(f"{name} has dtype uint8 and shape {array.shape}: images are not supported. {SUPPORTED}.")
    if dim is None and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif dim == 1 and array.ndim == 1:
        array = array[:, None]
    expected = "(N,)" if dim is None else f"(N, {dim})"
    if array.ndim != (1 if dim is None else 2) or (dim is not None and array.shape[1] != dim):
        raise UserError(f"{name} has shape {given.shape}, but {expected} is expected: one row per transition.")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array, dtype=np.float32)
    if not all(np.isfinite(rows[block]).all() for block in row_blocks(len(rows))):
        bad = ~np.isfinite(rows)
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        value = array[index]
        reason = "does not fit into float32" if np.isfinite(value) else "is not finite"
        where = ", ".join(map(str, index))
        raise UserError(
            f"{name}[{where}] = {value} {reason}. Repair the value, or remove the episode of row {index[0]} (the row alone, "
            f"only if next observations are given: else a step would lead over a gap).{_extent(bad)}"
        )
    if not name.startswith("next_"):  # as those before them
        warn_of_lost_digits(name, array)
    return frozen(rows, given)


def warn_of_lost_digits(name: str, array: np.ndarray) -> None:
    """Warn of columns of which float32 keeps too little: absolute times, positions and counts."""
    columns = lossy_columns(array)
    if len(columns) == 0:
        return
    column = int(columns[0])
    values = np.asarray(array.reshape(len(array), -1)[:, column], dtype=np.float64)
    smallest = float(np.spacing(np.float32(np.abs(values).max())))
    which = "" if array.ndim == 1 else f" in column{'s' if len(columns) > 1 else ''} {', '.join(map(str, columns[:8]))}"
    warnings.warn(
        f"{printable(name)}{which} lose digits: they are stored as float32, which tells numbers near "
        f"{np.abs(values).max():.7g} apart only if they differ by {smallest:.2g} or more, and from row to row they change by "
        f"{np.abs(np.diff(values)).mean():.2g}. Subtract where they begin (the first row, {values[0]:.10g}, or that of each "
        "episode) before loading.",
        stacklevel=5,
    )


def lossy_columns(array: np.ndarray) -> np.ndarray:
    """
    :param array: ``(N,)`` or ``(N, dim)`` as given.
    :return: Columns that vary, but by less from row to row than ten times the smallest difference that float32 has there.
    """
    if array.dtype.itemsize <= (4 if array.dtype.kind == "f" else 2) or len(array) < 2:
        return np.empty(0, dtype=np.int64)
    found = []
    for column, given in enumerate(array.reshape(len(array), -1).T):
        values = given.astype(np.float64, copy=False)
        largest = max(values.max(), -values.min())
        steps = np.diff(values)
        change = np.abs(steps, out=steps).mean()
        del steps
        varies = values.std() > _DOUBLE_NOISE * largest
        if varies and np.spacing(np.float32(largest)) > change / 10 and (values.astype(np.float32) != values).any():
            found.append(column)
    return np.array(found, dtype=np.int64)


def _extent(bad: np.ndarray) -> str:
    """How many rows of a mask ``(N,)`` or ``(N, dim)`` are bad, and in which columns; nothing if it is one."""
    cells = bad.reshape(len(bad), -1)
    count, columns = int(cells.any(axis=1).sum()), np.flatnonzero(cells.any(axis=0)).tolist()
    listed = ", ".join(map(str, columns[:8])) + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")
    where = f", in column{'s' if len(columns) > 1 else ''} {listed}" if bad.ndim == 2 else ""
    return f" There are such values in {count} of {len(bad)} rows{where}." if bad.sum() > 1 else ""


def frozen(array: np.ndarray, given: np.ndarray) -> np.ndarray:
    """``array`` made read-only; copied first if a caller could still write to it through ``given``."""
    if array.flags.writeable:
        if np.may_share_memory(array, given):
            array = array.copy()
        array.flags.writeable = False
    return array


def flag_rows(name: str, values: Any) -> np.ndarray:
    """
    :param name: What to call the array in an error.
    :param values: Array ``(N,)`` or ``(N, 1)`` of booleans, or of numbers that are 0 or 1.
    :return: Read-only boolean array ``(N,)``.
    """
    given = array = numeric_array(name, values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise UserError(f"{name} has shape {given.shape}, but (N,) is expected: one flag per transition.")
    if array.dtype != np.bool_:
        wrong = (array != 0) & (array != 1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(f"{name}[{row}] = {array[row]} is neither 0 nor 1. {name} are flags, one per transition.")
    return frozen(np.ascontiguousarray(array, dtype=np.bool_), given)


def check_observation_space(space: spaces.Space[Any]) -> None:
    """:raises UserError: Unless the space is a flat float32 box."""
    if is_image(space):
        raise UserError(f"observation_space is an image space, {space}, and images are not supported. {SUPPORTED}.")
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or space.dtype != np.float32:
        raise UserError(
            f"observation_space is {space}, but an OfflineDataset holds flat float32 vectors. {SUPPORTED}; "
            "load_dataset flattens them, and sb3_genoffline.data.flat_observation_space gives the flat space."
        )


def check_action_space(space: spaces.Space[Any]) -> None:
    """:raises UserError: Unless the space is a one-dimensional box with finite bounds, low below high."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not np.issubdtype(space.dtype, np.floating):
        raise UserError(f"action_space is {space}, which is not supported. {SUPPORTED}.")
    for bound in ("low", "high"):
        values = getattr(space, bound)
        if not np.isfinite(values).all():
            i = int(np.argmin(np.isfinite(values)))
            raise UserError(
                f"action_space.{bound}[{i}] = {values[i]}, but finite bounds are needed to scale actions to [-1, 1]. "
                "Give the true limits of the actuators: spaces.Box(low, high) as action_space, or an env that has them."
            )
    with np.errstate(over="ignore"):
        wide = ~np.isfinite(space.high.astype(np.float32) - space.low.astype(np.float32))
    if wide.any():
        i = int(np.argmax(wide))
        raise UserError(
            f"action_space has low[{i}] = {space.low[i]} and high[{i}] = {space.high[i]}: that is too wide to scale actions "
            "in single precision. Give the true limits of the actuators."
        )
    if not (space.low < space.high).all():
        i = int(np.argmin(space.low < space.high))
        raise UserError(f"action_space has low[{i}] = {space.low[i]} and high[{i}] = {space.high[i]}: low must be below high.")


def clip_to_space(actions: np.ndarray, space: spaces.Box) -> np.ndarray:
    """
    :param actions: float32 array ``(N, act_dim)``.
    :param space: Box with finite bounds.
    :return: The actions, clipped to the box where they left it by round-off only.
    :raises UserError: If one is outside by more than ``ACTION_TOLERANCE`` of the half-width, naming the row.
    """
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    lowest, highest = actions.min(axis=0), actions.max(axis=0)
    if (lowest >= low).all() and (highest <= high).all():
        return actions
    slack = ACTION_TOLERANCE * (space.high.astype(np.float64) - space.low) / 2
    if (lowest < low - slack).any() or (highest > high + slack).any():
        outside = (actions < low - slack) | (actions > high + slack)
        row, column = (int(i) for i in np.argwhere(outside)[0])
        raise UserError(
            f"actions[{row}, {column}] = {actions[row, column]} is outside the action space "
            f"[{low[column]:g}, {high[column]:g}] ({int(outside.any(axis=1).sum())} of {len(actions)} rows are). "
            "If the environment clipped such actions when the data were made, clip them too: "
            "np.clip(actions, action_space.low, action_space.high); else give the action space they belong to."
        )
    clipped: np.ndarray = np.clip(actions, low, high)
    clipped.flags.writeable = False
    return clipped


def check_episode_ends(ends: Any, n_rows: int) -> np.ndarray:
    """
    :param ends: Exclusive row ends, increasing, the last one ``n_rows``.
    :param n_rows: Number of transitions.
    :return: Read-only int64 array ``(E,)``.
    """
    array = numeric_array("episode_ends", ends)
    if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iu":
        raise UserError(f"episode_ends must be a vector of integers, got shape {array.shape} and dtype {array.dtype}.")
    array = array.astype(np.int64)
    steps = np.diff(array, prepend=0)
    if (steps <= 0).any():
        i = int(np.argmax(steps <= 0))
        raise UserError(
            f"episode_ends[{i}] = {array[i]} does not lie above the end before it. "
            "Ends are exclusive row numbers, strictly increasing, so that no episode is empty."
        )
    if array[-1] != n_rows:
        raise UserError(
            f"episode_ends ends with {array[-1]}, but there are {n_rows} transitions: the last end must be {n_rows}."
        )
    array.flags.writeable = False
    return array
