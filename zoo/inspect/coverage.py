"""How often logged data repeat themselves, how much of the state space they see, and how freely they act there."""

from dataclasses import dataclass

import numpy as np
import torch as th

from sb3_genoffline.data import OfflineDataset, scale_actions

from .measures import chunks, sample_rows

POOL_ROWS, QUERY_ROWS, NEIGHBORS = 20_000, 2_000, 10
"""Rows that neighbours are looked for in, rows whose neighbours are looked for, and how many each has."""
_TIE_BREAK = 1e-6


@dataclass(frozen=True, eq=False)
class Repeats:
    """
    Exact copies, bit for bit.

    :param rows: transitions (s, a, r, s') that occurred before
    :param episodes: episodes that occurred before, transition by transition
    """

    rows: int
    episodes: int


@dataclass(frozen=True, eq=False)
class Coverage:
    """
    How much of the state space the data see, and how freely they act there; on a random sample of rows. States are
    standardised, each dimension by its mean and standard deviation.

    :param effective_dims: participation ratio (Σλ)²/Σλ² of the eigenvalues λ of the observations' correlation matrix: 1 if
        all move together, S if all S columns are uncorrelated; constant columns do not count
    :param nearest: (3,) 5%, 50% and 95% quantile of the distance from a state to the nearest one of another episode, as
        root mean square over the dimensions, in standard deviations (None: there is no other episode)
    :param action_spread: (A,) standard deviation of the actions, scaled to [−1, 1], among the ``neighbors`` nearest states of
        other episodes; what is left when the state is known, from above, as the neighbours are not quite equal
    :param unexplained: (A,) the square of that divided by the variance of all actions: 0 if the action is a function of the
        state, 1 if it does not depend on it (1 − R² of nearest-neighbour regression)
    :param neighbors: k, neighbours of each state
    :param n_queries: states whose neighbours were looked for
    :param n_pool: states among which they were looked for
    :param seed: of the sample
    """

    effective_dims: float
    nearest: np.ndarray | None
    action_spread: np.ndarray | None
    unexplained: np.ndarray | None
    neighbors: int
    n_queries: int
    n_pool: int
    seed: int


def measure_repeats(data: OfflineDataset) -> Repeats:
    """:param data: any"""
    columns = [*data.observations.T, *data.actions.T, data.rewards, *data.next_observations.T]
    hashes = np.zeros(len(data), dtype=np.uint64)
    for column in columns:
        hashes = _mix(hashes + np.ascontiguousarray(column).view(np.uint32))
    order = np.argsort(hashes, kind="stable")
    pairs = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    same = np.ones(len(pairs), dtype=bool)
    for column in columns:  # equal hashes are no proof
        same &= column[order[pairs]] == column[order[pairs + 1]]
    starts, ends = data.episode_starts, data.episode_ends
    different = {hashes[start:end].tobytes() for start, end in zip(starts, ends, strict=True)}
    return Repeats(rows=int(same.sum()), episodes=data.n_episodes - len(different))


def _mix(x: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit words that spreads each bit over all: SplitMix64 (Steele, Lea and Flood 2014, figure 1)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def measure_coverage(data: OfflineDataset, mean: np.ndarray, std: np.ndarray, seed: int) -> Coverage:
    """
    :param data: any
    :param mean: (S,) of the observations
    :param std: (S,)
    :param seed: of the sample
    """
    pool = sample_rows(len(data), POOL_ROWS, seed)
    queries = sample_rows(len(pool), QUERY_ROWS, seed + 1)
    moving = std > 0
    states = ((data.observations[pool] - mean)[:, moving] / std[moving]).astype(np.float32)
    actions = scale_actions(data.actions[pool], data.action_space)
    episodes = np.searchsorted(data.episode_ends, pool, side="right")
    generator, distances, spreads = np.random.default_rng(seed), [], []
    for rows in chunks(len(queries), 250):
        chosen = queries[rows]
        nearest, distance = _neighbors(states, chosen, episodes, generator)
        whole = np.isfinite(distance).all(axis=1)
        distances.append(distance[whole, 0] / np.sqrt(max(1, states.shape[1])))
        if nearest.shape[1] > 1:
            spreads.append(actions[nearest[whole]].var(axis=1, ddof=1, dtype=np.float64))
    found = np.concatenate(distances)
    variance = np.concatenate(spreads).mean(axis=0) if len(found) and spreads else None
    total = actions.var(axis=0, dtype=np.float64)
    correlation = np.einsum("ni,nj->ij", states, states, dtype=np.float64, optimize=True) / len(pool)
    squares = float(np.square(correlation).sum())
    return Coverage(
        effective_dims=float(np.trace(correlation) ** 2 / squares) if squares > 0 else 0.0,
        nearest=np.quantile(found, [0.05, 0.5, 0.95]) if len(found) else None,
        action_spread=None if variance is None else np.sqrt(variance),
        unexplained=None
        if variance is None
        else np.minimum(1.0, np.divide(variance, total, out=np.zeros_like(total), where=total > 0)),
        neighbors=NEIGHBORS,
        n_queries=len(found),
        n_pool=len(pool),
        seed=seed,
    )


def _neighbors(
    states: np.ndarray, chosen: np.ndarray, episodes: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Of the chosen states the nearest ones of other episodes, nearest first: rows and distances (infinite: no such)."""
    norms = np.einsum("ij,ij->i", states, states)
    squares = norms[chosen, None] + norms - 2 * states[chosen] @ states.T
    squares += _TIE_BREAK * generator.random(squares.shape, dtype=np.float32)  # of equal states, not always the first
    squares[episodes[chosen, None] == episodes] = np.inf
    smallest, near = (x.numpy() for x in th.topk(th.as_tensor(squares), min(NEIGHBORS, len(states)), largest=False))
    exact = np.linalg.norm(states[near] - states[chosen, None], axis=2)  # the expanded square cancels where it is small
    exact[np.isinf(smallest)] = np.inf
    order = np.argsort(exact, axis=1, kind="stable")
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(exact, order, axis=1)
