"""Episodes whose every number says which episode and step it belongs to."""

import warnings
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

OBSERVATION_SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTION_SPACE = spaces.Box(np.array([-1, -2], np.float32), np.array([1, 6], np.float32))
GOAL_SPACE = spaces.Dict(
    observation=spaces.Box(-np.inf, np.inf, (2,), np.float64),
    achieved_goal=spaces.Box(-np.inf, np.inf, (1,), np.float64),
)


def observation(episode, step):
    return np.stack([np.broadcast_to(episode, np.shape(step)), step, 1000.0 * episode + step], axis=-1)


def action(episode, step):
    """In the units of ACTION_SPACE."""
    return np.stack([np.broadcast_to(np.sin(episode), np.shape(step)), 2 + 4 * np.cos(step)], axis=-1)


def reward(episode, step):
    return 100.0 * episode + step


@dataclass
class Episode:
    number: int
    length: int
    end: str  # "terminated", "truncated", "both" or "cut"

    @property
    def steps(self):
        return np.arange(self.length)

    def flags(self, *ends):
        flags = np.zeros(self.length, dtype=bool)
        flags[-1] = self.end in ends
        return flags

    @property
    def terminations(self):
        return self.flags("terminated", "both")

    @property
    def truncations(self):
        return self.flags("truncated", "both")


def random_episodes(seed, ends=("terminated", "truncated", "both")):
    """Between one and seven episodes of one to six steps, ending in any of these ways."""
    rng = np.random.default_rng(seed)
    return [Episode(i, int(rng.integers(1, 7)), str(rng.choice(ends))) for i in range(rng.integers(1, 8))]


def arrays(episodes, next_observations=True):
    """The episodes as flat arrays under our names."""
    rows = {
        "observations": [observation(e.number, e.steps) for e in episodes],
        "actions": [action(e.number, e.steps) for e in episodes],
        "rewards": [reward(e.number, e.steps) for e in episodes],
        "next_observations": [observation(e.number, e.steps + 1) for e in episodes],
        "terminations": [e.terminations for e in episodes],
        "truncations": [e.truncations for e in episodes],
    }
    if not next_observations:
        del rows["next_observations"]
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def assert_aligned(dataset, episodes, own_observation_at_terminal=False, unfinished=()):
    """Every row holds what one step of one episode had, and the ends are where they were; the ``unfinished`` have no mark."""
    at, step = dataset.observations[:, 0].astype(int), dataset.observations[:, 1].astype(int)
    by_number = {e.number: e for e in episodes}
    expected = [(e.number, t) for e in episodes for t in e.steps]
    assert list(zip(at.tolist(), step.tolist(), strict=True)) == expected
    np.testing.assert_array_equal(dataset.observations, observation(at, step))
    np.testing.assert_allclose(dataset.actions, action(at, step), rtol=0, atol=2e-6)
    np.testing.assert_array_equal(dataset.rewards, reward(at, step))
    last = np.array([step[i] == by_number[k].length - 1 for i, k in enumerate(at)])
    terminal = last & np.array([by_number[k].end in ("terminated", "both") for k in at])
    np.testing.assert_array_equal(dataset.terminations, terminal)
    np.testing.assert_array_equal((dataset.truncations | dataset.terminations), last & ~np.isin(at, [*unfinished]))
    np.testing.assert_array_equal(dataset.episode_ends, np.flatnonzero(last) + 1)
    following = step + 1 - (terminal if own_observation_at_terminal else 0)
    np.testing.assert_array_equal(dataset.next_observations, observation(at, following))


def as_goal(observations):
    """The same numbers as dict observations of GOAL_SPACE; flattened alphabetically they are (achieved_goal, observation)."""
    return {"achieved_goal": observations[..., :1], "observation": observations[..., 1:]}


def write_minari(dataset_id, episodes, goal=False, **kwargs):
    """The episodes as a Minari dataset."""
    import minari
    from minari.data_collector import EpisodeBuffer

    buffers = []
    for e in episodes:
        observations = observation(e.number, np.arange(e.length + 1))
        buffers.append(
            EpisodeBuffer(
                observations=as_goal(observations) if goal else observations.astype(np.float32),
                actions=action(e.number, e.steps).astype(np.float32),
                rewards=reward(e.number, e.steps),
                terminations=e.terminations,
                truncations=e.truncations,
                infos={},
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            observation_space=GOAL_SPACE if goal else OBSERVATION_SPACE,
            action_space=ACTION_SPACE,
            **kwargs,
        )
