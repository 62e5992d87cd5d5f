"""Phase A of QDQ: the returns of sliding windows (its README, claims 1 to 3)."""

import os
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from sb3_genoffline import OfflineDataset, load_dataset
from sb3_genoffline.data import windows as windows_module
from sb3_genoffline.data.windows import WindowedReturns, count_windows, trajectory_ends, windowed_returns
from sb3_genoffline.errors import UserError

GAMMA = 0.99
SETTINGS: dict[str, dict[str, Any]] = {
    "the paper's proportions": {"window": 20, "stride": 3, "max_windows": 100},
    "few windows": {"window": 7, "stride": 2, "max_windows": 4},
    "every step": {"window": 5, "stride": 1, "max_windows": 1000},
    "strides longer than windows": {"window": 3, "stride": 8, "max_windows": 100},
    "windows of one reward": {"window": 1, "stride": 1, "max_windows": 100},
    "windows longer than any trajectory": {"window": 500, "stride": 10, "max_windows": 100},
}


def recording(lengths: Any, rewards: Any = None, terminated: Any = False, **kwargs: Any) -> OfflineDataset:
    """
    Episodes of these lengths whose observations say (episode, step), so that a row's next observation is the row that follows
    inside an episode only.

    :param lengths: of the episodes
    :param rewards: (N,), or None for normal random numbers
    :param terminated: whether an episode ends by termination, for all or for each; else by truncation
    :param kwargs: other fields of the dataset
    """
    ends = np.cumsum(lengths)
    n = int(ends[-1])
    episode = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(n) - np.repeat(ends - lengths, lengths)
    last, terminal = np.zeros(n, bool), np.zeros(n, bool)
    last[ends - 1] = True
    terminal[ends - 1] = terminated
    fields = {
        "observations": np.stack([episode, step], axis=1),
        "actions": np.zeros((n, 1)),
        "rewards": np.random.default_rng(0).normal(size=n) if rewards is None else np.broadcast_to(rewards, n),
        "next_observations": np.stack([episode, step + 1], axis=1),
        "terminations": terminal,
        "truncations": last & ~terminal,
        "observation_space": spaces.Box(-np.inf, np.inf, (2,), np.float32),
        "action_space": spaces.Box(-1, 1, (1,), np.float32),
    }
    return OfflineDataset(**(fields | kwargs))


def by_definition(
    rewards: np.ndarray, ends: list[int], window: int, stride: int, max_windows: int, full_coverage: bool
) -> list[tuple[int, int, float]]:
    """(start, length, return) of every window, one after the other, as the paper's released code makes them."""
    found, first = [], 0
    for end in ends:
        length = end - first
        for j in range(max_windows):
            p = j * stride
            if p >= length or (not full_coverage and length <= window and j > 0):
                break
            n = min(window, length - p)
            found.append((first + p, n, sum(GAMMA**i * float(rewards[first + p + i]) for i in range(n))))
            if not full_coverage and p + window >= length:
                break
        first = end
    return found


