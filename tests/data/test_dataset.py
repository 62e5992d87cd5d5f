import numpy as np
import pytest
from gymnasium import spaces
from labelled_episodes import ACTION_SPACE, OBSERVATION_SPACE, Episode, arrays, assert_aligned, random_episodes

from sb3_genoffline.data import OfflineDataset, load_dataset
from sb3_genoffline.errors import UserError

EPISODES = [Episode(0, 3, "truncated"), Episode(1, 2, "terminated"), Episode(2, 4, "cut")]


def fields(**changes):
    return arrays(EPISODES) | {"observation_space": OBSERVATION_SPACE, "action_space": ACTION_SPACE} | changes


def changed(name, index, value, dtype=np.float64):
    array = np.array(arrays(EPISODES)[name], dtype=dtype)
    array[index] = value
    return {name: array}


def test_arrays_are_float32_or_bool_and_read_only_and_the_callers_own_stay_writable():
    given = fields()
    given["rewards"] = given["rewards"].astype(np.float32)
    dataset = OfflineDataset(**given)
    for name in ("observations", "actions", "rewards", "next_observations"):
        assert getattr(dataset, name).dtype == np.float32
    assert dataset.terminations.dtype == dataset.truncations.dtype == np.bool_
    assert dataset.episode_ends.dtype == np.int64
    for name in (*arrays(EPISODES), "episode_ends"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(dataset, name)[0] = 0
    given["rewards"][0] = 99
    assert dataset.rewards[0] == 0


def test_episode_views():
    dataset = OfflineDataset(**fields())
    assert len(dataset) == 9 and dataset.n_episodes == 3
    np.testing.assert_array_equal(dataset.episode_ends, [3, 5, 9])
    np.testing.assert_array_equal(dataset.episode_starts, [0, 3, 5])
    np.testing.assert_array_equal(dataset.episode_lengths(), [3, 2, 4])
    np.testing.assert_array_equal(dataset.episode_returns(), [3, 201, 806])
    assert "transitions=9, episodes=3" in repr(dataset)


def test_a_cut_at_the_end_is_no_truncation_of_the_arrays_one_gives():
    dataset = OfflineDataset(**fields())
    assert not dataset.truncations[-1] and dataset.episode_ends[-1] == 9


@pytest.mark.parametrize("seed", range(5))
def test_selected_episodes_stay_aligned(seed):
    episodes = random_episodes(seed)
    dataset = OfflineDataset(**(fields() | arrays(episodes)))
    order = np.random.default_rng(seed).permutation(len(episodes))[: max(1, len(episodes) // 2)]
    assert_aligned(dataset.select_episodes(order), [episodes[i] for i in order])
    mask = np.isin(np.arange(len(episodes)), order)
    assert_aligned(dataset.select_episodes(mask), [e for e, chosen in zip(episodes, mask, strict=True) if chosen])
    with pytest.raises(UserError, match="No episode is selected"):
        dataset.select_episodes([False] * len(episodes))
    with pytest.raises(IndexError):
        dataset.select_episodes([len(episodes)])


def test_replace_shares_what_it_does_not_change_and_checks_what_it_does():
    dataset = OfflineDataset(**fields())
    other = dataset.replace(id="other", rewards=np.ones(9))
    assert other.observations is dataset.observations and other.id == "other"
    with pytest.raises(UserError, match=r"rewards\[2\] = nan"):
        dataset.replace(rewards=np.where(np.arange(9) == 2, np.nan, 0))


def test_the_fingerprint_tells_contents_apart_and_ignores_names():
    dataset = OfflineDataset(**fields())
    assert dataset.fingerprint == OfflineDataset(**fields(id="x", ref_min_score=0, ref_max_score=1)).fingerprint
    others = [
        OfflineDataset(**fields(**change))
        for change in (
            changed("observations", (0, 0), 5),
            changed("actions", (0, 0), 0.5),
            changed("rewards", 0, 5),
            changed("next_observations", (0, 0), 5),
            changed("terminations", 0, True, bool),
            changed("truncations", 0, True, bool),
            {"episode_ends": [4, 9]},
            {"action_space": spaces.Box(-7, 7, (2,))},
        )
    ]
    assert len({dataset.fingerprint, *(other.fingerprint for other in others)}) == 9


def test_the_fingerprint_is_the_same_in_every_process_on_every_machine():
    """One that was computed elsewhere, of numbers that every machine writes alike."""
    steps = np.arange(6.0)
    data = {
        "observations": np.stack([steps, steps / 4], axis=1),
        "actions": np.stack([steps / 8], axis=1),
        "rewards": steps - 2.5,
        "next_observations": np.stack([steps + 1, steps / 4 + 0.25], axis=1),
        "terminations": steps == 3,
        "truncations": steps == 5,
    }
    assert load_dataset(data).fingerprint == "fe1b8e01ffc8457c032f05ce022b76310415580a27c9515407a7fab7f7c8518e"


def test_float_round_off_outside_the_action_space_is_clipped():
    dataset = OfflineDataset(**fields(**changed("actions", (3, 1), 6.0003)))
    assert dataset.actions[3, 1] == 6.0
    assert dataset.actions.min() >= -2 and dataset.actions.max() <= 6


IMAGES = np.zeros((9, 8, 8, 3), np.uint8)

BAD = {
    "below": (
        changed("actions", (3, 0), -1.5),
        r"actions\[3, 0\] = -1.5 is outside the action space \[-1, 1\] \(1 of 9 rows are\)",
    ),
    "nan": (changed("observations", (4, 2), np.nan), r"observations\[4, 2\] = nan is not finite. Repair .* of row 4 \("),
    "inf": (changed("next_observations", (1, 0), np.inf), r"next_observations\[1, 0\] = inf is not finite"),
    "nans": (
        changed("observations", ([2, 4, 4], [1, 0, 1]), np.nan),
        r"\[2, 1\] = nan .* value. .* 2 of 9 rows, in columns 0, 1",
    ),
    "infs": (changed("rewards", [3, 7], np.inf), r"rewards\[3\] = inf is .* There are such values in 2 of 9 rows\.$"),
    "minus inf": (changed("rewards", 7, -np.inf), r"rewards\[7\] = -inf is not finite. Repair the value, or remove .* row 7 "),
    "nan action": (changed("actions", (8, 1), np.nan), r"actions\[8, 1\] = nan"),
    "too large for float32": (changed("rewards", 1, 1e300), r"rewards\[1\] = 1e\+300 does not fit into float32"),
    "one row too many": (
        {"observations": np.zeros((10, 3))},
        r"actions has 9 rows, but observations has 10. .*T observations, not T \+ 1",
    ),
    "wrong columns": ({"actions": np.zeros((9, 3))}, r"actions has shape \(9, 3\), but \(N, 2\) is expected"),
    "matrix of rewards": ({"rewards": np.zeros((9, 2))}, r"rewards has shape \(9, 2\), but \(N,\) is expected"),
    "words": (
        {"terminations": np.array(["", "died"] * 4 + [""])},
        r"terminations has dtype <U4; .* with terminations == 'died'",
    ),
    "object dtype": ({"actions": np.array([[None] * 2] * 9)}, "actions has dtype object; numbers are needed. Convert"),
    "complex dtype": ({"rewards": np.zeros(9, complex)}, "rewards has dtype complex128"),
    "text": ({"rewards": ["1"] * 9}, "rewards has dtype <U1"),
    "ragged": ({"observations": [[0.0] * 3] * 8 + [[0.0]]}, "observations cannot be read as one array .*Join the episodes"),
    "images": ({"observations": IMAGES}, "observations has dtype uint8 and shape .*images are not supported. Supported are"),
    "image space": ({"observation_space": spaces.Box(0, 255, (8, 8, 3), np.uint8)}, "observation_space is an image space"),
    "discrete observations": ({"observation_space": spaces.Discrete(3)}, r"observation_space is Discrete\(3\).*Supported are"),
    "dict observations": (
        {"observation_space": spaces.Dict(a=OBSERVATION_SPACE)},
        "flat_observation_space gives the flat space",
    ),
    "discrete actions": ({"action_space": spaces.Discrete(3)}, r"action_space is Discrete\(3\), which is not supported"),
    "action matrix": ({"action_space": spaces.Box(-1, 1, (2, 1))}, "action_space is .* a one-dimensional Box for actions"),
    "no action bounds": (
        {"action_space": spaces.Box(np.float32([-1, -np.inf]), np.float32([1, 1]))},
        r"action_space.low\[1\] = -inf, but finite bounds are needed",
    ),
    "no action range": (
        {"action_space": spaces.Box(np.float32([-1, 0]), np.float32([1, 0]))},
        r"low\[1\] = 0.0 and high\[1\] = 0.0: low must be below high",
    ),
    "action outside": (
        changed("actions", (5, 1), 6.5),
        r"actions\[5, 1\] = 6.5 is outside the action space \[-2, 6\] \(1 of 9 rows are\).*np.clip",
    ),
    "not a flag": (changed("terminations", 3, 0.5), r"terminations\[3\] = 0.5 is neither 0 nor 1"),
    "flag nan": (changed("truncations", 3, np.nan), r"truncations\[3\] = nan is neither 0 nor 1"),
    "flag matrix": ({"truncations": np.zeros((9, 2))}, r"truncations has shape \(9, 2\), but \(N,\) is expected"),
    "ends not increasing": ({"episode_ends": [3, 3, 9]}, r"episode_ends\[1\] = 3 does not lie above the end before it"),
    "ends from zero": ({"episode_ends": [0, 9]}, r"episode_ends\[0\] = 0 does not lie above"),
    "ends too early": ({"episode_ends": [3, 8]}, "episode_ends ends with 8, but there are 9 transitions"),
    "no ends": ({"episode_ends": []}, "episode_ends must be a vector of integers"),
    "real ends": ({"episode_ends": [4.5, 9.0]}, "episode_ends must be a vector of integers"),
    "empty": ({name: array[:0] for name, array in arrays(EPISODES).items()}, "The dataset is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    change, message = BAD[case]
    with pytest.raises(UserError, match=message):
        OfflineDataset(**fields(**change))


def test_vectors_may_come_as_columns_and_one_dimensional_observations_as_vectors():
    dataset = OfflineDataset(
        observations=np.arange(4.0),
        actions=[0.0, 0.5, -0.5, 1.0],
        rewards=np.arange(4)[:, None],
        next_observations=np.arange(4)[:, None] + 1,
        terminations=np.array([[0], [1], [0], [0]]),
        truncations=[0, 0, 0, 1],
        observation_space=spaces.Box(-np.inf, np.inf, (1,)),
        action_space=spaces.Box(-1, 1, (1,)),
    )
    assert dataset.observations.shape == dataset.actions.shape == (4, 1) and dataset.rewards.shape == (4,)
    np.testing.assert_array_equal(dataset.episode_ends, [2, 4])


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "next_observations", "terminations", "truncations"])
def test_an_array_without_rows_among_others_is_named(name):
    with pytest.raises(UserError, match=r"observations has shape|has 0 rows"):
        load_dataset(arrays(EPISODES) | {name: np.zeros(0)})
