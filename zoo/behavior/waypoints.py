"""A controller that finds its way through mazes of square cells, for any number of copies at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Itinerary = Callable[["Routes", np.ndarray, np.ndarray, np.random.Generator], Iterator[np.ndarray]]
"""From the routes, an episode's start and its goal (both xy): the places to go to, one after another, without end."""

WALL = 1
NEAR = 0.2
"""Distance, in cells, at which a place counts as reached."""
SPREAD = 0.25
"""Places lie so far off the centre of their cell at most, in cells and in each direction, as starts and goals do."""


class Routes:
    """
    Shortest ways between all cells of a maze that are no wall, by breadth-first search.

    :param maze: gymnasium-robotics' ``Maze``, which knows the map, the size of its cells and where they lie
    """

    def __init__(self, maze: Any) -> None:
        self.scale = float(maze.maze_size_scaling)
        self._corner = np.array([-maze.x_map_center, maze.y_map_center])
        cells = [(i, j) for i, row in enumerate(maze.maze_map) for j, cell in enumerate(row) if cell != WALL]
        self.numbers = {cell: number for number, cell in enumerate(cells)}
        self._grid = np.full((maze.map_length, maze.map_width), -1)
        self._grid[tuple(np.transpose(cells))] = np.arange(len(cells))
        self.centers = np.array([maze.cell_rowcol_to_xy(cell) for cell in cells])
        self._next = np.repeat(self.centers[:, None], len(cells), axis=1)
        for cell in cells:
            self._search(cell)

    def _search(self, target: tuple[int, int]) -> None:
        """Fill in the next cell's centre of every way to ``target``."""
        column, seen, queue = self.numbers[target], {target}, deque([target])
        while queue:
            i, j = queue.popleft()
            for neighbor in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if neighbor in self.numbers and neighbor not in seen:
                    self._next[self.numbers[neighbor], column] = self.centers[self.numbers[i, j]]
                    seen.add(neighbor)
                    queue.append(neighbor)

    def cells_of(self, places: np.ndarray) -> np.ndarray:
        """
        :param places: ``(n, 2)`` xy
        :return: ``(n,)`` the number of the cell each lies in, a row of ``centers``; -1 inside a wall
        """
        columns, rows = (np.abs(places - self._corner) / self.scale).astype(np.int64).T
        return self._grid[rows, columns]

    def waypoints(self, positions: np.ndarray, targets: np.ndarray, lanes: np.ndarray | float = 0.0) -> np.ndarray:
        """
        :param positions: ``(n, 2)`` xy
        :param targets: ``(n, 2)`` xy
        :param lanes: ``(n, 2)`` distances to keep to the centres of cells
        :return: ``(n, 2)`` a place in the next cell on the way, or the target where it lies in the same cell; the straight
            line to it never leaves the two cells
        """
        here, there = self.cells_of(positions), self.cells_of(targets)
        return np.where((here == there)[:, None], targets, self._next[here, there] + lanes)

    def draw(self, generator: np.random.Generator, cells: Sequence[int] | None = None) -> np.ndarray:
        """
        :param generator: draws the place
        :param cells: the cells to choose from; None is all
        :return: ``(2,)`` xy of a random place near the centre of one of them
        """
        cell = generator.choice(len(self.centers) if cells is None else cells)
        return self.centers[cell] + generator.uniform(-SPREAD, SPREAD, 2) * self.scale


@dataclass(frozen=True)
class Steering:
    """
    ``action = clip(gain · (waypoint + lane − position) − damping · velocity + disturbance, −1, 1)``

    :param gain: action per unit of distance
    :param damping: action per unit of velocity
    :param noise: standard deviation of the disturbance, a first-order autoregressive process
    :param memory: correlation of the disturbance from one step to the next
    :param lanes: on its way to each place it keeps a random distance to the cells' centres, up to this in each direction, in
        cells
    :param rest: at each place it rests for a random number of steps up to this
    """

    gain: float = 10.0
    damping: float = 1.0
    noise: float = 0.0
    memory: float = 0.9
    lanes: float = 0.0
    rest: int = 0


class Pilots:
    """
    The controller, steering copies of a point mass.

    :param routes: of the maze
    :param itinerary: where the copies go in each episode
    :param steering: how
    :param n: number of copies
    :param generator: draws everything random
    """

    def __init__(self, routes: Routes, itinerary: Itinerary, steering: Steering, n: int, generator: np.random.Generator):
        self.routes, self.itinerary, self.steering, self.generator = routes, itinerary, steering, generator
        self._ways: list[Iterator[np.ndarray]] = [iter(())] * n
        self._targets, self._lanes, self._disturbance = np.zeros((3, n, 2))
        self._rests = np.zeros(n, dtype=int)

    def begin(self, i: int, start: np.ndarray, goal: np.ndarray) -> None:
        """Copy ``i`` begins an episode at ``start`` in which the environment asks for ``goal`` (both xy)."""
        self._ways[i] = self.itinerary(self.routes, start, goal, self.generator)
        self._disturbance[i] = 0.0
        self._depart(i)

    def _depart(self, i: int) -> None:
        self._targets[i] = next(self._ways[i])
        self._lanes[i] = self.generator.uniform(-1.0, 1.0, 2) * self.steering.lanes * self.routes.scale
        self._rests[i] = self.generator.integers(self.steering.rest + 1)

    def act(self, states: np.ndarray) -> np.ndarray:
        """
        :param states: ``(n, 4)`` position and velocity of the first n copies
        :return: ``(n, 2)`` float32 actions within [-1, 1]
        """
        n, how = len(states), self.steering
        positions, velocities = states[:, :2], states[:, 2:]
        offsets = self._targets[:n] - positions
        self._rests[:n] -= np.einsum("ij,ij->i", offsets, offsets) < (NEAR * self.routes.scale) ** 2
        for i in np.flatnonzero(self._rests[:n] < 0).tolist():
            self._depart(i)
        ahead = self.routes.waypoints(positions, self._targets[:n], self._lanes[:n]) - positions
        forces = how.gain * ahead - how.damping * velocities
        if how.noise:
            fresh = how.noise * np.sqrt(1.0 - how.memory**2) * self.generator.standard_normal((n, 2))
            self._disturbance[:n] = how.memory * self._disturbance[:n] + fresh
            forces += self._disturbance[:n]
        return np.clip(forces, -1.0, 1.0).astype(np.float32)
