"""Windows of episodes against a plain loop, and against numbers worked out by hand."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from labelled_episodes import ACTION_SPACE, OBSERVATION_SPACE, Episode, arrays

from sb3_genoffline import OfflineDataset
from sb3_genoffline.data import clip_actions, scale_actions
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.sequences import SequenceSampler, returns_to_go
from sb3_genoffline.errors import UserError

# Of one row, shorter than a window, as long, longer; one that goes on into nothing
EPISODES = [
    Episode(0, 5, "terminated"),
    Episode(1, 1, "truncated"),
    Episode(2, 3, "terminated"),
    Episode(3, 8, "truncated"),
    Episode(4, 1, "terminated"),
    Episode(5, 2, "cut"),
]
LENGTHS = [episode.length for episode in EPISODES]
SCALE, SHIFT, GAMMA, PENALTY = 0.5, -3.0, 0.9, -100.0


@pytest.fixture(scope="module")
def dataset() -> OfflineDataset:
    return OfflineDataset(
        **arrays(EPISODES),
        observation_space=OBSERVATION_SPACE,
        action_space=ACTION_SPACE,
        episode_ends=np.cumsum(LENGTHS),
    )


@pytest.fixture(scope="module")
def buffer(dataset: OfflineDataset) -> OfflineBuffer:
    return OfflineBuffer(
        5, OBSERVATION_SPACE, ACTION_SPACE, "cpu", dataset=dataset, reward_scale=SCALE, reward_shift=SHIFT, seed=0
    )


def plain_windows(dataset: OfflineDataset, horizon: int, padding: str | None) -> list[dict[str, np.ndarray]]:
    """All windows in the order of their first rows, one step at a time."""
    found = []
    scaled = clip_actions(scale_actions(dataset.actions, dataset.action_space))
    for first, end in itertools.pairwise([0, *dataset.episode_ends]):
        for start in range(first, end):
            rows = list(range(start, min(start + horizon, end)))
            if padding is None and len(rows) < horizon:
                continue
            window = {
                "observations": np.zeros((horizon, 3)),
                "actions": np.zeros((horizon, 2)),
                **{name: np.zeros(horizon) for name in ("rewards", "masks", "timesteps", "valid", "returns_to_go")},
            }
            for i, row in enumerate(rows):
                at = i + (horizon - len(rows) if padding == "before" else 0)
                window["observations"][at] = dataset.observations[row]
                window["actions"][at] = scaled[row]
                window["rewards"][at] = SCALE * dataset.rewards[row] + SHIFT
                window["masks"][at] = 1 - dataset.terminations[row]
                window["timesteps"][at] = row - first
                window["valid"][at] = 1
                window["returns_to_go"][at] = sum(
                    GAMMA ** (later - row) * (SCALE * dataset.rewards[later] + SHIFT + PENALTY * dataset.terminations[later])
                    for later in range(row, end)
                )
            found.append(window)
    return found


@pytest.mark.parametrize("padding", ["before", "after", None])
@pytest.mark.parametrize("horizon", [1, 3, 8])
def test_windows_are_those_of_a_plain_loop(dataset: OfflineDataset, buffer: OfflineBuffer, horizon: int, padding: Any) -> None:
    sampler = SequenceSampler(
        buffer, horizon, padding=padding, discount=GAMMA, termination_penalty=PENALTY, replacement=False, seed=0
    )
    expected = plain_windows(dataset, horizon, padding)
    assert len(sampler) == len(expected)
    batch = sampler.gather(th.arange(len(sampler)))
    assert batch.valid.dtype == th.bool and batch.timesteps.dtype == th.int64
    for name, values in batch._asdict().items():
        np.testing.assert_allclose(values, np.stack([window[name] for window in expected]), rtol=1e-5, err_msg=name)


def test_a_dataset_gives_raw_rewards_and_no_returns_unless_asked(dataset: OfflineDataset) -> None:
    batch = SequenceSampler(dataset, 2, seed=0, device="cpu").gather(th.arange(3))
    np.testing.assert_array_equal(batch.rewards, [[0, 1], [1, 2], [2, 3]])
    assert batch.returns_to_go is None


def decision_transformer_example() -> OfflineDataset:
    rewards = np.sin(np.arange(6) + 1.0)
    return OfflineDataset(
        observations=np.zeros((6, 1)),
        actions=np.zeros((6, 1)),
        rewards=rewards,
        next_observations=np.zeros((6, 1)),
        terminations=np.zeros(6, bool),
        truncations=np.zeros(6, bool),
        observation_space=spaces.Box(-1, 1, (1,)),
        action_space=spaces.Box(-1, 1, (1,)),
        episode_ends=np.array([4, 6]),
    )


def test_decision_transformers_windows_by_hand() -> None:
    """Six steps in episodes of four and two, K = 3, returns undiscounted."""
    sampler = SequenceSampler(decision_transformer_example(), 3, padding="before", discount=1.0, seed=0, device="cpu")
    batch = sampler.gather(th.tensor([0, 2, 5]))
    assert batch.returns_to_go is not None
    expected = [[1.13508592, 0.29361494, -0.61568249], [0, -0.61568249, -0.75680250], [0, 0, -0.27941550]]
    np.testing.assert_allclose(batch.returns_to_go, expected, atol=1e-6)
    assert batch.timesteps.tolist() == [[0, 1, 2], [0, 2, 3], [0, 0, 1]]
    assert batch.valid.tolist() == [[True] * 3, [False, True, True], [False, False, True]]


def test_diffusers_windows_by_hand() -> None:
    """Its starts leave out each episode's last, its returns are of the whole rest of the episode, and a fall costs 100."""
    lengths = np.array([5, 10, 1, 3])
    ends = np.cumsum(lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    episode = np.repeat(np.arange(4), lengths)
    terminations = np.zeros(19, bool)
    terminations[[4, 18]] = True
    data = OfflineDataset(
        observations=np.stack([episode, step], axis=1),
        actions=np.zeros((19, 1)),
        rewards=1 + 0.1 * step + episode,
        next_observations=np.zeros((19, 2)),
        terminations=terminations,
        truncations=np.zeros(19, bool),
        observation_space=spaces.Box(-np.inf, np.inf, (2,)),
        action_space=spaces.Box(-1, 1, (1,)),
        episode_ends=ends,
    )
    counts = np.maximum(np.minimum(lengths - 1, 10 - 4), 0)
    sampler = SequenceSampler(
        data, 4, padding="after", counts=counts, discount=0.99, termination_penalty=-100.0, seed=0, device="cpu"
    )
    batch = sampler.gather(th.arange(len(sampler)))
    starts = [tuple(start) for start in batch.observations[:, 0].int().tolist()]
    assert starts == [(0, 0), (0, 1), (0, 2), (0, 3), *((1, h) for h in range(6)), (3, 0), (3, 1)]
    unpadded = SequenceSampler(data, 4, padding="after", counts=np.maximum(lengths - 4, 0), seed=0, device="cpu")
    starts_there = [tuple(start) for start in unpadded.gather(th.arange(len(unpadded))).observations[:, 0].int().tolist()]
    assert starts_there == [(0, 0), *((1, h) for h in range(6))]
    assert batch.returns_to_go is not None
    known = {(0, 0): -90.18825640, (0, 3): -96.31399854, (1, 0): 23.34712323, (1, 5): 13.22283563, (3, 1): -90.74200312}
    for start, expected in known.items():
        assert float(batch.returns_to_go[starts.index(start), 0]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_returns_of_random_episodes(seed: int) -> None:
    """Lengths on both sides of powers of two, one episode alone among them."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(rng.integers(1, [2, 9, 40][seed], size=[5, 20, 1][seed]))
    rewards, expected = rng.normal(size=ends[-1]), np.zeros(ends[-1])
    for first, end in itertools.pairwise([0, *ends]):
        rest = 0.0
        for row in reversed(range(first, end)):
            expected[row] = rest = rewards[row] + 0.97 * rest
    np.testing.assert_allclose(returns_to_go(rewards, ends, 0.97), expected, atol=1e-12)


def test_every_window_is_drawn_once_an_epoch_in_an_order_of_the_samplers_own(buffer: OfflineBuffer) -> None:
    sampler = SequenceSampler(buffer, 4, padding="before", seed=3)
    before = th.get_rng_state()
    order = th.randperm(len(sampler), generator=th.Generator().manual_seed(3))
    for start in range(0, len(sampler), 8):
        drawn, expected = sampler.draw(8), sampler.gather(order[start : start + 8])
        assert th.equal(drawn.observations, expected.observations) and th.equal(drawn.valid, expected.valid)
    assert th.equal(th.get_rng_state(), before)
    with_replacement = SequenceSampler(buffer, 4, padding="before", replacement=True, seed=3).draw(200)
    assert len(with_replacement.valid) == 200 > len(sampler)


@pytest.mark.parametrize("replacement", [False, True])
def test_a_resumed_sampler_goes_on_with_the_same_windows(buffer: OfflineBuffer, replacement: bool) -> None:
    live, resumed = (SequenceSampler(buffer, 3, padding="after", replacement=replacement, seed=seed) for seed in (1, 2))
    for _ in range(3):
        live.draw(6)
    resumed.load_state_dict(live.state_dict())
    for _ in range(6):
        assert th.equal(live.draw(6).observations, resumed.draw(6).observations)
    with pytest.raises(UserError, match=r"drew from 20 windows, and here are 10"):
        SequenceSampler(buffer, 3, seed=0).load_state_dict(live.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "horizon=0 must be a whole number of at least 1"),
        ({"horizon": 2.0}, "horizon=2.0 must be a whole number"),
        ({"padding": "both"}, "padding='both' is not known; use None, 'before' or 'after'"),
        ({"discount": 1.5}, r"discount=1.5 must lie in \[0, 1\]"),
        ({"horizon": 9}, "no window of horizon=9 steps: the longest of 6 episodes has 8 steps"),
        ({"counts": [1, 2]}, r"counts has shape \(2,\) and dtype int64; one integer for each of the 6 episodes"),
        ({"counts": [1.0] * 6}, "dtype float64; one integer"),
        ({"counts": [2, 1, 0, 0, 0, 0]}, r"counts\[1\]=1, but the episode of 1 steps has 0 to 0 windows of horizon=4"),
        ({"counts": [2, 0, 0, -1, 0, 0]}, r"counts\[3\]=-1"),
    ],
)
def test_bad_arguments_are_named(buffer: OfflineBuffer, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SequenceSampler(buffer, **{"horizon": 4, "seed": 0, **changes})


def test_a_buffer_without_a_dataset_has_no_windows() -> None:
    with pytest.raises(UserError, match="no offline rows"):
        SequenceSampler(OfflineBuffer(5, OBSERVATION_SPACE, ACTION_SPACE, "cpu", seed=0), 4)
