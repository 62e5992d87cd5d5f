"""One or two dimensions of the action space at one state of a dataset, beside the actions that the data have near it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.errors import UserError

GRID_POINTS = {1: 201, 2: 61}
"""Points along each dimension, by the number of dimensions."""


@dataclass(frozen=True, eq=False)
class ActionGrid:
    """
    Actions on a grid over one or two dimensions, the others as in one row of a dataset.

    :param row: of the dataset, whose state it is
    :param dims: the D dimensions, 1 or 2
    :param axes: coordinates along each, in the units of the action space
    :param points: (M, A) the actions; of two dimensions, the first runs fastest
    :param observation: (S,) the row's
    :param action: (A,) the row's
    :param neighbors: (k, A) the data's actions in the k nearest states, the row's own first
    """

    row: int
    dims: tuple[int, ...]
    axes: list[np.ndarray]
    points: np.ndarray
    observation: np.ndarray
    action: np.ndarray
    neighbors: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of values at the points; of two dimensions, the first is the last index."""
        return tuple(len(axis) for axis in reversed(self.axes))

    @property
    def title(self) -> str:
        """Which state it is, and where the other dimensions are held."""
        rest = [dim for dim in range(len(self.action)) if dim not in self.dims]
        held = f", action {rest[0]} at {self.action[rest[0]]:.2f}".replace("-", "−") if len(rest) == 1 else ""
        return f"state of row {self.row:,}{held}" + (", other actions as in the data" if len(rest) > 1 else "")


def standardized_states(data: OfflineDataset) -> np.ndarray:
    """(N, S) states with mean 0 and standard deviation 1 in each dimension; constant ones are 0."""
    spread = data.observations.std(axis=0)
    return (data.observations - data.observations.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def make_grid(
    data: OfflineDataset, row: int | None = None, dims: Sequence[int] | None = None, n_neighbors: int = 200
) -> ActionGrid:
    """
    :param data: rows with a state and an action each
    :param row: whose state is looked at (None: the row nearest to the median of the states)
    :param dims: dimensions of the action (None: the first two, or the only one)
    :param n_neighbors: k, nearest in the standardised states
    :raises UserError: if there is no such row or dimension
    """
    n_dims = data.actions.shape[1]
    chosen = tuple(dims if dims is not None else range(min(2, n_dims)))
    if len(chosen) not in GRID_POINTS or len(set(chosen)) < len(chosen) or not all(0 <= dim < n_dims for dim in chosen):
        raise UserError(f"--dims {' '.join(map(str, chosen))}: name one or two different dimensions of 0 to {n_dims - 1}.")
    states = standardized_states(data)
    if row is None:
        row = int(np.square(states - np.median(states, axis=0)).sum(axis=1).argmin())
    if not 0 <= row < len(data):
        raise UserError(f"--row {row}: the data have the rows 0 to {len(data) - 1}.")
    distances = np.square(states - states[row]).sum(axis=1)
    distances[row] = -1.0
    nearest = np.argsort(distances, kind="stable")[:n_neighbors]

    low, high = data.action_space.low, data.action_space.high
    axes = [np.linspace(low[dim], high[dim], GRID_POINTS[len(chosen)]) for dim in chosen]
    mesh = np.meshgrid(*axes)
    points = np.tile(data.actions[row], (mesh[0].size, 1))
    for dim, coordinates in zip(chosen, mesh, strict=True):
        points[:, dim] = coordinates.ravel()
    return ActionGrid(row, chosen, axes, points, data.observations[row], data.actions[row], data.actions[nearest])