def assert_windows(found: WindowedReturns, expected: list[tuple[int, int, float]]) -> None:
    rows, lengths, returns = zip(*expected, strict=True)
    assert found.rows.tolist() == list(rows)
    assert found.lengths.tolist() == list(lengths)
    np.testing.assert_allclose(found.returns, returns, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- which windows


def test_a_trajectory_has_the_papers_number_of_windows() -> None:
    lengths = [1, 150, 200, 201, 210, 211, 400, 999, 1000, 1200, 2000]
    expected = [1, 1, 1, 2, 2, 3, 21, 81, 81, 100, 100]
    assert count_windows(np.array(lengths)).tolist() == expected
    found = windowed_returns(recording(lengths))
    assert np.bincount(recording(lengths).observations[found.rows, 0].astype(int)).tolist() == expected


@pytest.mark.parametrize("full_coverage", [False, True])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_windows_and_returns_are_those_of_the_definition(settings: dict[str, Any], full_coverage: bool) -> None:
    rng = np.random.default_rng(1)
    lengths = np.concatenate([rng.integers(1, 60, 30), [1, 20, 21, 23, 24, 1]])
    dataset = recording(lengths, terminated=rng.random(36) < 0.5)
    found = windowed_returns(dataset, GAMMA, full_coverage=full_coverage, **settings)
    ends = np.cumsum(lengths).tolist()
    assert_windows(found, by_definition(dataset.rewards, ends, full_coverage=full_coverage, **settings))


def test_the_last_window_of_a_long_trajectory_is_nearly_whole_and_full_coverage_goes_on_to_the_last_step() -> None:
    for length in range(201, 260):
        found = windowed_returns(recording([length]))
        assert 200 - 10 < found.lengths[-1] <= 200 and found.rows[-1] + found.lengths[-1] == length
        covered = windowed_returns(recording([length]), full_coverage=True)
        assert length - 10 <= covered.rows[-1] < length and (np.diff(covered.rows) == 10).all()
    short = windowed_returns(recording([35]), full_coverage=True)
    assert short.rows.tolist() == [0, 10, 20, 30] and short.lengths.tolist() == [35, 25, 15, 5]


@pytest.mark.parametrize("name", ["window", "stride", "max_windows"])
def test_senseless_sizes_are_refused(name: str) -> None:
    sizes: dict[str, Any] = {name: 0}
    with pytest.raises(UserError, match=f"{name}=0 must be at least 1"):
        windowed_returns(recording([5]), **sizes)


# ---------------------------------------------------------------------- their returns


def test_a_short_trajectory_is_one_item_of_its_whole_discounted_return() -> None:
    dataset = recording([150])
    found = windowed_returns(dataset)
    assert_windows(found, [(0, 150, float(dataset.rewards.astype(np.float64) @ GAMMA ** np.arange(150)))])


def test_windows_without_a_success_in_antmaze_are_worth_minus_86_6() -> None:
    found = windowed_returns(recording([999], rewards=0.0), reward_shift=-1.0)
    assert len(found.returns) == 81
    assert found.returns.min() == pytest.approx(-86.602, abs=1e-3)
    assert found.returns[0] == pytest.approx(-(1 - GAMMA**200) / (1 - GAMMA), rel=1e-12)


def test_the_discount_counts_from_the_windows_start_and_not_from_the_trajectorys() -> None:
    rewards = np.zeros(60)
    rewards[[40, 41]] = 1.0
    found = windowed_returns(recording([60], rewards), GAMMA, window=10, stride=10)
    assert found.rows.tolist() == [0, 10, 20, 30, 40, 50]
    np.testing.assert_allclose(found.returns, [0, 0, 0, 0, 1 + GAMMA, 0])


def test_rewards_are_scaled_then_shifted_before_they_are_summed() -> None:
    dataset = recording([30, 7, 45])
    moved = dataset.replace(rewards=3.0 * dataset.rewards - 0.5)
    transformed = windowed_returns(dataset, window=10, reward_scale=3.0, reward_shift=-0.5)
    np.testing.assert_allclose(transformed.returns, windowed_returns(moved, window=10).returns, rtol=1e-5, atol=1e-5)
    assert not np.allclose(transformed.returns, windowed_returns(dataset, window=10).returns)


# ---------------------------------------------------------------------- where a trajectory ends


@pytest.mark.parametrize("end", ["termination", "time-out", "cut"])
def test_a_window_never_sees_the_next_trajectorys_rewards(end: str) -> None:
    """A time-out ends a trajectory here, though not in the critic's target."""
    flags = {"truncations": np.zeros(44, bool), "episode_ends": [12, 44]} if end == "cut" else {}
    before, after = (
        recording([12, 32], np.concatenate([np.ones(12), np.full(32, reward)]), end == "termination", **flags)
        for reward in (0.0, 1e6)
    )
    found, changed = (windowed_returns(dataset, window=10, stride=1) for dataset in (before, after))
    first = found.rows < 12
    assert found.rows[first].tolist() == [0, 1, 2] and found.lengths[first].tolist() == [10, 10, 10]
    np.testing.assert_array_equal(found.returns[first], changed.returns[first])
    assert (found.returns[~first] != changed.returns[~first]).all()


@pytest.mark.parametrize("flag", ["terminations", "truncations"])
def test_a_terminal_or_a_time_out_inside_an_episode_ends_the_trajectory(flag: str) -> None:
    """Logs that go on behind a terminal, and whose episode_ends say so, exist (tasks that play on behind a success)."""
    flags = np.zeros(40, bool)
    flags[14] = True
    dataset = recording([40], **{flag: flags}, episode_ends=[40])
    assert dataset.n_episodes == 1
    assert trajectory_ends(dataset).tolist() == [15, 40]
    found = windowed_returns(dataset, GAMMA, window=10, stride=5)
    assert_windows(found, by_definition(dataset.rewards, [15, 40], 10, 5, 100, False))


def test_a_break_in_the_recording_ends_a_trajectory() -> None:
    dataset = recording([40])
    following = np.array(dataset.next_observations)
    following[24] += [0.0, 0.5]
    broken = dataset.replace(next_observations=following)
    assert broken.n_episodes == 1
    assert trajectory_ends(broken).tolist() == [25, 40]
    found = windowed_returns(broken, GAMMA, window=10, stride=5)
    assert_windows(found, by_definition(dataset.rewards, [25, 40], 10, 5, 100, False))


def test_noise_on_every_observation_is_no_break_and_is_said_to_be_noise() -> None:
    dataset = recording([30, 30])
    noisy = dataset.replace(next_observations=dataset.next_observations + 0.01)
    with pytest.warns(UserWarning, match=r"In 97% of the rows .* only episode_ends and flags count"):
        assert trajectory_ends(noisy).tolist() == [30, 60]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trajectory_ends(dataset).tolist() == [30, 60]


# ---------------------------------------------------------------------- size


def test_the_work_in_python_grows_with_the_window_and_not_with_the_data() -> None:
    def lines_run(n_episodes: int) -> int:
        """Lines of the module that the interpreter passes."""
        dataset, count = recording(np.full(n_episodes, 300), terminated=True), 0

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal count
            if frame.f_code.co_filename != windows_module.__file__:
                return None
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            found = windowed_returns(dataset, window=50)
        finally:
            sys.settrace(before)
        assert len(found.rows) == n_episodes * 26
        return count

    assert 50 < lines_run(2) == lines_run(100) < 1000


# ---------------------------------------------------------------------- the authors' numbers

D4RL_RANGES = {
    "halfcheetah_medium-v2": (-36.693, 524.713),
    "halfcheetah_medium_replay-v2": (-76.832, 492.483),
    "halfcheetah_medium_expert-v2": (-50.625, 1076.022),
    "hopper_medium-v2": (115.098, 334.081),
    "hopper_medium_replay-v2": (-0.651, 330.225),
    "hopper_medium_expert-v2": (138.312, 396.264),
    "walker2d_medium-v2": (-16.571, 474.806),
    "walker2d_medium_replay-v2": (-31.768, 434.370),
    "walker2d_medium_expert-v2": (-16.571, 478.141),
    **{
        f"Ant_maze_{maze}_noisy_multistart_{start}_multigoal_{goal}_sparse": (-86.602, 0.0)
        for maze, start, goal in (
            ("u-maze", "False", "False"),
            ("u-maze", "True", "True"),
            ("big-maze", "True", "False"),
            ("big-maze", "True", "True"),
            ("hardest-maze", "True", "False"),
            ("hardest-maze", "True", "True"),
        )
    },
}
D4RL_FOLDER = Path(os.environ.get("D4RL_DATASET_DIR", "~/.d4rl/datasets")).expanduser()


@pytest.mark.parametrize("name", D4RL_RANGES)
def test_the_returns_of_d4rls_data_lie_in_the_authors_range(name: str) -> None:
    """In D4RL's q-learning view, that the authors used: the files' own next observations are left aside."""
    path = D4RL_FOLDER / f"{name}.hdf5"
    if not path.is_file():
        pytest.skip(f"there is no {path}: put D4RL's file there, or name its folder in D4RL_DATASET_DIR")
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "r") as file:
        keys = [key for key in ("observations", "actions", "rewards", "terminals", "timeouts") if key in file]
        arrays = {key: file[key][()] for key in keys}
    found = windowed_returns(load_dataset(arrays), reward_shift=-1.0 if name.startswith("Ant") else 0.0)
    low, high = D4RL_RANGES[name]
    assert found.returns.min() == pytest.approx(low, abs=2e-3)
    assert found.returns.max() == pytest.approx(high, abs=2e-3)
